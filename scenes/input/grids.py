"""Raster files and the one grid that all files of a scene share: 30 m on the ground, north up."""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import rasterio
import rasterio.warp
from rasterio.crs import CRS
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from scenes.input.virtual_files import GDAL_NETWORK, is_file, plain_name, shown
from utils.errors import DataError

SPACING = 30.0
"""Metres between pixels of the patches that the model is trained on."""
SPACING_TOLERANCE = 1e-3
"""Share by which a file's spacing may differ: rounding, not another product."""
GROUND_TOLERANCE = 0.03
"""Share by which the spacing on the ground may differ: what UTM (0.2 %), Albers and polar grids stretch."""
SAME_PLACE = 0.01
"""Pixels by which corners of one grid may differ: software that writes a file anew rounds its numbers."""
GRID_MAPPING = "spatial_ref"
"""Name of the variable that holds the map projection, as rioxarray and GDAL look for it."""
EQUATOR, FLATTENING = 6_378_137.0, 1 / 298.257223563
"""Of the WGS 84 ellipsoid, metres."""
MERCATORS = ("merc", "webmerc")
"""Projections, as PROJ names them, whose metre is one of the ground at the equator only."""

# What a file without a geotransform means is said in a scene's notes.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)


class RasterFile(NamedTuple):
    """One band of a GeoTIFF, and what its file says."""

    path: Path
    band: int
    """Counted from 1."""
    count: int
    dtype: str
    nodata: float | None
    descriptions: tuple[str | None, ...]
    """Of all bands of the file."""
    crs: CRS | None
    transform: rasterio.Affine
    height: int
    width: int
    masked: bool = False
    """Whether a mask of its own (internal, beside the file, or transparency) hides some of the band."""
    scaling: tuple[float, float] = (1.0, 0.0)
    """Scale and offset that the file states; (1, 0) where it states none."""
    tags: tuple[tuple[str, str], ...] = ()
    """Of the file."""

    @property
    def name(self) -> str | None:
        """What the file calls this band."""
        return self.descriptions[self.band - 1]


class Gridded(Protocol):
    """Anything that says where its pixels lie."""

    @property
    def crs(self) -> CRS | None: ...
    @property
    def transform(self) -> rasterio.Affine: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...


class SceneGrid(NamedTuple):
    """Where a scene's pixels lie."""

    crs: CRS | None
    """None where the place is not known: without a geotransform a map projection places nothing."""
    transform: rasterio.Affine
    height: int
    width: int

    @property
    def georeferenced(self) -> bool:
        return not self.transform.is_identity


