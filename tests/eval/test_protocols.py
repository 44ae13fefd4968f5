"""Protocols: kNN against scikit-learn's classifier, Landsat-Bench's probe as it is, the strong probe's choice."""

import numpy as np
import pytest
import torch
from conftest import SAMPLE
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier

from classification_models.calibration import expected_calibration_error
from datasets.bigearthnet import BigEarthNetDatasetLS
from datasets.loader import BatchLoader
from eval.probing import knn, linear_probe
from eval.probing.pca_features import fit_pca, pca_vectors
from eval.probing.protocols import (
    C_GRID,
    PROTOCOLS,
    QUICK,
    calibrated_probe,
    knn5,
    landsat_bench_probe,
    run_protocol,
    strong_probe,
)
from eval.probing.representation import Vectors
from studies.comparison.published import NOTEBOOK, PAPER_SCHEDULE, PUBLISHED

NAMES = list("abcd")


def vectors(count: int, seed: int, multilabel: bool, width: int = 6, noise: float = 1.0) -> Vectors:
    """Patches whose first numbers say something about their labels."""
    random = np.random.default_rng(seed)
    if multilabel:
        y = (random.random((count, 4)) < [0.5, 0.3, 0.2, 0.4]).astype(np.int8)
        signal = y
    else:
        y = random.integers(4, size=count)
        signal = np.eye(4)[y]
    x = noise * random.normal(size=(count, width)).astype(np.float32)
    x[:, :4] += signal
    return Vectors(x, y, [f"patch_{seed}_{index}" for index in range(count)])


@pytest.fixture(params=[True, False], ids=["labels", "classes"])
def splits(request) -> tuple[Vectors, Vectors, Vectors]:
    return tuple(vectors(count, seed, request.param) for seed, count in enumerate((150, 60, 80)))


def test_knn_is_scikit_learns(splits, monkeypatch) -> None:
    train, val, test = splits
    monkeypatch.setattr(knn, "CHUNK", 32)  # several chunks
    found = knn5(train, val, test, NAMES)
    reference = KNeighborsClassifier(5, algorithm="brute").fit(train.x, train.y)
    expected = reference.predict_proba(test.x)
    if test.y.ndim == 2:
        expected = np.stack([column[:, 1] for column in expected], axis=1)
        micro = average_precision_score(test.y, expected, average="micro")
        assert found.metrics["map_micro"] == pytest.approx(micro)
        exact = (reference.predict(test.x) == test.y).all(axis=1).mean()
        assert found.metrics["exact_match"] == pytest.approx(exact)
    else:
        assert found.metrics["accuracy"] == pytest.approx(reference.score(test.x, test.y))
    np.testing.assert_allclose(found.scores, expected)
    assert found.headline == ("map_micro" if test.y.ndim == 2 else "accuracy")


def test_knn_with_fewer_patches_than_neighbours() -> None:
    train = vectors(3, 0, multilabel=False)
    found = knn5(train, None, vectors(5, 1, multilabel=False), NAMES)
    np.testing.assert_allclose(found.scores, np.tile(np.eye(4)[train.y].mean(axis=0), (5, 1)))
    assert found.details["neighbours"] == 3


def test_scaling_makes_units_matter_no_more() -> None:
    train, test = (vectors(50, seed, multilabel=True) for seed in (0, 1))
    units = np.array([1e4, 1, 1e-3, 5, 1, 1], np.float32)
    plain = knn5(train, None, test, NAMES, scale=True).scores
    scaled = knn5(train._replace(x=train.x * units), None, test._replace(x=test.x * units), NAMES, scale=True).scores
    np.testing.assert_allclose(plain, scaled)


@pytest.mark.filterwarnings("ignore")
def test_landsat_benchs_probe_is_scikit_learns_sag(splits) -> None:
    train, val, test = splits
    found = landsat_bench_probe(train, val, test, NAMES, seed=3)
    settings = {"C": 1.0, "solver": "sag", "max_iter": 1000, "random_state": 3}
    if train.y.ndim == 2:
        fitted = [LogisticRegression(**settings).fit(train.x, column) for column in train.y.T]
        expected = np.stack([one.predict_proba(test.x)[:, 1] for one in fitted], axis=1)
    else:
        expected = LogisticRegression(**settings).fit(train.x, train.y).predict_proba(test.x)
    np.testing.assert_allclose(found.scores, expected, atol=1e-5)
    assert found.details["solver"] == "sag" and found.details["scale"] is False and found.details["C"] == 1.0
    assert found.details["iterations"] <= 1000


