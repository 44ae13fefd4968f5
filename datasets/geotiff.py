"""One reader for GeoTIFF patches: each file is opened once, coordinates are transformed once per CRS and batch.

Making a coordinate reference system out of a file's tags takes several times as long as all the rest of reading a
40 x 40 patch, and a dataset has a few dozen of them: files whose tags are alike share one.
"""

import struct
import warnings
from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio.warp
from rasterio.crs import CRS
from rasterio.enums import MaskFlags
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader, MemoryFile

from transformation.landsat_numbers import hidden_values
from utils.data_utils import list_some
from utils.errors import DataError
from utils.sensors import OLI, Sensor, misnamed

GDAL_OPTIONS: dict[str, Any] = {
    # Patches have no side-car files; looking for them would list a folder of half a million files at every open.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    # Uncompressed files are copied from the bytes in memory, without the block cache.
    "GTIFF_VIRTUAL_MEM_IO": "YES",
}

_KEY_TAGS = {34735: 2, 34736: 8, 34737: 1}
"""GeoKeyDirectory, GeoDoubleParams and GeoAsciiParams (OGC 19-008r4), and the bytes of one of their values."""

MOST_CRS = 4096
"""Remembered at once; a dataset has as many as it has map projections."""

_KNOWN_CRS: dict[bytes, str] = {}


# Where a place is needed, its absence is an error of ours that names the file.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)


class RawPatch(NamedTuple):
    """What one file holds."""

    pixels: np.ndarray
    """(C, H, W) uint16 Collection-2 Level-2 numbers; 0 in every band where the file hides a pixel."""
    crs: str
    """Coordinate reference system as WKT; empty where the file has none."""
    center: tuple[float, float]
    """Centre of the patch in that system."""


def read_patch(path: Path, file_bands: int, bands: int, min_size: int, sensor: Sensor = OLI) -> RawPatch:
    """Read the first `bands` bands of a patch, within `rasterio.Env(**GDAL_OPTIONS)`.

    Args:
        path: a GeoTIFF of unsigned 16-bit numbers.
        file_bands: how many bands the file must have.
        bands: how many of them are read.
        min_size: least height and width, pixels.
        sensor: whose bands and numbers the file must not contradict.

    Raises:
        DataError: one line naming the file and what is wrong with it.
    """
    return decode_patch(read_bytes(path), path, file_bands, bands, min_size, sensor)


def read_bytes(path: Path) -> bytes:
    """A whole file. Raises DataError naming it."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: cannot be read (no such file)") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def decode_patch(data: bytes, path: Path, file_bands: int, bands: int, min_size: int, sensor: Sensor = OLI) -> RawPatch:
    """As `read_patch`, of a file's bytes; `path` only names it."""
    try:
        with MemoryFile(data) as memory:
            crs = _shared_crs(data, memory)
            with _PixelReader(memory.name, driver="GTiff") as source:
                _require_form(source, path, file_bands, min_size)
                pixels = source.read(list(range(1, bands + 1)))
                _require_meaning(source, path, bands, sensor)
                if masked := _masks(source, bands):
                    pixels[:, hidden_values(pixels, None, masks=np.stack(masked))] = 0
                grid, column, row = source.transform, source.width / 2, source.height / 2
    except (RasterioError, CRSError, OSError) as error:
        raise DataError(f"{path}: cannot be read (truncated or not a GeoTIFF; fetch it again)") from error
    if grid.is_identity:
        crs = ""  # without a geotransform a map projection places nothing
    center = (grid.c + grid.a * column + grid.b * row, grid.f + grid.d * column + grid.e * row)
    return RawPatch(pixels, crs, center)


class _PixelReader(DatasetReader):
    """Opens a file without making its coordinate reference system."""

    def read_crs(self) -> None:
        """Called by rasterio at opening."""


