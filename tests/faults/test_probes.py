"""Probes with flipped bits, cut off, or beside another's record: refused, or the very numbers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from faults import REFUSED, Attempt, damaged, ending
from probe_data import make_data

from classification_models.logistic_regression import LogisticRegressionModel
from classification_models.probe_files import new_run, write_run
from utils.errors import CheckpointError
from utils.recorded import MANIFEST, PROBE_SUFFIXES


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The record of a probe run."""
    x, _, y = make_data()
    with new_run(tmp_path_factory.mktemp("probes"), "probe") as files:
        write_run(files, LogisticRegressionModel(scale=True).fit(x, y), {"classes": ["a", "b"]}, None)
    return files.json


def numbers(path: Path) -> list[np.ndarray]:
    head = LogisticRegressionModel.load(path).head
    return [np.asarray(part) for part in head if part is not None]


def same(ours: list[np.ndarray], theirs: list[np.ndarray]) -> bool:
    return len(ours) == len(theirs) and all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("suffix, with_record", [(".npz", True), (".npz", False), (".joblib", True)])
def test_damaged_probes(campaign, run, tmp_path, suffix, with_record) -> None:
    """An `.npz` has checksums of its own; of a `.joblib` the record beside it has one."""
    path = Path(shutil.copy(run.with_suffix(suffix), tmp_path))
    if with_record:
        shutil.copy(run, tmp_path)
    whole, expected = path.read_bytes(), numbers(path)

    def one(attempt: Attempt) -> str:
        data = damaged(whole, attempt.random)
        attempt.keep(data, path.name)
        path.write_bytes(data)

        def work() -> None:
            assert same(numbers(path), expected), "other numbers in silence"

        return ending(work)

    beside = "with its record" if with_record else "alone"
    found = campaign(f"damage of a probe{suffix} {beside}", 40, 1000).run(one)
    assert found[REFUSED] > 0.8 * found.total()


@pytest.mark.parametrize("suffix", PROBE_SUFFIXES)
def test_damaged_records(campaign, run, tmp_path, suffix) -> None:
    """The probe is used with the very numbers, or refused where its record says that it is another."""
    path, record = (Path(shutil.copy(run.with_suffix(one), tmp_path)) for one in (suffix, ".json"))
    whole, expected = record.read_bytes(), numbers(path)

    def one(attempt: Attempt) -> str:
        data = damaged(whole, attempt.random)
        attempt.keep(data, record.name)
        record.write_bytes(data)

        def work() -> None:
            assert same(numbers(path), expected)

        return ending(work)

    campaign(f"damage of the record of a probe{suffix}", 20, 1000).run(one)


@pytest.mark.parametrize("suffix", PROBE_SUFFIXES)
def test_the_probe_of_another_run(run, tmp_path, suffix) -> None:
    """It is whole, and not the one that the record or the manifest is of."""
    x, _, y = make_data(seed=1)
    path = LogisticRegressionModel().fit(x, y).save(tmp_path / f"{run.stem}{suffix}")
    LogisticRegressionModel.load(path)
    record = Path(shutil.copy(run, tmp_path))
    with pytest.raises(CheckpointError, match=rf"is not the file that {run.name} records \(sha256\); restore it"):
        LogisticRegressionModel.load(path)
    record.write_text(json.dumps({"classes": ["a", "b"]}))  # as it was before
    LogisticRegressionModel.load(path)
    (tmp_path / MANIFEST).write_text(json.dumps({path.name: {"sha256": "0" * 64}}))
    with pytest.raises(CheckpointError, match=r"manifest\.json records \(sha256\)"):
        LogisticRegressionModel.load(path)


def test_shipped_probes_are_those_of_the_manifest(tmp_path) -> None:
    shutil.copytree(ROOT / "weights", tmp_path / "weights")
    folders = (tmp_path / "weights").glob("logistic_regression_*")
    probes = [path for folder in folders for path in folder.iterdir() if path.suffix in PROBE_SUFFIXES]
    assert len(probes) >= 4
    for path in probes:
        LogisticRegressionModel.load(path)
        x, _, y = make_data()
        LogisticRegressionModel().fit(x, y).save(path)
        with pytest.raises(CheckpointError, match="is not the file that"):
            LogisticRegressionModel.load(path)
