"""From differences with their intervals to a verdict in words: everywhere in a report by the same rule."""

from collections.abc import Sequence

from eval.statistics.bootstrap import Interval
from studies.report_parts.sections import Value

ABOVE, BELOW, OPEN = 1, -1, 0
"""Where a difference lies: above 0 or below 0 with its whole interval, or not told apart from 0."""

SUPPORTED, CONTRADICTED = "supported", "contradicted"
"""How a verdict begins where all agree; anything else begins otherwise."""

ONE_RUN = "of this run alone"
"""Added to a verdict that rests on a single pretraining run."""


def side(value: Value | Interval | None) -> int | None:
    """`ABOVE`, `BELOW` or `OPEN`; None where there is no interval to tell by."""
    if value is None or value.low is None or value.high is None:
        return None
    if value.low > 0:
        return ABOVE
    return BELOW if value.high < 0 else OPEN


def verdict(values: Sequence[Value | Interval | None], runs: int | None = None) -> str:
    """Of a claim that a difference is above 0.

    Args:
        values: the difference, as each of one or several protocols finds it.
        runs: pretraining runs that it rests on; None for a claim that is not about pretraining.
    """
    known = [found for found in map(side, values) if found is not None]
    said = _said(known.count(ABOVE), known.count(BELOW), len(known))
    return f"{said}; {ONE_RUN}" if known and runs == 1 else said


def _said(above: int, below: int, known: int) -> str:
    if not known:
        return "cannot be told: no interval"
    if above and below:
        return f"mixed: supported by {above}, contradicted by {below} of {known} protocols"
    if above == known:
        return SUPPORTED
    if above:
        return f"not by every protocol: supported by {above} of {known}"
    if below:
        return CONTRADICTED if below == known else f"not by every protocol: contradicted by {below} of {known}"
    return "not told apart: the interval holds 0" if known == 1 else "not told apart: every interval holds 0"
