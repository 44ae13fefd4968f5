"""Simulated test sets whose true values are known, and how often intervals hold them: for `interval_coverage.py`."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import root_scalar
from scipy.special import expit
from scipy.stats import norm
from tqdm import tqdm

from eval.statistics.bootstrap import LEVEL, Interval, Resampled, over_seeds, resample
from eval.statistics.weighted_metrics import Statistic, macro_f1, macro_map, micro_f1, micro_map

PREVALENCE = np.geomspace(0.4, 0.01, 19)
"""Share of the patches that have each label."""

BLOCK = 6
"""Patches in a block."""

COMMON = 1.5
"""Spread of a block's log odds of every label."""

MANY = 40_000
"""Blocks that stand for all the world."""

CUT = 0.2
"""A label is predicted above this score."""

SIZES = (20, 60, 200)
"""Blocks of a test set."""

SKILL, BETTER = 1.2, 1.3
"""How far a label that is there raises its score, for a usual model and for a better one."""

OWN, OWN_BY_BLOCK = 0.5, 0.25
"""Spread of a model's own errors, of single patches and of blocks."""

SEEDS, LUCK = 5, 0.05
"""Runs of a way to train, and the spread of their skill."""

COMPARED_SIZES = (20, 60)
"""Blocks of a test set on which models are compared: 5 seeds on 200 would take long."""

KINDS = ("pivotal", "percentile", "bias-corrected percentile", "normal")


class Coverage(NamedTuple):
    """Of one figure and one size of test set."""

    held: dict[str, float]
    """Kind of interval to its coverage: the share of test sets whose interval contains the true value."""
    bias: float
    """Mean of the measured figure minus the truth."""
    drawn_bias: float
    """Mean of the draws minus the measured figure, its mean."""


class Verdicts(NamedTuple):
    """Of one kind of difference and one size of test set, shares of the test sets."""

    held: float
    """Whose interval contains the true difference."""
    above: float
    """Whose interval lies above 0: a claim would be supported."""
    below: float
    """Whose interval lies below 0."""
    half: float
    """Mean half-width of the intervals."""


