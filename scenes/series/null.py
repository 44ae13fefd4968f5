"""What distances between dates are worth: p-values from pairs of dates that should not differ, and which to believe."""

from collections.abc import Sequence
from datetime import datetime
from itertools import combinations
from typing import NamedTuple

import numpy as np

SEASON_DAYS = 45
"""Days of the year within which two dates are of one season."""
YEAR = 365.25
LEAST_PAIRS = 2
"""Fewer pairs do not show how much pairs differ among themselves."""
MOST_PAIRS = 12
"""More are thinned out evenly: all of them are in memory at once."""
LEAST_CELLS = 500
"""Of all pairs of the null distribution together: p is not below 1 / (1 + cells)."""
FAR_ABOVE, ROUNDS = 2.5, 10
"""Spreads above the median from which on a score does not count for either, and how often they are found anew."""
_NORMAL_QUARTILES = 1.3489795003921634


def season_gap(one: datetime, other: datetime) -> float:
    """Days between two times of the year, whatever the years."""
    days = abs(one.timetuple().tm_yday - other.timetuple().tm_yday)
    return min(days, YEAR - days)


def default_pairs(moments: Sequence[datetime], before: int, after: int) -> list[tuple[int, int]]:
    """Pairs of dates of one season, as far apart in it as the two compared at most, that do not span them.

    Where there are none that do not span them, those that do: a change is among their distances, too, which makes
    p-values larger than they need be.
    """
    season = max(SEASON_DAYS, season_gap(moments[before], moments[after]))
    pairs = [
        pair
        for pair in combinations(range(len(moments)), 2)
        if season_gap(moments[pair[0]], moments[pair[1]]) <= season and pair != (before, after)
    ]
    apart = [pair for pair in pairs if pair[1] <= before or pair[0] >= after]
    return apart if len(apart) >= LEAST_PAIRS else pairs


def thinned(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """At most `MOST_PAIRS` of some pairs, evenly spread."""
    chosen = np.linspace(0, len(pairs) - 1, min(len(pairs), MOST_PAIRS)).round().astype(int)
    return [pairs[number] for number in chosen]


def scores(distances: np.ndarray) -> np.ndarray:
    """Distances of one pair as robust z-scores of their logarithms, NaN where they are.

    Pairs differ in level and spread, with season, sun and haze.
    """
    with np.errstate(divide="ignore"):
        return standardised(np.log(np.maximum(distances, np.finfo(np.float32).tiny)))


def standardised(values: np.ndarray) -> np.ndarray:
    """(value - median) / spread of the quartiles, of all values that are not far above: those may have changed."""
    seen = kept = values[np.isfinite(values)]
    if not len(seen):
        return values
    for _ in range(ROUNDS):
        low, middle, high = np.percentile(kept, (25, 50, 75))
        spread = max((high - low) / _NORMAL_QUARTILES, 1e-6)
        kept = seen[seen <= middle + FAR_ABOVE * spread]
    return (values - middle) / spread


class Levelled(NamedTuple):
    """Scores without what is always so of a cell."""

    tested: np.ndarray
    """(…) of the pair that is tested."""
    null: np.ndarray
    """Sorted, of all cells of the pairs that should not differ."""
    share: float
    """Of a cell's mean over the other pairs that was taken off, 0 to 1."""


def levelled(tested: np.ndarray, pairs: np.ndarray) -> Levelled:
    """Scores less a share of the cell's mean over pairs that should not differ, standardised again.

    Some cells lie far apart on any two dates (fields), others never (woods); what is left shows whether this pair is
    unusual for this cell. A pair's own score is left out of the mean that is taken off it, and the share is the slope
    of scores on such means, as a mean over few pairs says little.

    Args:
        tested: (…) scores of the pair that is tested.
        pairs: (pairs, …) scores of those that should not differ.
    """
    seen = np.isfinite(pairs)
    count, total = seen.sum(0).astype(pairs.dtype), np.where(seen, pairs, 0).sum(0)
    mean = total / np.maximum(count, 1)
    others = np.where(seen & (count > 1), (total - np.where(seen, pairs, 0)) / np.maximum(count - 1, 1), 0)
    squares = float((others[seen] ** 2).sum())
    share = min(max(float((others[seen] * pairs[seen]).sum()) / squares, 0.0), 1.0) if squares else 0.0
    null = [standardised(one - share * level) for one, level in zip(pairs, others, strict=True)]
    found = np.concatenate([one[np.isfinite(one)] for one in null]) if len(null) else np.zeros(0)
    return Levelled(standardised(tested - share * mean), np.sort(found), share)


def p_values(values: np.ndarray, null: np.ndarray) -> np.ndarray:
    """(1 + how many of the null distribution are as large) / (1 + how many there are); NaN stays.

    Args:
        values: scores of any shape.
        null: (n,) sorted scores.
    """
    as_large = len(null) - np.searchsorted(null, values, side="left")
    return np.where(np.isfinite(values), (1 + as_large) / (1 + len(null)), np.nan)


def discoveries(p: np.ndarray, rate: float) -> np.ndarray:
    """Which p-values to believe so that in the mean at most a share `rate` of them is false.

    By Benjamini and Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x.

    Args:
        p: of any shape, NaN where there is none.
        rate: the false discovery rate.
    """
    known = np.sort(p[np.isfinite(p)])
    below = np.flatnonzero(known <= rate * np.arange(1, len(known) + 1) / max(len(known), 1))
    return p <= known[below[-1]] if len(below) else np.zeros(p.shape, bool)
