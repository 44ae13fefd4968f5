"""Exports of Earth Engine: one GeoTIFF with the collection's own band names, as stored or as reflectance.

`LANDSAT/LC08/C02/T1_L2` has SR_B1..SR_B7, QA_PIXEL and others; an export has those that were selected, all in one type.
The catalogue's own example scales them (`multiply(0.0000275).add(-0.2)`), and an export of that holds floats.
"""

import re
from collections.abc import Sequence

import numpy as np
import rasterio
from rasterio.errors import RasterioError

from scenes.input.grids import RasterFile
from scenes.input.virtual_files import GDAL_NETWORK, shown
from transformation.landsat_numbers import COLLECTION2, LARGEST, reflectance_as_numbers
from utils.errors import DataError
from utils.sensors import OLI, Sensor

_SURFACE = re.compile(r"SR_B\d", re.IGNORECASE)
LOOKED_AT = 256
"""Pixels along a side of the thinned band that shows in which numbers an export is."""
LARGEST_REFLECTANCE = 2.0
"""Ground and clouds are below; the least number of an image that is stored is some thousands."""
DARKEST = float(reflectance_as_numbers(np.array(-0.02)))
"""Less than half of the near infrared is darker, water's neither; that of reflectance * 10,000 is, snow apart."""


def exported_bands(
    names: Sequence[str], quality: Sequence[int], dtype: str, sensor: Sensor = OLI
) -> tuple[int, ...] | None:
    """Which bands of an export are the sensor's, counted from 1; None for any other stack.

    An export has each of the sensor's bands once under these very names, after an image's number or before a reducer's
    suffix as well, and either QA_PIXEL beside them or another type than the product's: neither does a stack of the
    product's own files.

    Args:
        names: of all bands.
        quality: which of them are QA_PIXEL, counted from 1.
        dtype: of the bands.
        sensor: whose they are.
    """
    own = [sensor.band(name) if _SURFACE.search(name) else None for name in names]
    if any(own.count(band) != 1 for band in sensor.bands) or len(quality) > 1:
        return None
    if not quality and (dtype == "uint16" or len(names) != len(sensor.bands)):
        return None
    return tuple(own.index(band) + 1 for band in sensor.bands)


def scale_of(bands: Sequence[RasterFile], sensor: Sensor = OLI) -> tuple[float, float] | None:
    """How an export's numbers become reflectance; None where they are the product's own, or the file's tags say it.

    Raises:
        DataError: when they are neither the product's numbers nor reflectance.
    """
    near_infrared = bands[sensor.common.index("nir08")]
    if near_infrared.dtype == "uint16" or any(band.scaling != (1.0, 0.0) for band in bands):
        return None
    low, middle, high = _range(near_infrared)
    if max(-low, high) <= LARGEST_REFLECTANCE:
        return (1.0, 0.0)
    if low >= 1 and middle >= DARKEST and high <= LARGEST:
        return COLLECTION2
    raise DataError(
        f"{shown(near_infrared.path)}: its numbers ({low:g} to {high:g}) are neither those of Collection-2 Level-2 nor "
        "reflectance; state how they are scaled (--scale A,B for reflectance = value * A + B)"
    )


def _range(band: RasterFile) -> tuple[float, float, float]:
    """Percentiles 1, 50 and 99 of a thinned band without what is masked (0, no number); 0 where nothing is there."""
    shape = tuple(min(LOOKED_AT, side) for side in (band.height, band.width))
    try:
        with rasterio.Env(**GDAL_NETWORK), rasterio.open(band.path) as file:
            values = file.read(band.band, out_shape=shape).astype(np.float64)
            seen = file.read_masks(band.band, out_shape=shape) > 0
    except (RasterioError, OSError) as error:
        raise DataError(f"{shown(band.path)}: cannot be read (damaged or truncated); fetch it again") from error
    seen &= np.isfinite(values) & (values != 0)
    if not seen.any():
        return 0.0, 0.0, 0.0
    low, middle, high = np.percentile(values[seen], (1, 50, 99)).tolist()
    return low, middle, high
