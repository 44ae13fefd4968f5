"""The study of series: representations, the probe, missing dates, tables."""

import csv

import numpy as np
import pytest
import torch
from tiny_weights import write_tiny_checkpoint

from models.temporal import TemporalConfig, TemporalModule
from models.temporal_weights import write_temporal
from studies.time.__main__ import main
from studies.time.probe import probe
from studies.time.representations import (
    foretold_only,
    mean_and_spread,
    mean_of_dates,
    of_module,
    present_on,
    side_by_side,
    year_of_dates,
)
from temporal.series import Series
from utils.errors import CheckpointError
from utils.files import sha256


def waves(places: int = 6, cells: int = 4, dates: int = 12) -> Series:
    """Vectors whose season is a wave."""
    random = np.random.default_rng(0)
    times = np.broadcast_to(2022 + (np.arange(dates) + 0.5) / dates, (places * cells, dates))
    own = random.normal(size=(places * cells, 3, 2))
    angle = 2 * np.pi * times[..., None]
    vectors = own[:, :1] + own[:, 1:2] * np.sin(angle) + own[:, 2:] * np.cos(angle)
    kind = np.arange(places * cells) % 2
    share = np.ones(len(kind), np.float32)
    return Series(vectors.astype(np.float32), times, kind.astype(np.uint8), share, np.repeat(np.arange(places), cells))


def test_missing_dates_are_those_of_a_place() -> None:
    series = waves()
    seen = present_on(series, 3, 6, seed=1)
    for place in range(6):
        rows = seen[series.place == place]
        assert (rows == rows[0]).all() and 3 <= rows[0].sum() <= 6
    assert len({tuple(row) for row in seen}) > 3
    assert np.array_equal(seen, present_on(series, 3, 6, seed=1)) and present_on(series, None, 12, seed=1).all()


def test_representations_use_what_was_seen_alone() -> None:
    series, module = waves(), TemporalModule(TemporalConfig(width=2, pool="cls", dim=6, heads=1, groups=1)).eval()
    seen = present_on(series, 3, 6, seed=2)
    spoiled = series._replace(vectors=np.where(seen[..., None], series.vectors, 1e6).astype(np.float32))
    without = (mean_of_dates, mean_and_spread, side_by_side, year_of_dates)
    for represent in (*without, of_module(module), foretold_only(module)):
        found = represent(series, seen)
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found, represent(spoiled, seen), rtol=1e-5, atol=1e-5)


def test_a_wave_is_found_again() -> None:
    series = waves()
    whole = present_on(series, None, 12, seed=0)
    assert np.array_equal(side_by_side(series, whole), series.vectors.reshape(24, -1))
    year = year_of_dates(series, whole).reshape(24, 5, 2)
    np.testing.assert_allclose(year[:, 0], series.vectors.mean(axis=1), atol=1e-5)
    assert np.abs(year[:, 3:]).max() < 1e-5
    every_other = np.broadcast_to(np.arange(12) % 2 == 0, (24, 12))
    filled = side_by_side(series, every_other).reshape(24, 12, 2)
    assert np.abs(filled - series.vectors).max() < 0.3 * np.abs(series.vectors).max()


def test_the_probe_learns_what_is_linear_and_chooses_on_other_blocks() -> None:
    random = np.random.default_rng(1)
    x, other = random.normal(size=(200, 8)), random.normal(size=(200, 8))
    weights = random.normal(size=(8, 3))
    classes, truth = (x @ weights).argmax(axis=1), (other @ weights).argmax(axis=1)
    found, held_out = probe(x, classes, np.arange(200) // 10, other, 3)
    assert (found == truth).mean() > 0.8 and 0.7 < held_out < 1.0


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("time")
    checkpoint = write_tiny_checkpoint(folder / "tiny.pth")
    torch.manual_seed(0)
    config = TemporalConfig(width=24, pool="patch_mean", encoder=sha256(checkpoint), dim=6, heads=1, groups=1, slots=3)
    write_temporal(folder / "module.npz", TemporalModule(config))
    return folder


def test_the_command_writes_tables(weights, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("studies.time.study.LEAST_SHARE", 0.05)
    monkeypatch.setattr("studies.time.study.DATES", 6)
    options = ["--module", str(weights / "module.npz"), "--checkpoint", str(weights / "tiny.pth")]
    options += ["--fit", "3", "--score", "2", "--windows", "1", "--out", str(tmp_path)]
    assert main(options) == 0
    with (tmp_path / "vectors.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["vector"] for row in rows} >= {"temporal module", "mean of the dates", "dates side by side"}
    assert len({row["dates"] for row in rows}) == 5
    assert all(0 <= float(row["accuracy_low"]) <= float(row["accuracy"]) <= 100 for row in rows)
    assert "| temporal module | 120 |" in (tmp_path / "vectors.md").read_text()


def test_a_module_of_another_encoder_is_refused(weights, tmp_path) -> None:
    other = write_tiny_checkpoint(tmp_path / "other.pth", dlasth=9)
    with pytest.raises(CheckpointError, match=r"other\.pth: is not the encoder that the temporal module"):
        main(["--module", str(weights / "module.npz"), "--checkpoint", str(other), "--out", str(tmp_path / "out")])