class Simulation:
    """Test sets of a world in which everything is known.

    Args:
        seed: of the world and its test sets.
    """

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        effects = COMMON * self.random.normal(size=20_000)
        self.odds = np.array([_log_odds(share, effects) for share in PREVALENCE])

    def test_set(self, blocks: int) -> tuple[dict[str, Statistic], np.ndarray]:
        """Figures of a test set, and the block of every patch (N,)."""
        block, truth, noise = self._patches(blocks)
        scores = SKILL * truth + noise + 0.3 * np.log(PREVALENCE)
        counted, chosen = np.any(truth, axis=0), scores > CUT
        figures = {
            "micro mAP": micro_map(truth, scores),
            "macro mAP": macro_map(truth, scores, counted),
            "micro F1": micro_f1(truth, chosen),
            "macro F1": macro_f1(truth, chosen, counted),
        }
        return figures, block

    def models(self, blocks: int, skills: Sequence[float]) -> tuple[list[dict[str, Statistic]], np.ndarray]:
        """Figures of several models on one test set, by skill, and the block of every patch (N,)."""
        block, truth, noise = self._patches(blocks)
        counted, figures = np.any(truth, axis=0), []
        for skill in skills:
            own = OWN * self.random.normal(size=truth.shape)
            own += OWN_BY_BLOCK * self.random.normal(size=(blocks, len(PREVALENCE)))[block]
            scores = skill * truth + noise + own + 0.3 * np.log(PREVALENCE)
            figures.append({"micro mAP": micro_map(truth, scores), "macro mAP": macro_map(truth, scores, counted)})
        return figures, block

    def lead(self) -> dict[str, float]:
        """By how much the better model is better, in the whole world."""
        (usual, better), block = self.models(MANY, (SKILL, BETTER))
        ones = np.ones(len(block))
        return {name: better[name](ones) - usual[name](ones) for name in usual}

    def _patches(self, blocks: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Blocks (N,), labels (N, L), and errors that all models share, (N, L)."""
        block, labels = np.repeat(np.arange(blocks), BLOCK), len(PREVALENCE)
        odds = self.odds + COMMON * self.random.normal(size=(blocks, labels))[block]
        truth = self.random.random(odds.shape) < expit(odds)
        noise = self.random.normal(size=odds.shape) + 0.5 * self.random.normal(size=(blocks, labels))[block]
        return block, truth, noise

    def truth(self) -> dict[str, float]:
        """Every figure of the whole world."""
        figures, block = self.test_set(MANY)
        return {name: figure(np.ones(len(block))) for name, figure in figures.items()}


def _log_odds(share: float, effects: np.ndarray) -> float:
    """With which a label is on `share` of all patches, when a block's effects add to them."""
    return root_scalar(lambda odds: expit(odds + effects).mean() - share, bracket=(-20, 20), method="brentq").root


def intervals_of(found: Resampled) -> dict[str, tuple[float, float]]:
    """Every kind of interval from the same draws.

    Raises:
        ValueError: for a test set of one block, which has no intervals.
    """
    draws = found.draws[np.isfinite(found.draws)]
    tails = np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    below = ((draws < found.value).mean() + (draws <= found.value).mean()) / 2
    shift = norm.ppf(np.clip(below, 0.5 / len(draws), 1 - 0.5 / len(draws)))
    half = norm.ppf(tails[1]) * draws.std(ddof=1)
    pivotal = found.interval()
    if pivotal.low is None or pivotal.high is None:
        raise ValueError(f"no interval over {found.blocks} block(s): give two at least")
    plain_low, plain_high = np.quantile(draws, tails).tolist()
    corrected_low, corrected_high = np.quantile(draws, norm.cdf(2 * shift + norm.ppf(tails))).tolist()
    return {
        "pivotal": (pivotal.low, pivotal.high),
        "percentile": (plain_low, plain_high),
        "bias-corrected percentile": (corrected_low, corrected_high),
        "normal": (found.value - half, found.value + half),
    }


def coverage(
    simulation: Simulation, truth: dict[str, float], blocks: int, samples: int, draws: int
) -> dict[str, Coverage]:
    """Coverage of each kind of interval, for each metric.

    Args:
        simulation: gives the test sets.
        truth: of every figure.
        blocks: of a test set.
        samples: how many test sets.
        draws: of each one's bootstrap.
    """
    held: dict[str, list[list[bool]]] = {name: [] for name in truth}
    biases: dict[str, list[tuple[float, float]]] = {name: [] for name in truth}
    for sample in tqdm(range(samples), desc=f"{blocks} blocks", leave=False, disable=None):
        figures, block = simulation.test_set(blocks)
        for name, figure in figures.items():
            found = resample(figure, block, sample, draws)
            ends = intervals_of(found)
            held[name].append([ends[kind][0] <= truth[name] <= ends[kind][1] for kind in KINDS])
            biases[name].append((found.value - truth[name], float(np.nanmean(found.draws)) - found.value))
    means: dict[str, dict[str, float]] = {
        name: dict(zip(KINDS, np.mean(held[name], axis=0).tolist(), strict=True)) for name in truth
    }
    return {name: Coverage(means[name], *np.mean(biases[name], axis=0).tolist()) for name in truth}


def comparisons(
    simulation: Simulation, lead: dict[str, float], blocks: int, samples: int, draws: int
) -> dict[tuple[str, str], Verdicts]:
    """Coverage and verdicts of intervals of differences, by the kind of difference and the metric.

    Args:
        simulation: gives the test sets.
        lead: of the better model.
        blocks: of a test set.
        samples: how many test sets.
        draws: of each one's bootstrap for two models; for models with several seeds, whose interval needs no
            percentiles, a fifth of that.
    """
    kinds = ("two equal models", "a better model", f"{SEEDS} seeds each, equal")
    found: dict[tuple[str, str], list[Interval]] = {(kind, figure): [] for kind in kinds for figure in lead}
    for sample in tqdm(range(samples), desc=f"differences, {blocks} blocks", leave=False, disable=None):
        models, block = simulation.models(blocks, (SKILL, SKILL, BETTER))
        lucky = SKILL + LUCK * simulation.random.normal(size=2 * SEEDS)
        several, block_of_several = simulation.models(blocks, lucky.tolist())
        for figure in lead:
            usual, equal, better = (resample(model[figure], block, sample, draws) for model in models)
            runs = [resample(model[figure], block_of_several, sample, max(draws // 5, 2)) for model in several]
            pairs = [one.minus(other) for one, other in zip(runs[:SEEDS], runs[SEEDS:], strict=True)]
            ends = (equal.minus(usual).interval(), better.minus(usual).interval(), over_seeds(pairs))
            for kind, interval in zip(kinds, ends, strict=True):
                found[kind, figure].append(interval)
    true = {(kind, figure): lead[figure] if kind == kinds[1] else 0.0 for kind, figure in found}
    return {key: _verdicts(intervals, true[key]) for key, intervals in found.items()}


def _verdicts(intervals: Sequence[Interval], true: float) -> Verdicts:
    _, low, high = np.array(intervals).T
    held = (low <= true) & (true <= high)
    return Verdicts(*(float(part.mean()) for part in (held, low > 0, high < 0, (high - low) / 2)))


def comparison_table(rows: Iterator[tuple[int, dict[tuple[str, str], Verdicts]]], draws: int) -> Iterator[str]:
    """Lines of a Markdown table."""
    yield ""
    yield f"Differences of models on the same patches, {draws} draws for two models and {max(draws // 5, 2)} for seeds:"
    yield "share of test sets, in per cent, whose interval contains the true difference, lies above 0 and below 0. Of"
    yield "equal models each of the last two should be 2.5: a claim wrongly called supported, or contradicted."
    yield "Half-widths are in points."
    yield ""
    yield "| difference | metric | blocks | coverage | above 0 | below 0 | half-width |"
    yield "|---|---|" + "--:|" * 5
    for blocks, found in rows:
        for (kind, figure), one in found.items():
            shares = " | ".join(f"{100 * share:.1f}" for share in (one.held, one.above, one.below, one.half))
            yield f"| {kind} | {figure} | {blocks} | {shares} |"


def table(rows: Iterator[tuple[int, dict[str, Coverage]]], samples: int, draws: int) -> Iterator[str]:
    """Lines of a Markdown table."""
    yield f"Coverage, in per cent of {samples} simulated test sets, of 95 % intervals from {draws} draws;"
    yield f"biases are in points. `python -m benchmarks.interval_coverage --samples {samples} --draws {draws}`"
    yield ""
    yield "| figure | blocks | " + " | ".join(KINDS) + " | bias of the figure | bias of the draws |"
    yield "|---|" + "--:|" * (len(KINDS) + 3)
    for blocks, found in rows:
        for name, one in found.items():
            shares = " | ".join(f"{100 * one.held[kind]:.0f}" for kind in KINDS)
            yield f"| {name} | {blocks} | {shares} | {100 * one.bias:+.1f} | {100 * one.drawn_bias:+.1f} |"
