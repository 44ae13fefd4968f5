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

from transformation.landsat_numbers import Scale, hidden_values, implausible
from utils.errors import DataError
from utils.sensors import ETM, IGNORED, OLI, Sensor, misnamed, nearest_sentinel2, other_than_landsat

LABELLED_FOLDER = "labelled_folder"
"""A folder of any images, as `data.dataset` names it."""

TRAIN = "train"
"""`data.statistics` of this name are the training split's own."""

RGB = OLI.rgb_bands


class ImageBands(NamedTuple):
    """What one file holds."""

    numbers: np.ndarray
    """(n, H, W), as they are in the file."""
    nodata: tuple[float | None, ...]
    """Of every band."""
    masks: np.ndarray
    """(n, H, W) bool; True where the file says that there is nothing."""


def band_names(given: str | Sequence[str], sensor: Sensor = OLI) -> tuple[str, ...]:
    """The bands of a config, `RGB`, or a list of names and aliases, as the bands of OLI that see the same.

    Args:
        given: as the sensor or catalogues name them.
        sensor: whose numbers they are.

    Raises:
        ValueError: with a sentence about what is wrong.
    """
    names = list(given) if isinstance(given, str) and re.fullmatch("[rgbRGB]{3}", given) else given
    if isinstance(names, str):
        names = [names]
    found = tuple(IGNORED if name.lower() == IGNORED else sensor.oli_band(name) or "" for name in names)
    if strange := [name for name, band in zip(names, found, strict=True) if not band]:
        known = ", ".join([*sensor.bands, *sensor.common])
        raise ValueError(f"knows no {', '.join(map(repr, strange))}; there are {known}, and {IGNORED} for the rest")
    present = [band for band in found if band != IGNORED]
    if len(set(present)) < len(present) or not present:
        raise ValueError(f"names {'no band of the seven' if not present else 'a band twice'}")
    return found


def usual_bands(path: Path, sensor: Sensor = OLI) -> tuple[str, ...]:
    """The bands of files that a config says nothing about: as files call them, else three are RGB, or all the sensor's.

    Args:
        path: of one of the files.
        sensor: that took them.

    Raises:
        DataError: for other numbers of bands without names, bands of Sentinel-2, and a band named twice.
    """
    with _opened(path) as source:
        indexes = _colour_bands(source)
        names = [source.descriptions[index - 1] or "" for index in indexes]
    if other_than_landsat(names):
        nearest = nearest_sentinel2(names)
        listed = (
            [OLI.common[nearest.index(at)] if at in nearest else IGNORED for at in range(len(names))] if nearest else []
        )
        fix = f": for those nearest to Landsat's [{', '.join(listed)}]" if listed else ""
        raise DataError(
            f"{path}: its bands are Sentinel-2's ({', '.join(names)}); say what to take with data.bands{fix}"
        )
    found = [sensor.oli_band(name) for name in names]
    if any(found):
        twice = [band for band in found if band and found.count(band) > 1]
        if twice:
            raise DataError(f"{path}: names {twice[0]} twice ({', '.join(names)}); say what they are with data.bands")
        return tuple(band or IGNORED for band in found)
    count = len(names)
    if count in (len(RGB), len(sensor.bands)):
        return RGB if count == len(RGB) else band_names(sensor.common)
    known = f"; those of Landsat 4, 5 or 7: data.sensor: {ETM.name}" if count == len(ETM.bands) else ""
    raise DataError(
        f"{path}: has {count} bands{known}; say what they are with data.bands, for example [blue, green, red, nir], "
        f"and {IGNORED!r} for those that are none of Landsat's seven"
    )


def stated_scale(path: Path) -> Scale | None:
    """The scale and offset that a file's tags state for its bands; None where they state none.

    Raises:
        DataError: where the bands differ.
    """
    with _opened(path) as source:
        found = {(source.scales[index - 1], source.offsets[index - 1]) for index in _colour_bands(source)}
    if len(found) > 1:
        raise DataError(f"{path}: its bands state several scales ({sorted(found)}); set data.scale and data.offset")
    return next(iter(found - {(1.0, 0.0)}), None)


def stored_type(path: Path) -> str:
    """The type of a file's numbers, such as uint16."""
    with _opened(path) as source:
        return source.dtypes[0]


def read_image(path: Path, bands: Sequence[str], min_side: int, sensor: Sensor = OLI) -> ImageBands:
    """Read a file's bands but for transparency, within `rasterio.Env(**GDAL_OPTIONS)`.

    Args:
        path: a TIFF, PNG or JPEG.
        bands: as many as it has to have; they are named in errors.
        min_side: least height and width, pixels.
        sensor: as whose the file may name its bands.

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
        _require_agreement(path, bands, [source.descriptions[index - 1] or "" for index in indexes], sensor)
        try:
            numbers, masks = source.read(indexes), source.read_masks(indexes) == 0
        except RasterioError as error:
            raise DataError(f"{path}: cannot be read (truncated or damaged); fetch it again") from error
        return ImageBands(numbers, tuple(source.nodatavals[index - 1] for index in indexes), masks)


def _require_agreement(path: Path, bands: Sequence[str], names: list[str], sensor: Sensor) -> None:
    """Refuse a file that calls a band otherwise than it is taken for."""
    for band, name in zip(bands, names, strict=True):
        if band != IGNORED and misnamed(names, band, name, sensor):
            raise DataError(
                f"{path}: data.bands takes a band for {band} ({OLI.common[OLI.bands.index(band)]}) that the file calls "
                f"{name}; correct data.bands, or leave it out"
            )


def _opened(path: Path) -> DatasetReader:
    try:
        return rasterio.open(path)
    except UnicodeEncodeError as error:
        raise DataError(f"{path}: its name is no text in UTF-8; rename it") from error
    except RasterioError as error:
        raise DataError(f"{path}: is not a readable image (TIFF, PNG or JPEG); fetch it again") from error


def _colour_bands(source: DatasetReader) -> list[int]:
    """Numbers of the bands that are no transparency."""
    if ColorInterp.palette in source.colorinterp:
        raise DataError(f"{source.name}: is a picture with a palette; save it as RGB")
    kinds = zip(source.indexes, source.colorinterp, strict=True)
    return [index for index, kind in kinds if kind != ColorInterp.alpha]


def hidden_of(image: ImageBands, bands: Sequence[str], scale: Scale | None, path: Path) -> np.ndarray:
    """(H, W) bool: what an image hides in any band that is taken.

    Args:
        image: as read.
        bands: what its bands are taken for; those that are ignored hide nothing.
        scale: of its numbers; None where they have no reflectance.
        path: for the message.

    Raises:
        DataError: naming the file, when most reflectances are none.
    """
    taken = [at for at, band in enumerate(bands) if band != IGNORED]
    numbers, nodata = image.numbers[taken], [image.nodata[at] for at in taken]
    hidden = hidden_values(numbers, None, nodata=nodata, masks=image.masks[taken])
    if scale is None:
        return hidden
    if found := implausible(numbers[:, ~hidden], scale):
        raise DataError(
            f"{path}: data.scale {scale[0]:g} and data.offset {scale[1]:g} give reflectances of {found[0]:.3g} to "
            f"{found[1]:.3g}, where 0 to 1 are expected; correct them"
        )
    return hidden | hidden_values(numbers, scale)