def test_the_strong_probe_chooses_on_validation(splits) -> None:
    train, val, test = splits
    found = strong_probe(train, val, test, NAMES)
    details = found.details
    assert details["converged"] and details["chosen_on"] == "60 validation patches"
    assert details["C"] == C_GRID[int(np.argmax(details["grid_scores"]))]
    other = val._replace(y=np.roll(val.y, 7, axis=0))  # labels of other patches: another choice
    assert strong_probe(train, other, test, NAMES).details["grid_scores"] != details["grid_scores"]


def test_the_strong_probe_standardises_without_a_copy(splits, monkeypatch) -> None:
    train, val, test = (part._replace(x=part.x * np.float32([1, 50, 1, 0.01, 1, 7]) + 3) for part in splits)
    seen = []
    real = linear_probe.LogisticRegressionModel.fit
    monkeypatch.setattr(
        linear_probe.LogisticRegressionModel, "fit", lambda self, x, y: seen.append(x is train.x) or real(self, x, y)
    )
    found = strong_probe(train, val, test, NAMES)
    assert len(seen) == len(C_GRID) + 1 and all(seen)
    mean, std = train.x.mean(axis=0, dtype=float), train.x.std(axis=0, dtype=float)
    plain = linear_probe.LogisticRegressionModel(multilabel=train.y.ndim == 2, C=found.details["C"])
    plain = real(plain, (train.x - mean) / std, train.y)
    np.testing.assert_allclose(found.scores, plain.predict_proba((test.x - mean) / std), rtol=1e-5, atol=1e-6)


def test_the_strong_probe_never_looks_at_the_test_labels(splits) -> None:
    train, val, test = splits
    found = strong_probe(train, val, test, NAMES)
    blind = strong_probe(train, val, test._replace(y=np.roll(test.y, 1, axis=0)), NAMES)
    assert np.array_equal(found.scores, blind.scores) and found.details["C"] == blind.details["C"]


def test_the_calibrated_probe_is_the_strong_one_and_a_temperature(splits) -> None:
    train, val, test = splits
    found = calibrated_probe(train, val, test, NAMES)
    strong = strong_probe(train, val, test, NAMES)
    details = found.details
    assert details["C"] == strong.details["C"]
    np.testing.assert_allclose(found.scores, strong.scores, atol=1e-3)
    assert expected_calibration_error(found.scores, test.y) == pytest.approx(details["calibration_error"])
    assert details["calibration_error_scaled"] != details["calibration_error"]
    assert 0.05 < details["temperature"] < 20 and 0 <= details["calibration_error"] <= 1
    blind = calibrated_probe(train, val, test._replace(y=np.roll(test.y, 1, axis=0)), NAMES)
    assert blind.details["temperature"] == details["temperature"], "the test labels choose nothing"


def test_a_short_search_ends_where_scores_have_fallen(monkeypatch) -> None:
    """Noise in many numbers: the larger C is, the more of it is learned."""
    train, val, test = (vectors(count, seed, True, width=60, noise=3.0) for seed, count in enumerate((150, 60, 80)))
    whole = calibrated_probe(train, val, test, NAMES).details
    assert whole["grid"] == list(QUICK.grid), "few patches decide nothing"
    monkeypatch.setattr(linear_probe, "DECISIVE", 50)
    short = calibrated_probe(train, val, test, NAMES).details
    assert len(short["grid"]) < len(QUICK.grid) and short["C"] == whole["C"]
    assert short["grid_scores"][-1] < max(short["grid_scores"]) - QUICK.margin


def test_without_validation_areas_stay_whole(monkeypatch) -> None:
    """Neighbours that are nearly copies of each other would reward a probe for overfitting to them."""
    train, test = vectors(120, 0, multilabel=False), vectors(40, 1, multilabel=False)
    ids = [f"S2A_MSIL2A_20170613T101031_{10 * (index // 4)}_{index % 4}" for index in range(120)]
    seen = []
    real = linear_probe.area_folds
    monkeypatch.setattr(linear_probe, "area_folds", lambda *given: seen.append(real(*given)) or seen[-1])
    found = strong_probe(train._replace(ids=ids), None, test, NAMES)
    assert "5 folds" in found.details["chosen_on"]
    folds = seen[0].reshape(30, 4)
    assert (folds == folds[:, :1]).all() and len(np.unique(folds)) == 5
    assert np.bincount(seen[0]).min() >= 20


