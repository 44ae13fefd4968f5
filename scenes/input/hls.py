"""A folder of NASA's Harmonized Landsat Sentinel-2, Landsat's part (L30): the same bands of OLI in other numbers."""

import re
from pathlib import Path
from typing import NamedTuple

from scenes.input.grids import RasterFile, open_raster
from scenes.input.metadata import find_product_id
from scenes.input.virtual_files import shown
from utils.errors import DataError
from utils.sensors import HLS_L30, refusal, sensor_of_product

_FILE = re.compile(r"(?P<granule>HLS\..+)\.(?P<layer>\w+)\.tiff?", re.IGNORECASE)
FIX = "give a folder with B01..B07 and Fmask of one L30 granule"


class HlsFiles(NamedTuple):
    """What belongs to a granule."""

    granule: str
    bands: tuple[RasterFile, ...]
    """B01..B07."""
    fmask: RasterFile | None


def granules_of(names: list[str]) -> dict[str, dict[str, str]]:
    """Granule to layer (upper case) to file name, of both kinds."""
    found: dict[str, dict[str, str]] = {}
    for name in names:
        match = _FILE.fullmatch(name.rpartition("/")[2])
        granule = find_product_id(match["granule"]) if match else None
        if match and granule:
            found.setdefault(granule, {})[match["layer"].upper()] = name
    return found


def open_granule(granule: str, layers: dict[str, Path], where: Path) -> HlsFiles:
    """Open a granule.

    Args:
        granule: its id.
        layers: layer (upper case) to file.
        where: the folder, for messages.

    Raises:
        DataError: for a granule of Sentinel-2, missing bands, or files that are not HLS's.
    """
    if sensor_of_product(granule) is not HLS_L30:
        raise DataError(
            f"{shown(where)}: {granule} is Sentinel-2's part of HLS (S30): its bands are others than Landsat's; {FIX}"
        )
    if missing := [band for band in HLS_L30.bands if band not in layers]:
        listed = ", ".join(f"{granule}.{band}.tif" for band in missing)
        raise DataError(f"{shown(where)}: {listed} missing; fetch them again")
    bands = tuple(_with_fill(open_raster(layers[band])) for band in HLS_L30.bands)
    for band in bands:
        if (band.count, band.dtype) != (1, "int16"):
            raise DataError(
                f"{shown(band.path)}: holds {band.count} x {band.dtype}, a band of HLS is one of int16; "
                f"{refusal(HLS_L30)}; fetch it again"
            )
    fmask = open_raster(layers["FMASK"]) if "FMASK" in layers else None
    return HlsFiles(granule, bands, fmask)


def _with_fill(band: RasterFile) -> RasterFile:
    """The fill of the product, also where a rewritten file has lost its tag."""
    return band if band.nodata is not None else band._replace(nodata=float(HLS_L30.fill))
