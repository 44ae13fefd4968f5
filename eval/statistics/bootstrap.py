"""95 % intervals by a bootstrap over blocks of neighbouring patches, and of differences on the same resampled patches.

Patches of one area are correlated: drawing them one by one would treat them as independent and give intervals that are
too narrow. So whole blocks are drawn, with replacement, as many as there are (see `eval.statistics.spatial_blocks`).

The interval is the pivotal (or basic) one: a resampled figure lies about the measured one as that lies about the true
one, so the percentiles of the draws are mirrored at the measured figure. For accuracy, F1 and micro mAP that is as good
as the plain percentiles. Macro mAP is biased upwards where a class has few test patches, and the draws are so again:
percentiles then lie off on the far side and miss the truth most of the time, mirrored ones make up for it.
`python -m benchmarks.interval_coverage` measures how often each holds the truth. With fewer than about 60 blocks they
are all somewhat too narrow.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import norm, t
from tqdm import tqdm

from eval.statistics.weighted_metrics import Statistic
from utils.randomness import derive_seed

DRAWS = 1000
"""Resampled test sets."""

LEVEL = 0.95
"""Of every interval."""

Limits = tuple[float, float]
"""The least and the greatest value that a figure can take."""

ANY: Limits = (-np.inf, np.inf)
SHARE: Limits = (0.0, 1.0)
"""Of accuracy, F1, average precision."""
POSITIVE: Limits = (0.0, np.inf)
"""Of losses."""


class Interval(NamedTuple):
    """A figure and where it may lie."""

    value: float
    low: float | None
    high: float | None
    """None where the spread is not known: a single block, or a single run."""

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Both ends; None where the spread is not known."""
        return None if self.low is None or self.high is None else (self.low, self.high)


class Resampled(NamedTuple):
    """A figure on the test set and on all of its resampled versions."""

    value: float
    draws: np.ndarray
    """(R,); NaN where the figure is not defined."""
    blocks: int
    """How many were drawn from."""
    key: str
    """Which draws: the same for the same blocks, seed and number of draws."""
    limits: Limits = ANY
    """Intervals end there: mirrored, they may reach beyond."""

    def interval(self) -> Interval:
        """Percentiles of the draws, mirrored at the figure."""
        defined = self.draws[np.isfinite(self.draws)]
        if self.blocks < 2 or not len(defined):
            return Interval(self.value, None, None)
        below, above = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return _within(self.limits, self.value, 2 * self.value - above, 2 * self.value - below)

    def minus(self, other: "Resampled") -> "Resampled":
        """The difference, draw by draw: both figures are of the same resampled patches.

        Raises:
            ValueError: when they are not.
        """
        if self.key != other.key:
            raise ValueError("a paired difference needs the same patches, blocks, seed and number of draws")
        return Resampled(self.value - other.value, self.draws - other.draws, self.blocks, self.key)


def resample(
    statistic: Statistic,
    blocks: np.ndarray,
    seed: int,
    draws: int = DRAWS,
    progress: str | None = None,
    limits: Limits = ANY,
) -> Resampled:
    """Evaluate a statistic on resampled test sets.

    Args:
        statistic: of weights (N,), how often each patch counts; see `eval.statistics.weighted_metrics`.
        blocks: (N,) anything that names the block of every patch.
        seed: the draws are a function of it and the blocks alone.
        draws: how many.
        progress: what to call the work in a bar on a terminal; None shows none.
        limits: what the figure can be.
    """
    names, block_of = np.unique(np.asarray(blocks), return_inverse=True)
    count = len(names)
    random = np.random.default_rng(derive_seed(seed, "bootstrap"))
    values = np.empty(draws)
    for draw in tqdm(range(draws), desc=progress, leave=False, disable=None if progress else True):
        times = np.bincount(random.integers(count, size=count), minlength=count)
        values[draw] = statistic(times[block_of].astype(np.float64))
    digest = hashlib.sha256(block_of.astype(np.int64).tobytes()).hexdigest()
    return Resampled(float(statistic(np.ones(len(block_of)))), values, count, f"{seed}/{draws}/{digest}", limits)


def block_bootstrap(
    statistic: Statistic, blocks: np.ndarray, seed: int, draws: int = DRAWS, limits: Limits = ANY
) -> Interval:
    """A figure and its interval; arguments as for `resample`."""
    return resample(statistic, blocks, seed, draws, limits=limits).interval()


def paired_difference(
    first: Statistic, second: Statistic, blocks: np.ndarray, seed: int, draws: int = DRAWS
) -> Interval:
    """`first` minus `second` on the same resampled patches; arguments as for `resample`.

    For several comparisons call `resample` once for every statistic, and `Resampled.minus`.
    """
    return resample(first, blocks, seed, draws).minus(resample(second, blocks, seed, draws)).interval()


def over_seeds(runs: Sequence[Resampled]) -> Interval:
    """The mean over runs that differ in their seed alone, with two sources of variance: seeds and test patches.

    The squares of two half-widths are added: Student's for the mean of the runs' values, and the normal one for the
    mean's spread over bootstrap samples. The bias of the bootstrap means is mirrored, as for a single run. For a claim
    about pretraining, `runs` are differences of paired runs or values of single ones. One run does not show the
    variance over seeds, so it has no interval. The interval is conservative: part of the variance over patches is also
    in the variance over runs, and counts twice (it covered the true value in 97 to 99 % of simulated comparisons of
    five runs each, benchmarks/results/interval_coverage.md).

    Args:
        runs: of the same patches and draws.

    Raises:
        ValueError: when they are not.
    """
    if len({run.key for run in runs}) != 1:
        raise ValueError("runs are averaged over the same patches, blocks, seed of the bootstrap and number of draws")
    values = np.array([run.value for run in runs])
    mean = float(values.mean())
    if len(runs) < 2 or runs[0].blocks < 2:
        return Interval(mean, None, None)
    of_runs = t.ppf((1 + LEVEL) / 2, len(runs) - 1) * values.std(ddof=1) / np.sqrt(len(runs))
    draws = np.mean([run.draws for run in runs], axis=0)
    of_patches = norm.ppf((1 + LEVEL) / 2) * np.nanstd(draws, ddof=1)
    half, middle = float(np.hypot(of_runs, of_patches)), float(2 * mean - np.nanmean(draws))
    return _within(runs[0].limits, mean, middle - half, middle + half)


def _within(limits: Limits, value: float, *ends: float) -> Interval:
    return Interval(value, *(float(end) for end in np.clip(ends, *limits)))


def of_runs(runs: Sequence[Resampled]) -> Interval:
    """One run: variance over test patches; several runs: variance over seeds as well (see `over_seeds`)."""
    return runs[0].interval() if len(runs) == 1 else over_seeds(runs)