def test_too_few_patches_to_choose() -> None:
    train, test = vectors(6, 0, multilabel=True), vectors(20, 1, multilabel=True)
    found = strong_probe(train, None, test, NAMES)
    assert found.details["C"] == 1.0 and "too few" in found.details["chosen_on"]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_beats_chance_and_serves_the_bootstrap(name: str, splits) -> None:
    train, val, test = splits
    found = PROTOCOLS[name](train, val, test, NAMES, seed=0)
    statistics = found.statistics()
    assert statistics[found.headline](np.ones(80)) == pytest.approx(found.metrics[found.headline])
    shuffled = train._replace(y=np.random.default_rng(0).permutation(train.y))
    chance = PROTOCOLS[name](shuffled, val, test, NAMES).metrics[found.headline]
    assert found.metrics[found.headline] > chance + 0.05
    assert found.details["train_patches"] == 150 and found.details["features"] == 6


def test_a_class_without_a_training_patch_gets_no_probability() -> None:
    train, test = vectors(60, 0, multilabel=False), vectors(30, 1, multilabel=False)
    train = train.rows(train.y != 2)
    for name, protocol in PROTOCOLS.items():
        found = protocol(train, None, test, NAMES)
        assert found.scores.shape == (30, 4) and not found.scores[:, 2].any(), name
        assert found.metrics["left_out"]["constant_in_train"] == ["c"]


def loader_of(split: str) -> BatchLoader:
    dataset = BigEarthNetDatasetLS(SAMPLE, f"bigearthnet-{split}.csv")
    dataset.hold_in_memory()
    return BatchLoader(dataset, 16, 0, torch.device("cpu"))


def test_principal_components_of_patches() -> None:
    """All patches at once: scikit-learn's components; the test split is only projected."""
    train, test = loader_of("test"), loader_of("val")  # 64 patches and 48
    pca = fit_pca(train, width=10)
    images = np.concatenate([batch.images.flatten(1).numpy() for batch in train.batches()])
    reference = PCA(10, svd_solver="full").fit(images)
    found = pca_vectors(pca, test)
    others = np.concatenate([batch.images.flatten(1).numpy() for batch in test.batches()])
    assert found.ids == test.dataset.ids and found.x.shape == (48, 10) and found.x.dtype == np.float32
    np.testing.assert_allclose(np.abs(found.x), np.abs(reference.transform(others)), atol=2e-3)
    assert fit_pca(train, width=1000).n_components_ == 63, "no more than the patches allow"


def test_principal_components_of_a_part_of_the_patches(monkeypatch) -> None:
    """Of a large split a part is looked at, spread over all of it: nearly as much variance of the rest is kept."""
    train = loader_of("train")
    images = np.concatenate([batch.images.flatten(1).numpy() for batch in train.batches()])
    whole = fit_pca(train, width=4)
    monkeypatch.setattr("eval.probing.pca_features.FIT_PATCHES", 96)
    part = fit_pca(train, width=4)
    np.testing.assert_allclose(part.mean, images[np.linspace(0, 191, 96).astype(int)].mean(axis=0), atol=1e-4)
    lost = [np.square(images - pca.mean - pca.transform(images) @ pca.directions).mean() for pca in (whole, part)]
    assert lost[0] < lost[1] < 1.5 * lost[0]
    assert np.array_equal(part.directions, fit_pca(train, width=4).directions)


def test_published_numbers_are_plausible_and_complete() -> None:
    assert len(PUBLISHED) == len({row.model for row in PUBLISHED}) == 19
    for row in PUBLISHED:
        figures = [figure for figure in row[2:6] if figure is not None]
        assert figures and all(50 < figure < 92 for figure in figures) and "arXiv" in row.source
    best = {name: max(row[column] or 0 for row in PUBLISHED) for name, column in (("eurosat", 3), ("bigearthnet", 5))}
    assert best == {"eurosat": 91.9, "bigearthnet": 77.5}
    (mean_of_tokens,) = (row for row in PUBLISHED if row.source == NOTEBOOK)
    assert (mean_of_tokens.eurosat_probe, mean_of_tokens.bigearthnet_probe) == (74.30, 73.10)
    assert PAPER_SCHEDULE.steps == 2107 * 500


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_a_constant_representation_scores_the_class_frequencies(splits, name) -> None:
    train, val, test = (split._replace(x=np.zeros((len(split.x), 1), np.float32)) for split in splits)
    found = run_protocol(name, train, val, test, NAMES)
    shares = train.y.mean(axis=0) if train.y.ndim == 2 else np.bincount(train.y) / len(train.y)
    np.testing.assert_allclose(found.scores, np.tile(shares, (len(test.x), 1)))
    informed = run_protocol(name, *splits, NAMES)
    np.testing.assert_array_equal(informed.scores, PROTOCOLS[name](*splits, NAMES).scores)
