"""`embed_scene.py --stac`: where, when and how, in the words of catalogues."""

import json
from datetime import date, time
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from rasterio.warp import transform_bounds

from scenes.products.embedding_file import EmbeddingMap
from scenes.products.stac_item import ASSETS, require_described, write_item
from utils.errors import ConfigError
from utils.metadata import AcquisitionTime
from utils.sensors import OLI

CELL = 4
ABOUT = {"cell": CELL, "pool": "patch_mean", "checkpoint_sha256": "0" * 64}
MORNING = AcquisitionTime(date(2018, 7, 4), time(9, 30, 5))


def item_of(
    folder, crs="EPSG:32633", west=500_000.0, taken=MORNING, dtype="float32", files=("embeddings.tif",)
) -> dict:
    """The item of a map of 30 x 50 cells of 120 m."""
    grid = rasterio.Affine(120.0, 0.0, west, 0.0, -120.0, 5_500_000.0)
    options = {"crs": crs, "transform": grid, "dtype": dtype, "nodata": -128 if dtype == "int8" else np.nan}
    with rasterio.open(folder / "embeddings.tif", "w", count=3, height=30, width=50, **options) as file:
        file.write(np.ones((3, 30, 50), dtype))
        if dtype == "int8":
            file.scales, file.offsets = (0.5, 0.25, 2.0), (1.0, 0.0, -1.0)
    scene = SimpleNamespace(sensor=OLI, name="LC08_X", time=taken, crs=rasterio.CRS.from_string(crs))
    require_described(scene)
    embeddings = EmbeddingMap(folder / "embeddings.tif")
    path = write_item(folder / "stac_item.json", embeddings, scene, ABOUT, [folder / name for name in files])
    return json.loads(path.read_text())


def test_where_when_and_how(tmp_path) -> None:
    item = item_of(tmp_path, files=("embeddings.tif", "quick_look.png", "cells.parquet"))
    expected = transform_bounds("EPSG:32633", "EPSG:4326", 500_000, 5_496_400, 506_000, 5_500_000)
    np.testing.assert_allclose(item["bbox"], expected, atol=2e-4)
    ring = np.array(item["geometry"]["coordinates"][0])
    x, y = ring.T
    assert item["geometry"]["type"] == "Polygon" and (ring[0] == ring[-1]).all()
    assert (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() > 0, "counter-clockwise"
    properties = item["properties"]
    assert properties["datetime"] == "2018-07-04T09:30:05Z" and properties["gsd"] == 120
    assert (properties["emb:type"], properties["emb:dimensions"]) == ("chip", 3)
    assert properties["emb:chip_layout"] == {"layout_type": "regular_grid", "chip_size": [4, 4], "stride": [4, 4]}
    assert properties["emb:runtime_parameters"] == ABOUT and "emb:quantization" not in properties
    assert set(item["assets"]) == {"embeddings", "quick_look"}
    assert item["assets"]["embeddings"]["proj:code"] == "EPSG:32633"
    assert item["assets"]["embeddings"]["proj:shape"] == [30, 50]
    assert {asset["href"] for asset in item["assets"].values()} <= {f"./{name}" for name in ASSETS}


def test_whole_numbers_say_what_they_stand_for(tmp_path) -> None:
    item = item_of(tmp_path, dtype="int8")
    quantization = item["properties"]["emb:quantization"]
    assert quantization["scale"] == [0.5, 0.25, 2.0] and quantization["offset"] == [1.0, 0.0, -1.0]
    assert item["assets"]["embeddings"]["data_type"] == "int8"


def test_a_day_without_a_time(tmp_path) -> None:
    properties = item_of(tmp_path, taken=AcquisitionTime(date(2018, 7, 4)))["properties"]
    assert properties["datetime"] is None
    assert (properties["start_datetime"], properties["end_datetime"]) == (
        "2018-07-04T00:00:00Z",
        "2018-07-04T23:59:59Z",
    )


def test_across_the_antimeridian(tmp_path) -> None:
    """The 180th meridian is 222 km east of the middle of zone 60 here."""
    item = item_of(tmp_path, crs="EPSG:32660", west=711_500.0)
    assert item["geometry"]["type"] == "MultiPolygon"
    west, _, east, _ = item["bbox"]
    assert 179.9 < west <= 180 and -180 <= east < -179.9


@pytest.mark.parametrize(
    ("scene", "said"),
    [
        (SimpleNamespace(name="a", crs=None, time=MORNING), "--stac: a has no reliable georeferencing"),
        (SimpleNamespace(name="a", crs=1, time=AcquisitionTime()), "--stac: nothing says when a was taken.*--date"),
    ],
)
def test_what_an_item_cannot_do_without(scene, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        require_described(scene)