def cell_centres(transform: rasterio.Affine, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(height,) and (width,) coordinates of the middles of rows and columns, north up."""
    return (
        transform.f + transform.e * (np.arange(height) + 0.5),
        transform.c + transform.a * (np.arange(width) + 0.5),
    )


def grid_mapping(crs: CRS | None, transform: rasterio.Affine) -> dict[str, str]:
    """What the conventions of CF, rioxarray and GDAL read of the variable `GRID_MAPPING`."""
    place = {"GeoTransform": " ".join(map(str, transform.to_gdal()))}
    if crs is None:
        return place
    wkt = crs.to_wkt()
    return {"crs_wkt": wkt, GRID_MAPPING: wkt, **place}


def open_raster(path: Path, band: int = 1) -> RasterFile:
    """One band of a file, which has to have so many. Raises DataError naming it."""
    return open_bands(path, (band,))[0]


def open_bands(path: Path, numbers: Sequence[int]) -> tuple[RasterFile, ...]:
    """Several bands of a file, which has to have so many. Raises DataError naming it."""
    if not is_file(path):
        raise DataError(f"{shown(path)}: no such file; check the path")
    try:
        with rasterio.Env(**GDAL_NETWORK), rasterio.open(path) as file:
            return tuple(_band_of(file, path, number) for number in numbers)
    except (RasterioError, OSError) as error:
        raise DataError(f"{shown(path)}: cannot be read (truncated or no GeoTIFF); fetch it again") from error


def _band_of(file: DatasetReader, path: Path, band: int) -> RasterFile:
    at = band - 1
    return RasterFile(
        path,
        band,
        file.count,
        file.dtypes[at],
        file.nodatavals[at],
        file.descriptions,
        file.crs or None,
        file.transform,
        file.height,
        file.width,
        masked=bool({MaskFlags.per_dataset, MaskFlags.alpha} & set(file.mask_flag_enums[at])),
        scaling=(file.scales[at], file.offsets[at]),
        tags=tuple(file.tags().items()),
    )


def scene_grid(first: RasterFile) -> SceneGrid:
    """The grid of a scene's first band. Raises DataError as `checked_grid` does, naming the file."""
    if first.transform.is_identity:
        return SceneGrid(None, first.transform, first.height, first.width)
    return checked_grid(first, shown(first.path), f"reproject it first: {_warp_line(first)}")


def checked_grid(first: Gridded, where: str, fix: str) -> SceneGrid:
    """The grid of pixels that the model can take as they lie.

    Args:
        first: a georeferenced grid.
        where, fix: for messages: what is of this grid, and how to reproject it.

    Raises:
        DataError: degrees, another spacing on the ground than 30 m, rotated or south-up.
    """
    crs, grid = first.crs, first.transform
    if crs is not None and crs.is_geographic:
        raise DataError(f"{where}: its grid is in degrees, the model knows 30 m; {fix}")
    if grid.b or grid.d or grid.a <= 0 or grid.e >= 0:
        raise DataError(f"{where}: its grid is rotated or not north up; {fix}")
    factor = crs.linear_units_factor[1] if crs is not None else 1.0
    ground = ground_spacing(first)
    if crs is not None and crs.to_dict().get("proj") in MERCATORS:
        told = f" ({ground[0]:.1f} m here)" if ground else ""
        raise DataError(
            f"{where}: its grid is Mercator's, whose pixels of {grid.a * factor:g} m are smaller on the "
            f"ground{told}; the model knows 30 m; {fix}"
        )
    for size in (grid.a * factor, -grid.e * factor):
        if abs(size - SPACING) > SPACING_TOLERANCE * SPACING:
            raise DataError(f"{where}: its pixels are {size:g} m wide, the model knows 30 m; {fix}")
    for size in ground or ():
        if abs(size - SPACING) > GROUND_TOLERANCE * SPACING:
            raise DataError(
                f"{where}: its pixels are {size:.1f} m wide on the ground, which its map projection "
                f"stretches to 30 m; {fix}"
            )
    return SceneGrid(crs, grid, first.height, first.width)


def ground_spacing(file: Gridded) -> tuple[float, float] | None:
    """Metres of ground along a row and a column of the middle pixel; None where the place is not known."""
    points = [(0, 0), (1, 0), (0, 1)]
    columns = [file.width / 2 + across for across, _ in points]
    rows = [file.height / 2 + down for _, down in points]
    places = _degrees(file, columns, rows)
    if places is None:
        return None
    lat, lon = np.radians(places)
    square = FLATTENING * (2 - FLATTENING)
    curvature = 1 - square * math.sin(lat[0]) ** 2
    north = EQUATOR * (1 - square) / curvature**1.5 * (lat[1:] - lat[0])
    turned = (lon[1:] - lon[0] + math.pi) % (2 * math.pi) - math.pi
    east = EQUATOR / math.sqrt(curvature) * math.cos(lat[0]) * turned
    across, down = np.hypot(north, east).tolist()
    return across, down


def _degrees(file: Gridded, columns: list[float], rows: list[float]) -> np.ndarray | None:
    """(2, n) latitude and longitude of pixels; None where they are not known."""
    if file.crs is None or file.transform.is_identity:
        return None
    places = [_at(file.transform, *point) for point in zip(columns, rows, strict=True)]
    try:
        lon, lat = rasterio.warp.transform(file.crs, CRS.from_epsg(4326), *map(list, zip(*places, strict=True)))[:2]
    except Exception:  # GDAL's own errors have no public class
        return None
    found = np.array([lat, lon])
    return found if np.isfinite(found).all() else None


def _at(transform: rasterio.Affine, x: float, y: float) -> tuple[float, float]:
    """A point put through a transform, which the versions of its package write with different operators."""
    return transform.a * x + transform.b * y + transform.c, transform.d * x + transform.e * y + transform.f


def _warp_line(file: RasterFile) -> str:
    """The command that brings a file onto its UTM zone's grid."""
    zone = "EPSG:326NN"
    note = " (NN: the UTM zone)"
    if (places := _degrees(file, [file.width / 2], [file.height / 2])) is not None:
        (lat,), (lon,) = places
        zone, note = f"EPSG:{326 if lat >= 0 else 327}{int((lon + 180) // 6) % 60 + 1:02d}", ""
    return f"gdalwarp -t_srs {zone} -tr 30 30 -r near {plain_name(file.path)} utm.tif{note}"


def difference(one: Gridded, two: Gridded) -> str | None:
    """What differs between two grids, in words; None where their pixels lie on each other."""
    if (one.height, one.width) != (two.height, two.width):
        return "size"
    if not same_crs(one.crs, two.crs):
        return "coordinate reference system"
    for corner in ((0, 0), (one.width, 0), (0, one.height)):
        column, row = _at(~one.transform, *_at(two.transform, *corner))
        if max(abs(column - corner[0]), abs(row - corner[1])) > SAME_PLACE:
            return "georeference"
    return None


def same_crs(one: CRS | None, two: CRS | None) -> bool:
    """Whether two are one system, in whichever words their files describe it."""
    if one is None or two is None or one == two:
        return one == two
    codes = one.to_epsg(), two.to_epsg()
    return codes[0] is not None and codes[0] == codes[1]


def check_same_grid(first: RasterFile, other: RasterFile) -> None:
    """Refuse a file on another grid than the first one's. Raises DataError naming both."""
    if what := difference(first, other):
        raise DataError(
            f"{shown(other.path)}: its {what} differs from that of {plain_name(first.path)}; give files of one grid"
        )
