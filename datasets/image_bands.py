"""Images of any bands: which of them are Landsat's seven, and their numbers in its units."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from utils.data_config import REFLECTANCE_OFFSET, REFLECTANCE_SCALE
from utils.errors import DataError
from utils.sensors import ETM, IGNORED, OLI, refusal

LABELLED_FOLDER = "labelled_folder"
"""A folder of any images, as `data.dataset` names it."""

TRAIN = "train"
"""`data.statistics` of this name are the training split's own."""

RGB = OLI.rgb_bands

LARGEST = 65535
"""Digital numbers (DN) are from 1 to this; 0 in every band is fill."""

PLAUSIBLE = 0.5
"""Share of an image's reflectances that have to be in Landsat's range."""


class ImageBands(NamedTuple):
    """What one file holds."""

    numbers: np.ndarray
    """(n, H, W), as they are in the file."""
    valid: np.ndarray
    """(H, W); False where the file says that there is nothing."""


def band_names(given: str | Sequence[str]) -> tuple[str, ...]:
    """The bands of a config: `RGB`, or a list of names and aliases.

    Raises:
        ValueError: with a sentence about what is wrong.
    """
    names = list(given) if isinstance(given, str) and re.fullmatch("[rgbRGB]{3}", given) else given
    if isinstance(names, str):
        names = [names]
    found = tuple(IGNORED if name.lower() == IGNORED else OLI.band(name) or "" for name in names)
    if strange := [name for name, band in zip(names, found, strict=True) if not band]:
        known = ", ".join([*OLI.bands, *OLI.common])
        raise ValueError(f"knows no {', '.join(map(repr, strange))}; there are {known}, and {IGNORED} for the rest")
    present = [band for band in found if band != IGNORED]
    if len(set(present)) < len(present) or not present:
        raise ValueError(f"names {'no band of the seven' if not present else 'a band twice'}")
    return found


def usual_bands(path: Path) -> tuple[str, ...]:
    """The bands of files that a config says nothing about: three are RGB, seven SR_B1..SR_B7."""
    with _opened(path) as source:
        count = len(_colour_bands(source))
    if count in (len(RGB), len(OLI.bands)):
        return RGB if count == len(RGB) else OLI.bands
    known = f"; {refusal(ETM)}" if count == len(ETM.bands) else ""
    raise DataError(
        f"{path}: has {count} bands{known}; say what they are with data.bands, for example [blue, green, red, nir], "
        f"and {IGNORED!r} for those that are none of Landsat's seven"
    )


def read_image(path: Path, bands: Sequence[str], min_side: int) -> ImageBands:
    """Read a file's bands but for transparency, within `rasterio.Env(**GDAL_OPTIONS)`.

    Args:
        path: a TIFF, PNG or JPEG.
        bands: as many as it has to have; they are named in errors.
        min_side: least height and width, pixels.

    Raises:
        DataError: one line naming the file and what is wrong with it.
    """
    with _opened(path) as source:
        indexes = _colour_bands(source)
        if len(indexes) != len(bands):
            raise DataError(
                f"{path}: has {len(indexes)} bands where {len(bands)} are expected ({', '.join(bands)}); "
                "set data.bands, or leave the image out of the split"
            )
        if min(source.height, source.width) < min_side:
            raise DataError(
                f"{path}: is {source.height} x {source.width} pixels, at least {min_side} are needed; leave it out of "
                "the split, or set data.crop: resize"
            )
        try:
            numbers, mask = source.read(indexes), source.dataset_mask()
        except RasterioError as error:
            raise DataError(f"{path}: cannot be read (truncated or damaged); fetch it again") from error
    return ImageBands(numbers, (mask != 0) & np.isfinite(numbers).all(axis=0))


def _opened(path: Path) -> DatasetReader:
    try:
        return rasterio.open(path)
    except RasterioError as error:
        raise DataError(f"{path}: is not a readable image (TIFF, PNG or JPEG); fetch it again") from error


def _colour_bands(source: DatasetReader) -> list[int]:
    """Numbers of the bands that are no transparency."""
    if ColorInterp.palette in source.colorinterp:
        raise DataError(f"{source.name}: is a picture with a palette; save it as RGB")
    kinds = zip(source.indexes, source.colorinterp, strict=True)
    return [index for index, kind in kinds if kind != ColorInterp.alpha]


def landsat_numbers(image: ImageBands, scale: float, offset: float, path: Path) -> np.ndarray:
    """Reflectances (number * scale + offset) as Landsat stores them (Collection 2, Level 2): (n, H, W) float32.

    Raises:
        DataError: naming the file, when most of them are none.
    """
    reflectance = image.numbers.astype(np.float64) * scale + offset
    values = (reflectance - REFLECTANCE_OFFSET) / REFLECTANCE_SCALE
    inside = (values >= 0) & (values <= LARGEST)
    if image.valid.any() and inside[:, image.valid].mean() < PLAUSIBLE:
        low, high = np.quantile(reflectance[:, image.valid], [0.05, 0.95])
        raise DataError(
            f"{path}: data.scale {scale:g} and data.offset {offset:g} give reflectances of {low:.3g} to {high:.3g}, "
            "where 0 to 1 are expected; correct them"
        )
    return np.nan_to_num(values).astype(np.float32)
