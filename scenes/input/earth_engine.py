"""Exports of Earth Engine: one GeoTIFF with the collection's own band names, as stored or as reflectance.

`LANDSAT/LC08/C02/T1_L2` has SR_B1..SR_B7, QA_PIXEL and others; an export has those that were selected, all in one type.
The catalogue's own example scales them (`multiply(0.0000275).add(-0.2)`), and an export of that holds floats.
"""

from typing import NamedTuple

import numpy as np
import rasterio
from rasterio.errors import RasterioError

from scenes.input.grids import RasterFile
from scenes.input.virtual_files import GDAL_NETWORK, shown
from utils.errors import DataError
from utils.sensors import OLI

QUALITY = "QA_PIXEL"
LOOKED_AT = 256
"""Pixels along a side of the thinned band that shows in which numbers an export is."""
LARGEST_REFLECTANCE = 2.0
"""Ground and clouds are below; the least number of an image that is stored is some thousands."""
UNSCALED = (OLI.scale, OLI.offset)


class Export(NamedTuple):
    """Where an export has what a scene needs, counted from 1."""

    bands: tuple[int, ...]
    qa: int | None


def export_in(stack: RasterFile) -> Export | None:
    """The bands of an export; None for any other stack.

    An export has all of SR_B1..SR_B7 under these very names, and either QA_PIXEL beside them or another type than the
    product's: neither does a stack of the product's own files.
    """
    names = [(name or "").strip().upper() for name in stack.descriptions]
    if not set(OLI.bands) <= set(names) or any(names.count(name) > 1 for name in (*OLI.bands, QUALITY)):
        return None
    qa = names.index(QUALITY) + 1 if QUALITY in names else None
    if qa is None and (stack.dtype == "uint16" or len(names) != len(OLI.bands)):
        return None
    return Export(tuple(names.index(band) + 1 for band in OLI.bands), qa)


def scale_of(stack: RasterFile, export: Export) -> tuple[float, float] | None:
    """How an export's numbers become reflectance; None where they are the product's own, in its own type.

    Raises:
        DataError: when they are neither the product's numbers nor reflectance.
    """
    if stack.dtype == "uint16":
        return None
    low, high = _range(stack, export)
    if max(-low, high) <= LARGEST_REFLECTANCE:
        return (1.0, 0.0)
    if low >= 1 and high <= 65535:
        return UNSCALED
    raise DataError(
        f"{shown(stack.path)}: its numbers ({low:g} to {high:g}) are neither those of Collection-2 Level-2 nor "
        "reflectance; state how they are scaled (--scale A,B for reflectance = value * A + B)"
    )


def _range(stack: RasterFile, export: Export) -> tuple[float, float]:
    """The middle 98 % of the near infrared, what is masked (0, no number) left out; (0, 0) where nothing is there."""
    shape = tuple(min(LOOKED_AT, side) for side in (stack.height, stack.width))
    try:
        with rasterio.Env(**GDAL_NETWORK), rasterio.open(stack.path) as file:
            values = file.read(export.bands[OLI.common.index("nir08")], out_shape=shape).astype(np.float64)
    except (RasterioError, OSError) as error:
        raise DataError(f"{shown(stack.path)}: cannot be read (damaged or truncated); fetch it again") from error
    seen = np.isfinite(values) & (values != 0)
    if stack.nodata is not None:
        seen &= values != stack.nodata
    if not seen.any():
        return 0.0, 0.0
    low, high = np.percentile(values[seen], (1, 99))
    return float(low), float(high)
