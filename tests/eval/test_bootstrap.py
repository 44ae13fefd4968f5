"""Metrics under weights against hand values and scikit-learn, and the bootstrap on cases whose answer is known."""

import numpy as np
import pytest
from sklearn import metrics as sk

from benchmarks.coverage_simulation import Simulation, comparisons, coverage
from classification_models.scores import score_multiclass, score_multilabel
from eval.statistics.bootstrap import (
    SHARE,
    Resampled,
    block_bootstrap,
    over_seeds,
    paired_difference,
    resample,
)
from eval.statistics.weighted_metrics import macro_map, mean_of, micro_map, statistics_of


def case(seed: int = 0, patches: int = 120, labels: int = 5, digits: int = 2) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = (random.random((patches, labels)) < 0.3).astype(np.int8)
    return truth, np.round(random.random((patches, labels)) * 0.7 + 0.3 * truth, digits)  # rounded, so there are ties


def test_average_precision_by_hand() -> None:
    truth, scores = np.array([[1], [0], [1], [1]]), np.array([[0.9], [0.8], [0.4], [0.4]])
    statistic = micro_map(truth, scores)
    # One threshold at 0.9 (1 of 1), one for the two tied at 0.4 (3 of 4).
    assert statistic(np.ones(4)) == pytest.approx(1 / 3 * 1 + 2 / 3 * 3 / 4)
    # The first patch three times, the second and the fourth not at all: 3 of 3, then 4 of 4.
    assert statistic(np.array([3, 0, 1, 0])) == pytest.approx(1)
    # Without the first: the negative leads, then 2 of 3.
    assert statistic(np.array([0, 1, 1, 1])) == pytest.approx(2 / 3)
    assert np.isnan(statistic(np.array([0, 1, 0, 0])))


@pytest.mark.parametrize("digits", [1, 2, 12])
def test_weights_are_repetitions(digits: int) -> None:
    """Every figure under weights is the one of the same patches written out, whatever the ties."""
    truth, scores = case(digits=digits)
    names = list("abcde")
    statistics = statistics_of(score_multilabel(truth, scores > 0.5, scores, names, truth), truth, scores)
    for draw in range(3):
        rows = np.random.default_rng(draw).integers(len(truth), size=len(truth))
        weights = np.bincount(rows, minlength=len(truth))
        written_out = score_multilabel(truth[rows], scores[rows] > 0.5, scores[rows], names, truth)
        for name, statistic in statistics.items():
            assert statistic(weights) == pytest.approx(written_out[name]), name
    assert statistics["map_micro"](np.ones(len(truth))) == pytest.approx(
        sk.average_precision_score(truth, scores, average="micro")
    )


def test_weights_are_repetitions_for_classes() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(3, size=90)  # class 3 is never there
    scores = np.round(random.dirichlet(np.ones(4), 90) + 0.2 * np.eye(4)[labels], 2)
    metrics = score_multiclass(labels, scores.argmax(axis=1), scores, list("abcd"), labels)
    statistics = statistics_of(metrics, labels, scores)
    assert set(statistics) == {"map_micro", "map_macro", "f1_micro", "f1_macro", "accuracy"}
    rows = random.integers(90, size=90)
    written_out = score_multiclass(labels[rows], scores[rows].argmax(axis=1), scores[rows], list("abcd"), labels)
    for name, statistic in statistics.items():
        assert statistic(np.ones(90)) == pytest.approx(metrics[name]), name
        assert statistic(np.bincount(rows, minlength=90)) == pytest.approx(written_out[name]), name
    assert statistics["accuracy"](np.ones(90)) == pytest.approx(sk.accuracy_score(labels, scores.argmax(axis=1)))


def test_macro_figures_leave_out_what_cannot_be_scored() -> None:
    truth, scores = case()
    counted = np.array([True, False, True, True, True])
    statistic = macro_map(truth, scores, counted)
    assert statistic(np.ones(len(truth))) == pytest.approx(
        sk.average_precision_score(truth[:, counted], scores[:, counted])
    )
    without_a = (truth[:, 0] == 0).astype(float)  # a resampled test set in which the first label never occurs
    rest = [2, 3, 4]
    kept = without_a > 0
    assert statistic(without_a) == pytest.approx(
        sk.average_precision_score(truth[kept][:, rest], scores[kept][:, rest])
    )


def test_a_weight_is_how_often_a_row_counts() -> None:
    values = np.array([1.0, 2.0, 4.0])
    weights = np.array([2, 0, 1])
    assert mean_of(values)(weights) == pytest.approx(np.repeat(values, weights).mean()) == pytest.approx(2.0)


def test_the_interval_of_a_normal_mean_is_the_known_one() -> None:
    values = np.random.default_rng(0).normal(size=2000)
    found = block_bootstrap(mean_of(values), np.arange(2000), seed=0, draws=2000)
    half = 1.96 * values.std() / np.sqrt(2000)
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


@pytest.mark.runs
def test_intervals_cover_as_often_as_they_say() -> None:
    """The true mean of 0 lies within, in 95 of 100 samples: more than 88 and less than 100 of them in 200."""
    random = np.random.default_rng(1)
    covered = 0
    for sample in range(200):
        blocks = np.repeat(np.arange(40), 5)
        values = np.repeat(random.normal(size=40), 5) + random.normal(size=200)  # blocks have something in common
        found = block_bootstrap(mean_of(values), blocks, seed=sample, draws=300)
        covered += found.low <= 0 <= found.high
    assert 176 <= covered <= 199