def _require_form(source: DatasetReader, path: Path, file_bands: int, min_size: int) -> None:
    if source.count != file_bands:
        raise DataError(f"{path}: has {source.count} bands, expected {file_bands}; fetch it again or leave it out")
    if set(source.dtypes) != {"uint16"}:
        kinds = ", ".join(sorted(set(source.dtypes)))
        raise DataError(f"{path}: holds {kinds} values, expected uint16; give the stored Collection-2 numbers")
    if min(source.height, source.width) < min_size:
        raise DataError(
            f"{path}: is {source.height} x {source.width} pixels, at least {min_size} are needed; "
            "leave it out of the split, or try data.crop: resize"
        )


def _require_meaning(source: DatasetReader, path: Path, bands: int, sensor: Sensor) -> None:
    """Refuse a file that says of itself that its bands, or their scale, are others than the dataset's."""
    names = [name or "" for name in source.descriptions]
    for band, name in zip(sensor.bands, names[:bands], strict=False):
        if misnamed(names, band, name) if sensor is OLI else sensor.band(name) not in (None, band):
            raise DataError(f"{path}: calls its {band} {name}; write its bands as {sensor.listed}, in this order")
    for scaling in set(zip(source.scales[:bands], source.offsets[:bands], strict=True)) - {(1.0, 0.0)}:
        if not np.allclose(scaling, (sensor.scale, sensor.offset), rtol=1e-4):
            raise DataError(
                f"{path}: its tags say reflectance = value * {scaling[0]:g} + {scaling[1]:g}; give the stored "
                "Collection-2 numbers, or correct the tags"
            )


def _masks(source: DatasetReader, bands: int) -> list[np.ndarray]:
    """(H, W) bool of every band that nodata, a mask or transparency hides some of."""
    flags = source.mask_flag_enums[:bands]
    return [source.read_masks(at) == 0 for at, kinds in enumerate(flags, 1) if kinds != [MaskFlags.all_valid]]


def _shared_crs(data: bytes, memory: MemoryFile) -> str:
    """The file's coordinate reference system as WKT, made once for all files with the same tags."""
    tags = _crs_tags(data)
    if tags is None or tags not in _KNOWN_CRS:
        with DatasetReader(memory.name, driver="GTiff") as source:
            wkt = source.crs.to_wkt() if source.crs else ""
        if tags is None:
            return wkt
        if len(_KNOWN_CRS) >= MOST_CRS:
            _KNOWN_CRS.clear()
        _KNOWN_CRS[tags] = wkt
    return _KNOWN_CRS[tags]


def _crs_tags(data: bytes) -> bytes | None:
    """The GeoTIFF key tags of a TIFF as they stand in it; None where the form is another (BigTIFF, damaged)."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return None
    found = [data[:4]]
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        entries = data[start + 2 : start + 2 + 12 * count]
        for tag, _, number, field in struct.iter_unpack(f"{order}HHI4s", entries):
            if tag in _KEY_TAGS:
                size = number * _KEY_TAGS[tag]
                (at,) = struct.unpack(f"{order}I", field)
                found.append(struct.pack("<HI", tag, size) + (data[at : at + size] if size > 4 else field))
    except struct.error:
        return None
    return b"".join(found)


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
                lon[members], lat[members] = rasterio.warp.transform(_crs(crs), _crs("EPSG:4326"), xs, ys)[:2]
            except Exception as error:  # GDAL's own errors have no public class
                names_of_group = list_some(names[index] for index in members)
                raise DataError(f"{names_of_group}: cannot be placed on the globe ({error}); fetch again") from error
    lost = np.flatnonzero(~(np.isfinite(lat) & np.isfinite(lon)))
    if len(lost):
        raise DataError(
            f"{names[lost[0]]}: has no usable coordinate reference system with a geotransform, so its place is "
            "unknown; fetch it again"
        )
    return lat, lon


@lru_cache(maxsize=MOST_CRS)
def _crs(text: str) -> CRS:
    return CRS.from_user_input(text)
