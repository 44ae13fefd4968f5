"""From differences with their intervals to a verdict in words: everywhere in a report by the same rule."""

from collections.abc import Sequence

from eval.statistics.bootstrap import Interval
from studies.report_parts.sections import Value

ABOVE, BELOW, OPEN = 1, -1, 0
"""Where a difference lies: significantly above 0, significantly below 0, or not significant (95 % CI includes 0)."""

SUPPORTED, CONTRADICTED, NOT_SIGNIFICANT = "supported", "contradicted", "not significant (95 % CI includes 0)"
"""How a verdict begins where all protocols agree."""

ONE_RUN = "single pretraining run"
"""Added to a verdict that rests on one."""


def side(value: Value | Interval | None) -> int | None:
    """`ABOVE`, `BELOW` or `OPEN`; None without an interval."""
    bounds = None if value is None else value.bounds
    if bounds is None:
        return None
    low, high = bounds
    if low > 0:
        return ABOVE
    return BELOW if high < 0 else OPEN


def verdict(values: Sequence[Value | Interval | None], runs: int | None = None) -> str:
    """Of a claim that a difference is above 0.

    Args:
        values: the difference, as each of one or several protocols finds it.
        runs: pretraining runs that it rests on; None for a claim that is not about pretraining.
    """
    known = [found for found in map(side, values) if found is not None]
    words = _words(known.count(ABOVE), known.count(BELOW), len(known))
    return f"{words}; {ONE_RUN}" if known and runs == 1 else words


def _words(above: int, below: int, known: int) -> str:
    if not known:
        return "undetermined: no confidence interval"
    if above and below:
        return f"mixed: supported by {above}, contradicted by {below} of {known} protocols"
    if above == known:
        return SUPPORTED
    if above:
        return f"partly supported: significant by {above} of {known} protocols"
    if below:
        return CONTRADICTED if below == known else f"partly contradicted: significant by {below} of {known} protocols"
    return NOT_SIGNIFICANT if known == 1 else f"{NOT_SIGNIFICANT}, by every protocol"
