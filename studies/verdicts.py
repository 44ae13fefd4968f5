"""From differences with their intervals to a verdict in words."""

from collections.abc import Sequence

from studies.bench import Bench
from studies.sections import Value


def verdict(values: Sequence[Value | None]) -> str:
    """Of a claim that a difference is above 0.

    Args:
        values: the difference, as each of one or several protocols finds it.
    """
    known = [value for value in values if value is not None and value.low is not None]
    if not known:
        return "cannot be told: no interval"
    above, below = sum(value.low > 0 for value in known), sum(value.high < 0 for value in known)
    if above and below:
        return f"mixed: supported by {above}, contradicted by {below} of {len(known)} protocols"
    if above == len(known):
        return "supported"
    if above:
        return f"not by every protocol: supported by {above} of {len(known)}"
    if below:
        return "contradicted" if below == len(known) else f"contradicted by {below} of {len(known)} protocols"
    return "not supported: the interval holds 0" if len(known) == 1 else "not supported: every interval holds 0"


def one_seed(bench: Bench) -> str:
    """A warning to add to a note where pretraining was run with one seed only."""
    return "" if len(bench.config.pretraining_seeds) > 1 else " One pretraining seed: it is said of this run alone."
