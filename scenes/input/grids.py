"""Raster files and the one grid that all files of a scene share: 30 m, north up."""

from pathlib import Path
from typing import NamedTuple

import rasterio
from rasterio.crs import CRS
from rasterio.errors import RasterioError

from scenes.input.virtual_files import GDAL_NETWORK, is_file, plain_name, shown
from utils.errors import DataError

SPACING = 30.0
"""Metres between pixels of the patches that the model is trained on."""
SPACING_TOLERANCE = 1e-3
"""Share by which a file's spacing may differ: rounding, not another product."""


class RasterFile(NamedTuple):
    """One band of a GeoTIFF, and what its file says."""

    path: Path
    band: int
    """Counted from 1."""
    count: int
    dtype: str
    nodata: float | None
    descriptions: tuple[str | None, ...]
    crs: CRS | None
    transform: rasterio.Affine
    height: int
    width: int


class SceneGrid(NamedTuple):
    """Where a scene's pixels lie."""

    crs: CRS | None
    transform: rasterio.Affine
    height: int
    width: int

    @property
    def georeferenced(self) -> bool:
        return not self.transform.is_identity


def open_raster(path: Path) -> RasterFile:
    """Band 1 of a file. Raises DataError naming it."""
    if not is_file(path):
        raise DataError(f"{shown(path)}: no such file; check the path")
    try:
        with rasterio.Env(**GDAL_NETWORK), rasterio.open(path) as file:
            crs = file.crs or None
            about = (file.count, file.dtypes[0], file.nodata, file.descriptions, crs, file.transform)
            return RasterFile(path, 1, *about, file.height, file.width)
    except (RasterioError, OSError) as error:
        raise DataError(f"{shown(path)}: cannot be read (truncated or no GeoTIFF); fetch it again") from error


def scene_grid(first: RasterFile) -> SceneGrid:
    """The grid of a scene's first band.

    Raises:
        DataError: degrees, another spacing than 30 m, rotated or south-up.
    """
    crs, grid = first.crs, first.transform
    fix = "reproject it first: gdalwarp -t_srs EPSG:326NN -tr 30 30 -r near (NN: the UTM zone)"
    if not grid.is_identity:
        if crs is not None and crs.is_geographic:
            raise DataError(f"{shown(first.path)}: its grid is in degrees, the model knows 30 m; {fix}")
        factor = crs.linear_units_factor[1] if crs is not None else 1.0
        if grid.b or grid.d or grid.a <= 0 or grid.e >= 0:
            raise DataError(f"{shown(first.path)}: its grid is rotated or not north up; {fix}")
        for size in (grid.a * factor, -grid.e * factor):
            if abs(size - SPACING) > SPACING_TOLERANCE * SPACING:
                raise DataError(f"{shown(first.path)}: its pixels are {size:g} m wide, the model knows 30 m; {fix}")
    return SceneGrid(crs, grid, first.height, first.width)


def check_same_grid(first: RasterFile, other: RasterFile) -> None:
    """Refuse a file on another grid than the first one's. Raises DataError naming both."""
    for what, one, two in (
        ("size", (first.height, first.width), (other.height, other.width)),
        ("coordinate reference system", first.crs, other.crs),
        ("georeference", first.transform.to_gdal(), other.transform.to_gdal()),
    ):
        if one != two:
            raise DataError(
                f"{shown(other.path)}: its {what} differs from that of {plain_name(first.path)}; give files of one grid"
            )
