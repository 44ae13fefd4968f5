"""One reader for GeoTIFF patches: each file is opened once, coordinates are transformed once per CRS and batch."""

import warnings
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
import rasterio.warp
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from utils.data_utils import list_some
from utils.errors import DataError

# Patches have no side-car files; looking for them would list a folder of half a million files at every open.
GDAL_OPTIONS = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}


# Where a place is needed, its absence is an error of ours that names the file.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)


class RawPatch(NamedTuple):
    """What one file holds."""

    pixels: np.ndarray
    """(C, H, W) uint16 Collection-2 Level-2 numbers."""
    crs: str
    """Coordinate reference system as WKT; empty where the file has none."""
    center: tuple[float, float]
    """Centre of the patch in that system."""


def read_patch(path: Path, file_bands: int, bands: int, min_size: int) -> RawPatch:
    """Read the first `bands` bands of a patch.

    Args:
        path: a GeoTIFF of unsigned 16-bit numbers.
        file_bands: how many bands the file must have.
        bands: how many of them are read.
        min_size: least height and width, pixels.

    Raises:
        DataError: one line naming the file and what is wrong with it.
    """
    try:
        with rasterio.open(path) as source:
            if source.count != file_bands:
                raise DataError(
                    f"{path}: has {source.count} bands, expected {file_bands}; fetch it again or leave it out"
                )
            if set(source.dtypes) != {"uint16"}:
                kinds = ", ".join(sorted(set(source.dtypes)))
                raise DataError(f"{path}: holds {kinds} values, expected uint16; give the stored Collection-2 numbers")
            if min(source.height, source.width) < min_size:
                raise DataError(
                    f"{path}: is {source.height} x {source.width} pixels, at least {min_size} are needed; "
                    "leave it out of the split, or try data.crop: resize"
                )
            pixels = source.read(list(range(1, bands + 1)))
            crs = source.crs.to_wkt() if source.crs else ""
            grid, column, row = source.transform, source.width / 2, source.height / 2
            center = (grid.c + grid.a * column + grid.b * row, grid.f + grid.d * column + grid.e * row)
    except (RasterioError, OSError) as error:
        cure = "truncated or not a GeoTIFF; fetch it again" if path.exists() else "no such file"
        raise DataError(f"{path}: cannot be read ({cure})") from error
    return RawPatch(pixels, crs, center)


def centers_to_lat_lon(patches: list[RawPatch], names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Latitude and longitude (degrees, EPSG:4326) of the patch centres, one projection per distinct CRS.

    Raises:
        DataError: naming the first patch without a usable georeference.
    """
    lat, lon = np.full(len(patches), np.nan), np.full(len(patches), np.nan)
    groups: dict[str, list[int]] = defaultdict(list)
    for index, patch in enumerate(patches):
        groups[patch.crs].append(index)
    for crs, members in groups.items():
        if crs:
            xs, ys = zip(*(patches[index].center for index in members), strict=True)
            try:
                lon[members], lat[members] = rasterio.warp.transform(crs, "EPSG:4326", xs, ys)
            except Exception as error:  # GDAL's own errors have no public class
                names_of_group = list_some(names[index] for index in members)
                raise DataError(f"{names_of_group}: cannot be placed on the globe ({error}); fetch again") from error
    lost = np.flatnonzero(~(np.isfinite(lat) & np.isfinite(lon)))
    if len(lost):
        raise DataError(
            f"{names[lost[0]]}: has no usable coordinate reference system, so its place is unknown; fetch it again"
        )
    return lat, lon
