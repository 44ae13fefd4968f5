"""The solver for large probes: scikit-learn's objective and optimum, its proof, its memory, and odd input."""

import functools
import itertools
import logging

import numpy as np
import pytest
import torch
from probe_data import make_data
from scipy.special import expit, logsumexp
from sklearn.linear_model import LogisticRegression

from classification_models import feature_rows, fitting, preconditioned_lbfgs, preconditioner
from classification_models.feature_rows import FeatureRows
from classification_models.logistic_loss import LogisticLoss
from classification_models.logistic_regression import LogisticRegressionModel
from classification_models.preconditioner import GramPreconditioner, block_edges, row_spacing
from classification_models.solvers import PRECONDITIONED
from utils.errors import ConfigError, DataError

CPU = torch.device("cpu")


def objective_of(x: np.ndarray, target: np.ndarray, coef: np.ndarray, intercept: np.ndarray, C: float) -> float:
    """The objective of one problem written out: target (N,) booleans, or (N, K) one-hot for a softmax."""
    logits = x.astype(np.float64) @ coef.T + intercept
    if target.ndim == 2:
        loss = logsumexp(logits, axis=1) - (logits * target).sum(axis=1)
    else:
        loss = np.logaddexp(0, np.where(target, -logits[:, 0], logits[:, 0]))
    return loss.mean() + (coef**2).sum() / (2 * C * len(x))


