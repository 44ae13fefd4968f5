"""The made-up embeddings that the probe is timed on."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from benchmarks.probe_data import BLOCK, probe_problem
from classification_models.logistic_regression import LogisticRegressionModel


@pytest.mark.parametrize("multilabel", [False, True])
def test_a_problem_is_a_function_of_its_seed_and_begins_with_the_shorter_one(tmp_path, multilabel):
    x, y = probe_problem(BLOCK + 10, 12, 3, multilabel, seed=5)
    again = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, x.shape)
    given, labels = probe_problem(BLOCK + 10, 12, 3, multilabel, seed=5, out=again)
    assert given is again and x.dtype == np.float32
    np.testing.assert_array_equal(again, x)
    np.testing.assert_array_equal(labels, y)
    short, first = probe_problem(7, 12, 3, multilabel, seed=5)
    np.testing.assert_allclose(short, x[:7], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(first, y[:7])
    other, _ = probe_problem(7, 12, 3, multilabel, seed=6)
    assert not np.allclose(other, short)


def test_features_are_correlated_scaled_apart_and_not_centred():
    x, y = probe_problem(3000, 144, 19, True, seed=0)
    spread = x.std(axis=0)
    assert 50 < spread.max() / spread.min() < 200
    assert np.linalg.cond((x - x.mean(axis=0)) / spread) > 20
    assert (np.abs(x.mean(axis=0)) / spread).mean() > 0.5
    assert 0.005 < y.mean(axis=0).min() < 0.05 and 0.4 < y.mean(axis=0).max() < 0.6


def test_sag_runs_to_its_limit_where_the_probe_converges():
    x, y = probe_problem(800, 48, 5, False, seed=0)
    sag = LogisticRegression(solver="sag", max_iter=1000, tol=1e-4, random_state=0)
    with pytest.warns(match="max_iter was reached"):
        sag.fit(x, y)
    probe = LogisticRegressionModel(solver="preconditioned-lbfgs").fit(x, y)
    assert sag.n_iter_[0] == 1000 and probe.report["converged"] and probe.report["n_iter"][0] < 50
