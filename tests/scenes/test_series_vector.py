"""`embed_series.py --vector`: one vector a cell for the whole series, as the temporal module gives it."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from scene_files import CLEAR, CLOUD, read
from scripts import left_behind
from series_files import DAYS, SIDE, files_of, series, temporal_weights, write_date

from models.temporal import decimal_year
from models.temporal_weights import read_temporal
from scenes.input.product import SceneOptions
from scenes.series.dates import find_series
from utils.errors import CheckpointError, ConfigError
from utils.files import sha256


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Three dates; the left of the place is hidden on the first, the top on all."""
    folder = tmp_path_factory.mktemp("place")
    for number, day in enumerate(DAYS):
        qa = np.full(SIDE, CLEAR)
        qa[:30] = CLOUD
        if number == 0:
            qa[:, :60] = CLOUD
        write_date(folder, day, qa=qa)
    return folder


def test_the_vector_of_a_cell_is_that_of_its_dates(tmp_path, place, checkpoint) -> None:
    file = temporal_weights(tmp_path / "temporal.npz", encoder=sha256(checkpoint))
    out = series(place, checkpoint, tmp_path / "out", "--stride", 20, "--vector", file)
    found = read(out / "vector.tif")
    module = read_temporal(file)
    record = json.loads((out / "series.json").read_text())
    assert record["vector"] == {"weights": "temporal.npz", "sha256": sha256(file), "width": len(found)}
    assert record["pool"] == "patch_mean" and "vector.tif" in record["files"]
    cells = np.stack([read(path) for path in files_of(out)])  # (T, D, rows, width)
    seen = np.isfinite(cells[:, 0])
    np.testing.assert_array_equal(np.isfinite(found[0]), seen.any(axis=0))
    assert (seen.sum(axis=0) == 2).any() and (seen.sum(axis=0) == 0).any(), "cells hidden on one date, and on all"
    moments = [one.moment.date() for one in find_series([place], SceneOptions())]
    times = torch.tensor([decimal_year(day) for day in moments], dtype=torch.float64)
    for row, column in ((12, 3), (15, 25), (20, 14)):
        with torch.no_grad():
            expected = module(torch.from_numpy(cells[:, :, row, column])[None], times)[0]
        np.testing.assert_allclose(found[:, row, column], expected, rtol=2e-3, atol=2e-3)
    with rasterio.open(out / "vector.tif") as one, rasterio.open(files_of(out)[0]) as other:
        assert one.transform == other.transform and one.crs == other.crs


def test_other_weights_and_other_poolings_are_refused(tmp_path, place, checkpoint) -> None:
    file = temporal_weights(tmp_path / "temporal.npz", encoder="0" * 64)
    with pytest.raises(ConfigError, match="reads embeddings of another checkpoint than"):
        series(place, checkpoint, tmp_path / "out", "--vector", file)
    file = temporal_weights(tmp_path / "temporal.npz")
    with pytest.raises(ConfigError, match="--pool cls: --vector reads embeddings of pool patch_mean; leave --pool out"):
        series(place, checkpoint, tmp_path / "out", "--vector", file, "--pool", "cls")
    with pytest.raises(CheckpointError, match="no such weights of a temporal module"):
        series(place, checkpoint, tmp_path / "out", "--vector", tmp_path / "absent.npz")
    assert not left_behind(tmp_path / "out")