def hard_features(kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (N, D), multi-hot labels (N, 4) and classes (N,) of one kind of difficulty."""
    rows, width = (60, 90) if kind == "fewer rows than features" else (400, 30)
    x, multi_hot, y = make_data(rows, width)
    random = np.random.default_rng(1)
    if kind == "correlated":
        x = x @ (random.normal(size=(width, width)) * np.logspace(0, -2.5, width)[:, None]).astype(np.float32)
    elif kind == "scales":
        x *= np.logspace(-2, 2, width, dtype=np.float32)
    elif kind == "means":
        x += 1000 * random.normal(size=width).astype(np.float32)
    elif kind == "duplicates and constants":
        x[:, 1], x[:, 2], x[:, 3] = x[:, 0], 7.3, 0
    elif kind == "separable":
        multi_hot = (x[:, :4] > 0.5).astype(np.int16)
        y = x[:, :4].argmax(axis=1)
    return x, multi_hot, y


KINDS = ["correlated", "scales", "means", "duplicates and constants", "fewer rows than features", "separable"]


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_objective_agrees_with_scikit_learn_to_a_millionth(kind, multilabel, scale):
    x, multi_hot, y = hard_features(kind)
    labels = multi_hot if multilabel else y
    probe = LogisticRegressionModel(multilabel=multilabel, scale=scale, solver=PRECONDITIONED, C=2.0).fit(x, labels)
    # An intercept without penalty makes centring free, and scikit-learn needs it where means are large.
    centred = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    std = np.where(np.ptp(x, axis=0) > 0, centred.std(axis=0), 1)
    centred = centred / std if scale else centred
    features = centred if scale else x
    assert probe.report["converged"] and max(probe.report["gap"]) <= 1.1e-6
    for index, found in enumerate(probe.report["objective"]):
        target = multi_hot[:, index] > 0 if multilabel else y
        best = LogisticRegression(C=2.0, solver="newton-cholesky", tol=1e-12, max_iter=200).fit(centred, target)
        written = target if multilabel else y[:, None] == best.classes_
        expected = objective_of(centred, written, best.coef_, best.intercept_, 2.0)
        member = probe.model.estimators_[index] if multilabel else probe.model
        assert found == pytest.approx(objective_of(features, written, member.coef_, member.intercept_, 2.0), rel=1e-9)
        assert abs(found - expected) <= 1e-6 * expected
        assert (found - expected) / found <= probe.report["gap"][index] + 1e-9


def make_objective(x: np.ndarray, target: np.ndarray, **settings) -> LogisticLoss:
    given = {"C": 1.0, "multinomial": False, "scale": False} | settings
    return LogisticLoss(FeatureRows(x, CPU), target, **given)


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("multinomial", [False, True])
def test_value_and_gradient_are_those_written_out(multinomial, scale, monkeypatch):
    monkeypatch.setattr(feature_rows, "CPU_CHUNK_BYTES", 1000)
    x, multi_hot, y = make_data()
    x = x * np.float32([1, 30, 0.1, 1, 1, 1]) + 5
    target = y[:, None] == np.arange(4) if multinomial else multi_hot > 0
    objective = make_objective(x, target, multinomial=multinomial, scale=scale, C=0.3)
    random = np.random.default_rng(0)
    coef, intercept = random.normal(size=(4, 6)), random.normal(size=4)
    features = x.astype(np.float64)
    features = (features - features.mean(0)) / features.std(0) if scale else features
    point = objective.from_coefficients(coef, intercept)
    for given, back in zip((coef, intercept), objective.to_coefficients(point), strict=True):
        np.testing.assert_allclose(back, given, rtol=1e-12)
    at = objective.evaluate(point, torch.arange(objective.problems))
    if multinomial:
        expected = [objective_of(features, target, coef, intercept, 0.3)]
    else:
        expected = [objective_of(features, target[:, k], coef[[k]], intercept[[k]], 0.3) for k in range(4)]
    np.testing.assert_allclose(at.value, expected, rtol=1e-12)
    direction = torch.from_numpy(random.normal(size=point.shape))
    ends = [objective.evaluate(point + t * direction, torch.arange(objective.problems)).value for t in (1e-5, -1e-5)]
    slope = (at.gradient * direction).sum(dim=(1, 2))
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-5, rtol=1e-6)


@pytest.mark.parametrize("multinomial", [False, True])
def test_moving_and_the_line_agree_with_evaluating_there(multinomial):
    x, multi_hot, y = make_data()
    target = y[:, None] == np.arange(4) if multinomial else multi_hot > 0
    objective = make_objective(x, target, multinomial=multinomial)
    problems = torch.arange(objective.problems)
    random = torch.Generator().manual_seed(0)
    shape = objective.start().shape
    point, change = (torch.randn(shape, dtype=torch.float64, generator=random) for _ in range(2))
    start, there = objective.evaluate(point, problems), objective.evaluate(point + change, problems)
    moved = objective.move(start, point, change, problems)
    for name, tolerance in (("value", 1e-6), ("gradient", 1e-6), ("logits", 1e-5), ("intercept_curvature", 1e-6)):
        np.testing.assert_allclose(getattr(moved, name), getattr(there, name), atol=tolerance)
    line = (start.logits, there.logits - start.logits, point, change, problems)
    slope, curvature = objective.slopes_along(torch.ones(len(problems), dtype=torch.float64), *line)
    np.testing.assert_allclose(slope, (there.gradient * change).sum(dim=(1, 2)), rtol=1e-9)
    near = objective.slopes_along(torch.full_like(slope, 1 + 1e-6), *line)[0]
    np.testing.assert_allclose(curvature, (near - slope) / 1e-6, rtol=1e-4)


def test_rounding_of_a_move_is_as_small_as_the_move():
    """What lets float32 products end at a float64 optimum."""
    x, multi_hot, _ = hard_features("correlated")
    objective = make_objective(x, multi_hot > 0)
    problems = torch.arange(4)
    point = objective.start() + 3
    change = 1e-6 * torch.ones_like(point)
    moved = objective.move(objective.evaluate(point, problems), point, change, problems)
    exact = objective.evaluate(point + change, problems)
    assert objective.features.stored == torch.float32
    assert float((moved.gradient - exact.gradient).abs().max()) < 1e-11


def test_the_gap_bounds_the_distance_to_the_optimum_wherever_it_is_taken():
    x, multi_hot, _ = hard_features("scales")
    target = multi_hot[:, :1] > 0
    objective = make_objective(x, target)
    best = LogisticRegression(solver="newton-cholesky", tol=1e-12).fit(x.astype(np.float64), target[:, 0])
    smallest = objective_of(x, target[:, 0], best.coef_, best.intercept_, 1.0)
    optimum = objective.from_coefficients(best.coef_, best.intercept_)
    random = torch.Generator().manual_seed(0)
    for size in (1e-6, 1e-4, 1e-2, 0.1):
        noise = torch.randn(optimum.shape, dtype=torch.float64, generator=random)
        at = objective.evaluate(optimum + size * noise, torch.arange(1))
        excess = float(at.value[0] - smallest)
        assert -1e-12 < excess <= float(objective.relative_gap(at)[0] * at.value[0])


def test_converged_labels_drop_out(monkeypatch):
    x, multi_hot, _ = hard_features("correlated")
    multi_hot[:, 0] = np.arange(len(x)) < 4  # rare, and so takes longer
    counts = []
    move = LogisticLoss.move

    def counted(self, at, point, change, problems):
        counts.append(len(problems))
        return move(self, at, point, change, problems)

    monkeypatch.setattr(LogisticLoss, "move", counted)
    n_iter = LogisticRegressionModel(multilabel=True, solver=PRECONDITIONED).fit(x, multi_hot).report["n_iter"]
    assert counts[0] == 4 and counts[-1] < 4 and len(set(n_iter)) > 1
    assert len(counts) < sum(n_iter)


def test_preconditioning_saves_iterations_and_blocks_lose_only_some(monkeypatch):
    x, multi_hot, _ = hard_features("correlated")
    x = x * np.logspace(-1, 1, x.shape[1], dtype=np.float32)

    def fitted(limit):
        limited = functools.partial(GramPreconditioner, limit=limit)
        monkeypatch.setattr(preconditioned_lbfgs, "GramPreconditioner", limited)
        report = LogisticRegressionModel(multilabel=True, solver=PRECONDITIONED).fit(x, multi_hot).report
        assert report["converged"]
        return max(report["n_iter"]), report["objective"]

    whole, blocks, diagonal = fitted(30), fitted(10), fitted(1)
    assert whole[0] < blocks[0] < diagonal[0] and 5 * whole[0] < diagonal[0]
    np.testing.assert_allclose(blocks[1], whole[1], rtol=1e-6)


def test_a_part_of_the_rows_preconditions_many_to_the_same_objective(monkeypatch):
    x, multi_hot, _ = make_data(1001, 30)
    x = x @ (np.random.default_rng(1).normal(size=(30, 30)) * np.logspace(0, -2.5, 30)[:, None]).astype(np.float32)
    whole = LogisticRegressionModel(multilabel=True, solver=PRECONDITIONED).fit(x, multi_hot).report
    taken, add = [], preconditioner._add_lower_products
    monkeypatch.setattr(preconditioner, "GRAM_MAX_WORK", 1)
    monkeypatch.setattr(preconditioner, "GRAM_CHUNK_BYTES", 4 * 30 * 7)
    monkeypatch.setattr(
        preconditioner, "_add_lower_products", lambda gram, chunk: (taken.append(len(chunk)), add(gram, chunk))
    )
    part = LogisticRegressionModel(multilabel=True, solver=PRECONDITIONED).fit(x, multi_hot).report
    assert sum(taken) == 126 and max(taken) == 7  # one row of eight: at least four a feature
    assert part["converged"] and max(part["n_iter"]) <= 2 * max(whole["n_iter"])
    np.testing.assert_allclose(part["objective"], whole["objective"], rtol=2e-6)


def test_rows_are_left_out_only_where_their_products_take_minutes():
    assert row_spacing(269_694, [15_120]) == 4
    assert row_spacing(269_694, [1512]) == row_spacing(26_969, [15_120]) == row_spacing(119, [15_120]) == 1
    assert row_spacing(269_694, [15_000] * 2) == 4


def test_the_preconditioner_is_the_hessian_where_every_probability_has_one_variance(monkeypatch):
    monkeypatch.setattr(preconditioner, "STRIP", 4)
    x, multi_hot, _ = hard_features("duplicates and constants")
    multi_hot[:, 0] = np.arange(len(x)) % 2
    objective = make_objective(x, multi_hot[:, :1] > 0)
    at = GramPreconditioner(objective)
    gradient = torch.randn(1, 1, 31, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    centred = (x - x.mean(axis=0, dtype=np.float64)) / objective.features.std.numpy()
    hessian = centred.T @ centred / (4 * len(x)) + np.diag(objective.penalty.numpy())
    newton = at.unwhiten(at.whiten(gradient))[0, 0].numpy()
    np.testing.assert_allclose(newton[:-1], np.linalg.solve(hessian, gradient[0, 0, :-1].numpy()), rtol=1e-3, atol=1e-3)
    assert newton[-1] == pytest.approx(4 * float(gradient[0, 0, -1]))


def test_a_gram_matrix_that_rounding_made_indefinite_is_factored():
    matrix = torch.ones(5, 5, dtype=torch.float64)
    matrix[4, 4] -= 1e-6
    factor = preconditioner._cholesky(matrix.clone())
    np.testing.assert_allclose(factor @ factor.T, matrix, atol=1e-4)


def test_blocks_cover_all_columns_evenly():
    assert block_edges(15_120) == [(0, 15_120)]
    edges = block_edges(50_001, 20_000)
    assert edges[0][0] == 0 and edges[-1][1] == 50_001 and len(edges) == 3
    assert all(a[1] == b[0] for a, b in itertools.pairwise(edges))
    assert max(stop - start for start, stop in edges) - min(stop - start for start, stop in edges) <= 1


# --- labels, files and reports ---------------------------------------------------------------------------------------


def test_two_classes_odd_class_numbers_and_double_precision():
    x, multi_hot, y = make_data()
    two = LogisticRegressionModel(solver=PRECONDITIONED, scale=True).fit(x.astype(np.float64), multi_hot[:, 0] + 4)
    assert set(two.predict(x)) == {4, 5} and two.model.coef_.shape == (1, 6) and two.report["converged"]
    many = LogisticRegressionModel(solver=PRECONDITIONED).fit(x, 3 * y + 2)
    np.testing.assert_array_equal(many.predict(x), many.model.predict(x))
    assert (many.predict(x) == 3 * y + 2).mean() > 0.5 and abs(many.model.intercept_.sum()) < 1e-5


def test_constant_labels_and_nothing_but_constant_labels():
    x, y, _ = make_data()
    y[:, 1], y[:, 3] = 0, 1
    probe = LogisticRegressionModel(multilabel=True, solver=PRECONDITIONED).fit(x, y)
    assert probe.report["constant_labels"] == [1, 3] and probe.report["converged"]
    assert (probe.predict_proba(x)[:, [1, 3]] == [0, 1]).all() and len(probe.report["objective"]) == 4
    alone = LogisticRegressionModel(multilabel=True).fit(x, y[:, :1])
    np.testing.assert_allclose(probe.predict_proba(x)[:, 0], alone.predict_proba(x)[:, 0], atol=1e-3)
    ones = LogisticRegressionModel(multilabel=True, solver=PRECONDITIONED).fit(x, np.ones_like(y))
    assert (ones.predict(x) == 1).all() and ones.report["converged"]


def test_too_few_iterations_are_reported(caplog):
    x, _, y = hard_features("correlated")
    with caplog.at_level(logging.WARNING):
        probe = LogisticRegressionModel(solver=PRECONDITIONED, max_iter=2).fit(x, y)
    assert probe.report["n_iter"] == [2] and not probe.report["converged"] and probe.report["not_converged"] == [0]
    assert "preconditioned-lbfgs did not converge: up to 2 iterations of 2" in caplog.text


def test_a_smaller_tolerance_is_reached_in_float32_data():
    x, _, y = hard_features("correlated")
    report = LogisticRegressionModel(solver=PRECONDITIONED, tol=1e-11).fit(x, y).report
    assert report["converged"] and report["gap"][0] <= 1.1e-11


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite(value):
    x, _, y = make_data()
    x[3, 2] = value
    with pytest.raises(DataError, match="NaN or infinity"):
        LogisticRegressionModel(solver=PRECONDITIONED).fit(x, y)


def test_settings_of_torch_are_left_as_they_were():
    torch.set_float32_matmul_precision("high")
    try:
        LogisticRegressionModel(solver=PRECONDITIONED).fit(*make_data()[::2])
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("device", ["mps", "gpu", "cuda:x", ""])
def test_devices_that_there_are_not(device):
    with pytest.raises(ConfigError, match="device must be"):
        LogisticRegressionModel(device=device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("share", [0.0, 0.9])
@pytest.mark.parametrize("multilabel", [False, True])
def test_cuda_finds_the_same_optimum(monkeypatch, multilabel, share):
    monkeypatch.setattr(fitting, "RESIDENT_SHARE", share)
    x, multi_hot, y = hard_features("correlated")
    labels = multi_hot if multilabel else y
    on_gpu = LogisticRegressionModel(multilabel=multilabel, device="cuda").fit(x, labels)
    on_cpu = LogisticRegressionModel(multilabel=multilabel, device="cpu").fit(x, labels)
    assert on_gpu.report["device"].startswith("cuda") and on_gpu.report["solver"] == PRECONDITIONED
    np.testing.assert_allclose(on_gpu.report["objective"], on_cpu.report["objective"], rtol=1e-6)


def test_probabilities_are_those_of_the_report():
    x, multi_hot, _ = make_data()
    probe = LogisticRegressionModel(multilabel=True, solver=PRECONDITIONED).fit(x, multi_hot)
    head = probe.model.estimators_[2]
    np.testing.assert_allclose(probe.predict_proba(x)[:, 2], expit(x @ head.coef_[0] + head.intercept_[0]), atol=1e-6)
