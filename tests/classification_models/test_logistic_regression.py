"""The linear probe: optimum, convergence, constant labels, and files old and new."""

import logging

import joblib
import numpy as np
import pytest
import sklearn
from probe_data import make_data
from sklearn.linear_model import LogisticRegression

from classification_models import embeddings as embeddings_module
from classification_models.embeddings import row_chunks
from classification_models.logistic_regression import LogisticRegressionModel
from classification_models.solvers import Size, choose_solver
from utils.errors import CheckpointError, ConfigError, DataError, UserError


def objective(probe: LogisticRegressionModel, x: np.ndarray, y: np.ndarray) -> float:
    """The multinomial objective, written out; y holds 0 … K - 1."""
    logits = x.astype(np.float64) @ probe.model.coef_.T + probe.model.intercept_
    loss = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y)), y]
    return loss.mean() + (probe.model.coef_**2).sum() / (2 * probe.C * len(y))


# --- fitting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("solver", "tol"), [("auto", None), ("lbfgs", None), ("preconditioned-lbfgs", 1e-10)])
@pytest.mark.parametrize("scale", [False, True])
def test_reaches_the_optimum_of_a_long_lbfgs_run(solver, tol, scale):
    x, _, y = make_data()
    x = x * np.float32([1, 3, 0.3, 1, 1, 1])
    probe = LogisticRegressionModel(solver=solver, tol=tol, scale=scale).fit(x, y)
    features = (x - x.mean(0, dtype=np.float64)) / x.std(0, dtype=np.float64) if scale else x.astype(np.float64)
    reference = LogisticRegression(solver="lbfgs", tol=1e-10, max_iter=100_000).fit(features, y)
    np.testing.assert_allclose(probe.model.coef_, reference.coef_, atol=2e-4)
    np.testing.assert_allclose(probe.predict_proba(x), reference.predict_proba(features), atol=1e-4)
    assert probe.report["converged"] and probe.report["n_iter"][0] > 0
    if not scale:
        best = LogisticRegressionModel()
        best.model = reference
        assert objective(probe, x, y) <= objective(best, x, y) + 1e-9


def test_multilabel_is_one_binary_regression_per_label():
    x, y, _ = make_data()
    probe = LogisticRegressionModel(multilabel=True, C=0.5, n_jobs=2).fit(x, y)
    for label in range(y.shape[1]):
        alone = LogisticRegression(C=0.5, tol=1e-10, max_iter=10_000).fit(x.astype(np.float64), y[:, label])
        np.testing.assert_allclose(probe.predict_proba(x)[:, label], alone.predict_proba(x)[:, 1], atol=1e-4)
    assert probe.predict(x).shape == y.shape and len(probe.report["n_iter"]) == y.shape[1]


def test_number_of_threads_and_chunk_size_do_not_change_the_result(monkeypatch):
    x, y, _ = make_data()
    one = LogisticRegressionModel(multilabel=True, n_jobs=1, scale=True).fit(x, y)
    monkeypatch.setattr(embeddings_module, "CHUNK_BYTES", 1000)
    assert len(list(row_chunks(x))) > 1
    two = LogisticRegressionModel(multilabel=True, n_jobs=2, scale=True).fit(x, y)
    np.testing.assert_allclose(one.predict_proba(x), two.predict_proba(x), atol=1e-12)


def test_decisions_agree_with_probabilities_and_with_scikit_learn():
    x, multi_hot, y = make_data()
    many = LogisticRegressionModel(multilabel=True).fit(x, multi_hot)
    np.testing.assert_array_equal(many.predict(x), many.predict_proba(x) > 0.5)
    np.testing.assert_array_equal(many.predict(x), many.model.predict(x))
    np.testing.assert_array_equal(many.predict_proba(x), many.model.predict_proba(x))
    y = y * 3 + 2  # classes need not be 0 … K - 1
    one = LogisticRegressionModel().fit(x, y)
    np.testing.assert_array_equal(one.predict(x), one.classes_[one.predict_proba(x).argmax(axis=1)])
    np.testing.assert_array_equal(one.predict(x), one.model.predict(x))
    np.testing.assert_allclose(one.predict_proba(x), one.model.predict_proba(x), atol=1e-12)


