"""Few rows of many features: `auto` fits in the space that the rows span, and finds the optimum of all features."""

import time

import numpy as np
import pytest
import torch
from probe_data import make_data
from sklearn.linear_model import LogisticRegression

from benchmarks.probe_data import probe_problem
from classification_models.feature_rows import FeatureRows
from classification_models.fitting import plan_fit
from classification_models.logistic_regression import LogisticRegressionModel
from classification_models.row_space import RowSpace
from classification_models.solvers import Size
from utils.errors import DataError

ROWS, WIDTH = 24, 60


def few_rows(kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (24, 60) float32, labels (24, 4) and classes (24,) of one kind of difficulty."""
    x, multi_hot, y = make_data(ROWS, WIDTH)
    if kind == "scales and means":
        x = x * np.logspace(-3, 3, WIDTH, dtype=np.float32) + 1000
    elif kind == "constant and equal columns":
        x[:, 1], x[:, 2], x[:, 3:40] = 7.3, 0, x[:, :1]
    elif kind == "equal rows":
        x[12:] = x[:12]
    elif kind == "one direction":
        x = np.outer(x[:, 0], x[0]).astype(np.float32)
    elif kind == "fewer rows than labels":
        x, multi_hot, y = x[:3], multi_hot[:3], np.arange(3)
        multi_hot[:, 0], multi_hot[:, 1] = [1, 0, 1], [1, 1, 1]
    return x, multi_hot, y


KINDS = [
    "plain", "scales and means", "constant and equal columns", "equal rows", "one direction", "fewer rows than labels",
]  # fmt: skip


def objective(x: np.ndarray, target: np.ndarray, coef: np.ndarray, intercept: np.ndarray, C: float) -> float:
    """Of one label, or of a softmax where there are several rows of coefficients, written out."""
    logits = x @ coef.T + intercept
    logits = logits if len(coef) > 1 else np.concatenate([np.zeros_like(logits), logits], axis=1)
    top = logits.max(axis=1)
    loss = top + np.log(np.exp(logits - top[:, None]).sum(axis=1)) - logits[np.arange(len(x)), target]
    return float(loss.mean() + (coef**2).sum() / (2 * C * len(x)))


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_optimum_is_that_of_all_features(kind, multilabel, scale):
    x, multi_hot, y = few_rows(kind)
    probe = LogisticRegressionModel(multilabel=multilabel, scale=scale).fit(x, multi_hot if multilabel else y)
    assert probe.report["fitted_in"] == "rows" and probe.report["converged"]
    centred = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    std = centred.std(axis=0)
    centred = centred / np.where(std > 0, std, 1) if scale else centred
    features = centred if scale else x.astype(np.float64)
    targets = multi_hot.T if multilabel else [np.unique(y, return_inverse=True)[1]]
    members = probe.model.estimators_ if multilabel else [probe.model]
    for target, member, found in zip(targets, members, probe.report["objective"], strict=True):
        if (target == target[0]).all():
            assert np.isinf(member.intercept_).all() and member.coef_.shape == (1, WIDTH)
            continue
        best = LogisticRegression(solver="newton-cholesky", tol=1e-11, max_iter=200).fit(centred, target)
        expected = objective(centred, target, best.coef_, best.intercept_, 1.0)
        assert found <= expected * (1 + 1e-6)
        written = objective(features, target, member.coef_, member.intercept_, 1.0)
        assert written == pytest.approx(expected, rel=1e-6)
    assert probe.predict_proba(x).shape == (len(x), 4 if multilabel else len(np.unique(y)))


@pytest.mark.parametrize("C", [1e-4, 1e4])
def test_all_tokens_of_the_real_samples_size_take_seconds_and_little_memory(C):
    x, y = probe_problem(119, 15_120, 19, multilabel=True, seed=0)
    started = time.process_time()
    report = LogisticRegressionModel(multilabel=True, C=C).fit(x, y).report
    assert time.process_time() - started < 3
    assert report["converged"] and max(report["gap"]) <= 1.1e-6 and report["solver"] == "newton-cholesky"
    assert report["memory_bytes"] < 2**26


def test_only_auto_leaves_the_features_and_only_where_rows_are_few():
    x, _, y = few_rows("plain")
    assert LogisticRegressionModel(solver="lbfgs").fit(x, y).report["fitted_in"] == "features"
    assert LogisticRegressionModel().fit(x[:, :40], y).report["fitted_in"] == "features"
    wide = np.zeros((4000, 10_000), np.float32)
    plan = plan_fit(wide, Size(4000, 10_000, 19, multinomial=False), "auto", "cpu", 1, announce=False)
    # Newton's method would factor 4,000 unknowns for every label; XᵀX of all features would take 0.8 GB twice.
    assert plan.row_space and plan.solver == "preconditioned-lbfgs"


def test_two_classes_keep_the_form_of_one_output():
    x, multi_hot, _ = few_rows("plain")
    probe = LogisticRegressionModel().fit(x, multi_hot[:, 2] + 4)
    assert probe.model.coef_.shape == (1, WIDTH) and set(probe.predict(x)) == {4, 5}
    with pytest.raises(DataError, match="only class 4"):
        LogisticRegressionModel().fit(x, np.full(len(x), 4))


def test_other_patches_are_told_apart_in_the_space_as_by_the_features():
    x, _, y = few_rows("scales and means")
    other = x[::-1] * np.float32(1.1)
    space = RowSpace(FeatureRows(x, torch.device("cpu")), scale=True)
    inside = LogisticRegressionModel(solver="newton-cholesky", tol=1e-10).fit(space.rows, y)
    outside = LogisticRegressionModel(scale=True).fit(x, y)
    np.testing.assert_allclose(inside.predict_proba(space.project(other)), outside.predict_proba(other), atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite(value):
    x, _, y = few_rows("plain")
    x[3, 2] = value
    with pytest.raises(DataError, match="NaN or infinity"):
        LogisticRegressionModel().fit(x, y)
