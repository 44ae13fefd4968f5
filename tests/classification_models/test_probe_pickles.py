"""A `.joblib` is read without running what it says; what no probe needs is named."""

import pickle
import struct
from datetime import UTC, datetime
from pathlib import Path

import joblib
import numpy as np
import pytest
from probe_data import make_data
from sklearn.preprocessing import RobustScaler

from classification_models.logistic_regression import LogisticRegressionModel
from embed_scene import parse_arguments
from models.config import ModelConfig
from scenes.products.land_cover import load_probe
from utils.errors import CheckpointError


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path, how: str = "call"):
        self.mark, self.how = mark, how

    def __reduce__(self):
        if self.how == "builtin":
            return eval, (f"open({str(self.mark)!r}, 'w')",)
        if self.how == "state":  # a harmless class, whose state is what runs
            return object.__new__, (Hostile,), {"x": Hostile(self.mark)}
        return Path.touch, (self.mark,)


def fitted() -> LogisticRegressionModel:
    x, _, y = make_data()
    return LogisticRegressionModel(scale=True).fit(x, y)


@pytest.mark.parametrize("how", ["call", "builtin", "state"])
@pytest.mark.parametrize("place", ["alone", "model", "scaler", "setting", "inside the model", "array", "compressed"])
def test_nothing_in_a_file_runs(tmp_path, place, how):
    mark, path = tmp_path / "it ran", tmp_path / "probe.joblib"
    hostile, probe = Hostile(mark, how), fitted()
    if place in ("model", "scaler"):
        setattr(probe, place, hostile)
    elif place == "inside the model":
        probe.model.coef_ = hostile
    elif place == "array":  # joblib keeps arrays of objects as pickles of their own
        probe.report = {"all": np.array([hostile], dtype=object)}
    else:
        probe.report = {"n_iter": [hostile]}
    joblib.dump(hostile if place == "alone" else probe, path, compress=3 if place == "compressed" else 0)
    with pytest.raises(CheckpointError) as caught:
        LogisticRegressionModel.load(path)
    assert not mark.exists() and str(path) in str(caught.value) and "\n" not in str(caught.value)
    if place != "array":  # refused there for the kind of array, before any name
        assert ".npz" in str(caught.value) and "--trust-pickle" in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        ("os", "system"),
        ("builtins", "getattr"),
        ("classification_models.logistic_regression", "LogisticRegressionModel.load"),
        ("classification_models.logistic_regression", "joblib.load"),
        ("joblib.numpy_pickle", "pickle.loads"),
        ("sklearn.linear_model._logistic", "LogisticRegression.fit"),
        ("numpy.core.multiarray", "_reconstruct"),
    ],
)
@pytest.mark.parametrize("older", [True, False])
def test_names_that_no_probe_needs_are_refused(tmp_path, name, older):
    """Also those that can be reached from modules which a probe names."""
    path = tmp_path / "probe.joblib"
    plain = b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in name) + b"\x93"
    path.write_bytes(b"\x80\x04" + (f"c{name[0]}\n{name[1]}\n".encode() if older else plain) + b")R.")
    with pytest.raises(CheckpointError, match=rf"names {name[0]}\.{name[1]}, which no probe needs"):
        LogisticRegressionModel.load(path)


def test_foreign_classes_are_run_on_request_only(tmp_path):
    probe, path = fitted(), tmp_path / "probe.joblib"
    probe.report = {"made": datetime(2020, 1, 1, tzinfo=UTC)}
    joblib.dump(probe, path)
    with pytest.raises(CheckpointError, match=r"names datetime\.datetime"):
        LogisticRegressionModel.load(path)
    assert LogisticRegressionModel.load(path, trust_pickle=True).report == probe.report
    width = probe.head.coef.shape[1]
    config = ModelConfig.of_size("XXS", embed_dim=width, num_heads=1, num_groups=1)
    with pytest.raises(CheckpointError, match="trust-pickle"):
        load_probe(path, config)
    assert load_probe(path, config, trust_pickle=True).width == width


def test_trust_is_for_foreign_classes_and_not_for_damage(tmp_path):
    path = tmp_path / "probe.joblib"
    path.write_bytes(fitted().save(tmp_path / "whole.joblib").read_bytes()[:-80])
    probe = fitted()
    probe.scaler = RobustScaler().fit(make_data()[0])  # foreign, and no scaler of a probe
    joblib.dump(probe, tmp_path / "other.joblib")
    for name in ("probe.joblib", "other.joblib"):
        with pytest.raises(CheckpointError, match="not a readable probe"):
            LogisticRegressionModel.load(tmp_path / name, trust_pickle=True)