def test_two_classes():
    x, multi_hot, _ = make_data()
    probe = LogisticRegressionModel(scale=True).fit(x, multi_hot[:, 0] + 4)
    assert probe.report["converged"] and set(probe.predict(x)) == {4, 5}
    probability = probe.predict_proba(x)
    np.testing.assert_allclose(probability.sum(axis=1), 1)
    np.testing.assert_array_equal(probe.predict(x), np.where(probability[:, 1] > 0.5, 5, 4))


def test_auto_takes_newton_while_its_hessians_are_cheap():
    def chosen(*size, **more):
        return choose_solver("auto", Size(*size), **more)

    assert chosen(300, 6, 4, True) == chosen(1000, 144, 19, False) == "newton-cholesky"
    assert chosen(16_200, 144, 10, True) == chosen(269_694, 15_120, 19, False) == "preconditioned-lbfgs"
    assert chosen(300, 6, 4, True, device="cuda") == "preconditioned-lbfgs"
    with pytest.raises(ConfigError, match="CPU only"):
        choose_solver("sag", Size(300, 6, 4, True), "cuda")


@pytest.mark.parametrize("multilabel", [False, True])
def test_sag_by_name_says_that_it_did_not_converge(caplog, multilabel):
    x, multi_hot, y = make_data()
    x = x * np.float32([1000, 1, 1, 1, 1, 0.01])
    with caplog.at_level(logging.WARNING):
        probe = LogisticRegressionModel(solver="sag", max_iter=20, multilabel=multilabel)
        probe.fit(x, multi_hot if multilabel else y)
    assert not probe.report["converged"] and probe.report["not_converged"] and max(probe.report["n_iter"]) == 20
    assert "sag did not converge" in caplog.text and "20 iterations" in caplog.text


def test_too_few_iterations_of_any_solver_are_reported(caplog):
    x, _, y = make_data()
    for solver in ("newton-cholesky", "preconditioned-lbfgs", "lbfgs", "newton-cg", "saga"):
        caplog.clear()
        assert not LogisticRegressionModel(solver=solver, max_iter=1).fit(x, y).report["converged"]
        assert f"{solver} did not converge" in caplog.text


def test_constant_labels_get_a_constant_score():
    x, y, _ = make_data()
    y[:, 1], y[:, 3] = 0, 1
    probe = LogisticRegressionModel(multilabel=True).fit(x, y)
    probability = probe.predict_proba(x)
    assert (probability[:, 1] == 0).all() and (probability[:, 3] == 1).all()
    assert (probe.predict(x)[:, [1, 3]] == [0, 1]).all()
    assert probe.report["constant_labels"] == [1, 3] and probe.report["converged"]
    np.testing.assert_array_equal(probe.model.predict(x), probe.predict(x))


@pytest.mark.parametrize(
    ("y", "multilabel", "message"),
    [
        (np.zeros((300, 4)), True, "no label has a single positive"),
        (np.full(300, 3), False, "only class 3"),
        (np.zeros(299), False, "do not fit together"),
        (np.zeros(300), True, "multi-hot"),
        (np.zeros((300, 4)), False, "class indices"),
    ],
)
def test_labels_that_cannot_be_fitted(y, multilabel, message):
    with pytest.raises(DataError, match=message):
        LogisticRegressionModel(multilabel=multilabel).fit(make_data()[0], y)


@pytest.mark.parametrize(
    "setting", [{"C": 0.0}, {"C": np.inf}, {"n_jobs": 0}, {"max_iter": 0}, {"tol": -1.0}, {"solver": "adam"}]
)
def test_impossible_settings(setting):
    with pytest.raises(ConfigError):
        LogisticRegressionModel(**setting)


def test_features_of_another_width_and_an_unfitted_probe():
    x, _, y = make_data()
    with pytest.raises(DataError, match=r"fitted on \(N, 6\)"):
        LogisticRegressionModel().fit(x, y).predict(x[:, :5])
    with pytest.raises(UserError, match="not been fitted"):
        LogisticRegressionModel().predict(x)


