"""The reader of GeoTIFFs: every form reads the same, and coordinate systems are shared only where they are equal."""

import numpy as np
import pytest
import rasterio
from tiny import some_pixels, write_tif

from datasets.geotiff import GDAL_OPTIONS, read_patch


@pytest.mark.parametrize(
    "form",
    [
        {"compress": "deflate"},
        {"interleave": "band"},
        {"tiled": True, "blockxsize": 16, "blockysize": 16},
        {"bigtiff": "YES"},
        {"endianness": "BIG"},
    ],
    ids=lambda form: next(iter(form)),
)
def test_every_form_of_geotiff_reads_the_same(tmp_path, form: dict) -> None:
    pixels = some_pixels()
    with rasterio.Env(**GDAL_OPTIONS):
        plain = read_patch(write_tif(tmp_path / "plain.tif", pixels), 7, 7, 40)
        with rasterio.open(tmp_path / "plain.tif") as file:
            profile = {**file.profile, **form}
        with rasterio.open(tmp_path / "other.tif", "w", **profile) as file:
            file.write(pixels)
        other = read_patch(tmp_path / "other.tif", 7, 7, 40)
    assert np.array_equal(plain.pixels, pixels)
    assert np.array_equal(other.pixels, pixels)
    assert (other.crs, other.center) == (plain.crs, plain.center)


def test_files_share_a_coordinate_system_only_with_the_same_tags(tmp_path) -> None:
    zones = [32629, 32633, 3035, 32629, 32633]
    with rasterio.Env(**GDAL_OPTIONS):
        found = []
        for number, zone in enumerate(zones):
            path = write_tif(tmp_path / f"{number}.tif", some_pixels(), crs=rasterio.CRS.from_epsg(zone))
            found.append(read_patch(path, 7, 7, 40).crs)
    assert [rasterio.CRS.from_wkt(text).to_epsg() for text in found] == zones