def test_the_script_has_the_option():
    words = ["--scene", "a", "--checkpoint", "b", "--out", "c", "--probe", "d.joblib"]
    assert parse_arguments(words).trust_pickle is False
    assert parse_arguments([*words, "--trust-pickle"]).trust_pickle is True


@pytest.mark.parametrize("compress", [("zlib", 3), ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)])
@pytest.mark.parametrize("multilabel", [True, False])
def test_compressed_files_load_as_before(tmp_path, compress, multilabel):
    x, multi_hot, y = make_data()
    multi_hot[:, 1] = 0
    probe = LogisticRegressionModel(multilabel=multilabel).fit(x, multi_hot if multilabel else y)
    joblib.dump(probe, tmp_path / "probe.joblib", compress=compress)
    loaded = LogisticRegressionModel.load(tmp_path / "probe.joblib")
    np.testing.assert_array_equal(loaded.predict_proba(x), probe.predict_proba(x))
    assert loaded.report == probe.report


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_today_is_read(tmp_path, protocol):
    probe = fitted()
    joblib.dump(probe, tmp_path / "probe.joblib", protocol=protocol)
    x = make_data()[0]
    loaded = LogisticRegressionModel.load(tmp_path / "probe.joblib")
    np.testing.assert_array_equal(loaded.predict_proba(x), probe.predict_proba(x))


def test_what_would_fill_the_memory_or_never_end_is_refused(tmp_path):
    path = tmp_path / "probe.joblib"
    start = b"\x80\x04"
    doubling = b"]" + b"".join(b"q" + bytes([n]) + b"]h" + bytes([n]) + b"ah" + bytes([n]) + b"a" for n in range(60))
    probe = b"\x8c\x29classification_models.logistic_regression\x8c\x17LogisticRegressionModel\x93)\x81}\x8c\x01x"
    for content in (
        start + b"Nr" + struct.pack("<I", 2**32 - 1) + b".",  # a memo of 32 GB
        start + probe + doubling + b"sb.",  # a list that unfolds to 2 ** 60 values
        start + b"\x8e" + struct.pack("<Q", 2**62) + b".",  # bytes that are not there
        start + b"]" * 5_000 + b"a" * 4_999 + b".",  # lists in lists
        start + probe + b"]" * 5_000 + b"a" * 4_999 + b"sb.",
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="not a readable probe"):
            LogisticRegressionModel.load(path)


def test_a_file_of_too_many_instructions_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("classification_models.plain_pickles.MOST_INSTRUCTIONS", 1000)
    (tmp_path / "probe.joblib").write_bytes(b"\x80\x04" + b"N" * 2000 + b".")
    with pytest.raises(CheckpointError, match="1,000 instructions"):
        LogisticRegressionModel.load(tmp_path / "probe.joblib")


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("classification_models.probe_pickles.MOST_BYTES", 10_000)
    for compress in ("zlib", "gzip", "bz2", "xz", "lzma"):
        joblib.dump(np.zeros(10_000), tmp_path / "probe.joblib", compress=(compress, 1))
        with pytest.raises(CheckpointError, match="it has more than"):
            LogisticRegressionModel.load(tmp_path / "probe.joblib")


@pytest.mark.parametrize(
    "change",
    [
        {"intercept_": np.zeros(3)},
        {"coef_": np.full((4, 6), np.nan)},
        {"coef_": np.array([["a"] * 6] * 4)},
        {"classes_": np.arange(9)},
        {"coef_": "text"},
    ],
)
def test_numbers_that_do_not_fit_together_are_refused(tmp_path, change):
    probe = fitted()
    vars(probe.model).update(change)
    joblib.dump(probe, tmp_path / "probe.joblib")
    with pytest.raises(CheckpointError, match="not a readable probe"):
        LogisticRegressionModel.load(tmp_path / "probe.joblib")


def test_a_scaler_of_another_width_is_refused(tmp_path):
    probe = fitted()
    probe.scaler.mean_ = probe.scaler.mean_[:-1]
    for suffix in ("joblib", "npz"):
        with pytest.raises(CheckpointError, match="not a readable probe"):
            LogisticRegressionModel.load(probe.save(tmp_path / f"probe.{suffix}"))


def test_the_hostile_files_are_hostile(tmp_path):
    """Or the tests above would show nothing."""
    for how in ("call", "builtin", "state"):
        mark = tmp_path / how
        pickle.loads(pickle.dumps(Hostile(mark, how)))
        assert mark.exists(), how