def _scaled(x: np.ndarray, probe: LogisticRegressionModel) -> np.ndarray:
    return x if probe.scaler is None else probe.scaler.transform(x)


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["newton-cholesky", "preconditioned-lbfgs"])
@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("kind", ["multilabel", "multiclass", "two classes", "constant label"])
def test_both_file_forms_predict_the_same_bits(tmp_path, kind, scale, solver):
    x, multi_hot, y = make_data()
    if kind == "constant label":
        multi_hot[:, 2] = 0
    labels = {"multiclass": y, "two classes": multi_hot[:, 0]}.get(kind, multi_hot)
    probe = LogisticRegressionModel(multilabel=labels.ndim == 2, scale=scale, C=2.0, solver=solver).fit(x, labels)
    np.testing.assert_array_equal(probe.predict(x), probe.model.predict(_scaled(x, probe)))
    for suffix in (".joblib", ".npz"):
        loaded = LogisticRegressionModel.load(probe.save(tmp_path / f"probe{suffix}"))
        np.testing.assert_array_equal(loaded.predict(x), probe.predict(x))
        np.testing.assert_array_equal(loaded.predict_proba(x), probe.predict_proba(x))
        assert (loaded.C, loaded.scale, loaded.multilabel, loaded.report) == (
            2.0,
            scale,
            probe.multilabel,
            probe.report,
        )
        again = LogisticRegressionModel.load(loaded.save(tmp_path / f"again{suffix}"))
        np.testing.assert_array_equal(again.predict_proba(x), probe.predict_proba(x))
    with np.load(tmp_path / "probe.npz", allow_pickle=False) as file:
        assert {"coef", "intercept", "classes", "multilabel"} <= set(file.files)


def test_the_published_attributes_are_kept(tmp_path):
    x, _, y = make_data()
    state = vars(joblib.load(LogisticRegressionModel(n_jobs=4).fit(x, y).save(tmp_path / "probe.joblib")))
    assert {"scale", "max_iter", "seed", "multilabel", "verbose", "n_jobs", "scaler", "model"} <= set(state)


def test_a_file_without_our_attributes_loads(tmp_path):
    """As the authors wrote them: no C, solver, tol or report."""
    x, _, y = make_data()
    probe = LogisticRegressionModel(C=3.0, solver="lbfgs").fit(x, y)
    old = LogisticRegressionModel()
    for name in ("C", "solver", "tol", "device", "report"):
        del old.__dict__[name]
    old.model = probe.model
    joblib.dump(old, tmp_path / "old.joblib")
    loaded = LogisticRegressionModel.load(tmp_path / "old.joblib")
    assert (loaded.C, loaded.solver, loaded.report) == (3.0, "lbfgs", {})
    np.testing.assert_array_equal(loaded.predict(x), probe.predict(x))


@pytest.mark.parametrize("name", ["bigearthnet", "eurosat"])
def test_published_probes_give_the_published_predictions(reference_dir, tmp_path, caplog, name):
    folder = reference_dir / "reference" / "published_probes"
    (path,) = folder.glob(f"*_{'bigeartjnet' if name == 'bigearthnet' else name}_*.joblib")
    with np.load(folder / "expected.npz") as file:
        expected = {key: file[key] for key in file.files}
    probe = LogisticRegressionModel.load(path)
    assert "scikit-learn 1.6.1" in caplog.text or sklearn.__version__ == "1.6.1"
    x = expected["x"]
    np.testing.assert_array_equal(probe.predict(x), expected[f"{name}_cls_predict"])
    probability = probe.predict_proba(x)
    assert probability.dtype == np.float32
    # Logits reach 330 in float32, so that the order of summation (it depends on the processor) moves them by 1e-5.
    np.testing.assert_allclose(probability, expected[f"{name}_cls_proba"], atol=4e-6)
    np.testing.assert_array_equal(probability, probe.model.predict_proba(x))
    plain = LogisticRegressionModel.load(probe.save(tmp_path / "plain.npz"))
    np.testing.assert_array_equal(plain.predict_proba(x), probability)
    assert probe.solver == "sag" and plain.C == 1.0


@pytest.mark.parametrize(
    "case", ["missing", "text", "other pickle", "truncated", "other npz", "pickled npz", "unfitted"]
)
def test_files_that_are_no_probe(tmp_path, case):
    path = tmp_path / ("probe.npz" if "npz" in case else "probe.joblib")
    if case == "text":
        path.write_text("hello")
    elif case == "other pickle":
        joblib.dump({"a": 1}, path)
    elif case == "truncated":
        LogisticRegressionModel().fit(*make_data()[::2]).save(path)
        path.write_bytes(path.read_bytes()[:-100])
    elif case == "other npz":
        np.savez(path, a=1)
    elif case == "pickled npz":
        np.savez(path, format=np.array([{"a": 1}], dtype=object))
    elif case == "unfitted":
        joblib.dump(LogisticRegressionModel(), path)
    with pytest.raises(CheckpointError) as caught:
        LogisticRegressionModel.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