def test_identical_neighbours_widen_the_interval_as_they_must() -> None:
    """Each of 100 patches nine times: taken as independent they seem to say three times as much as they do."""
    values = np.repeat(np.random.default_rng(0).normal(size=100), 9)

    def width(blocks: np.ndarray) -> float:
        found = block_bootstrap(mean_of(values), blocks, seed=0, draws=2000)
        return found.high - found.low

    assert width(np.repeat(np.arange(100), 9)) / width(np.arange(900)) == pytest.approx(3, rel=0.1)


def test_the_seed_decides_and_nothing_else() -> None:
    truth, scores = case()
    blocks = np.arange(len(truth)) // 4
    first, again, other = (resample(micro_map(truth, scores), blocks, seed, 50) for seed in (0, 0, 1))
    assert np.array_equal(first.draws, again.draws) and not np.array_equal(first.draws, other.draws)
    renamed = resample(micro_map(truth, scores), np.char.add("block ", blocks.astype(str)), 0, 50)
    assert renamed.value == first.value and renamed.interval().low != renamed.interval().high


def test_a_paired_difference_sees_what_two_intervals_do_not() -> None:
    random = np.random.default_rng(0)
    common = random.normal(size=300)
    better, worse = mean_of(common + 0.1), mean_of(common + 0.01 * random.normal(size=300))
    blocks = np.arange(300)
    apart = [block_bootstrap(statistic, blocks, seed=0, draws=300) for statistic in (better, worse)]
    assert apart[0].low < apart[1].high, "each on its own, the intervals overlap"
    difference = paired_difference(better, worse, blocks, seed=0, draws=300)
    assert difference.low > 0.09 and difference.high < 0.11
    nothing = paired_difference(worse, worse, blocks, seed=0, draws=300)
    assert nothing.low <= 0 <= nothing.high
    one, two = resample(better, blocks, 0, 50), resample(worse, blocks, 1, 50)
    with pytest.raises(ValueError, match="same patches"):
        one.minus(two)


def test_an_interval_is_mirrored_at_the_figure() -> None:
    """Draws that lie above the figure say that it lies above the truth."""
    draws = np.linspace(0.7, 0.9, 1001)
    found = Resampled(0.75, draws, 30, "k")
    assert found.interval() == pytest.approx((0.75, 1.5 - 0.895, 1.5 - 0.705))
    assert over_seeds([found, found]) == pytest.approx(
        (0.75, 0.7 - 1.96 * draws.std(), 0.7 + 1.96 * draws.std()), abs=1e-3
    )
    beyond = found._replace(value=0.98, limits=SHARE)
    assert beyond.interval() == over_seeds([beyond, beyond]) == (0.98, 1.0, 1.0)
    assert beyond.minus(beyond._replace(value=0.5)).interval() == pytest.approx((0.48, 0.96, 0.96)), "not a share"
    assert beyond._replace(blocks=1).interval() == (0.98, None, None)


@pytest.mark.runs
def test_rare_labels_need_the_mirrored_interval() -> None:
    """Macro mAP of few patches is too high, of resampled ones more so: plain percentiles then miss the truth."""
    simulation = Simulation()
    found = coverage(simulation, simulation.truth(), blocks=60, samples=40, draws=100)
    assert found["macro mAP"].bias > 0.01 and found["macro mAP"].drawn_bias > 0.01
    assert found["macro mAP"].held["pivotal"] > 0.7 > 0.5 > found["macro mAP"].held["percentile"]
    assert found["micro mAP"].held["pivotal"] > 0.8
    assert abs(found["micro mAP"].drawn_bias) < 0.005


def test_verdicts_on_simulated_differences() -> None:
    """Equal models seldom differ significantly, a better one more often, and every interval mostly holds the truth."""
    simulation = Simulation(1)
    found = comparisons(simulation, {"micro mAP": 0.029}, blocks=20, samples=16, draws=40)
    equal, better, seeds = (found[kind, "micro mAP"] for kind in dict.fromkeys(kind for kind, _ in found))
    for one in (equal, seeds):
        assert one.above + one.below <= 0.25 and one.held >= 0.75
    assert better.above > equal.above and better.below <= 0.1
    assert seeds.half > 0 and better.held > 0.6


def test_a_single_block_has_no_interval() -> None:
    assert block_bootstrap(mean_of(np.arange(5)), np.zeros(5), seed=0, draws=10) == (2.0, None, None)


def test_seeds_by_hand() -> None:
    quiet = [Resampled(value, np.full(100, value), 30, "k") for value in (1.0, 2.0, 3.0)]
    student = 4.302653 / 3**0.5
    assert over_seeds(quiet) == pytest.approx((2.0, 2 - student, 2 + student))  # patches add no doubt
    spread = np.random.default_rng(0).normal(size=5000)
    alike = [Resampled(0.0, spread, 30, "k") for _ in range(3)]
    assert over_seeds(alike).high == pytest.approx(1.96 * spread.std(), rel=0.01)  # seeds add none
    assert over_seeds(alike[:1]) == (0.0, None, None)
    with pytest.raises(ValueError, match="same patches"):
        over_seeds([quiet[0], quiet[1]._replace(key="other")])
