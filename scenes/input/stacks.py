"""The bands of a stacked GeoTIFF: what it calls them, what the user asks for, and whether both agree."""

import re
from typing import NamedTuple

from scenes.input.earth_engine import exported_bands
from scenes.input.grids import RasterFile, open_bands, open_raster
from scenes.input.metadata import LEVEL2_FIX
from scenes.input.virtual_files import shown
from utils.errors import ConfigError, DataError
from utils.sensors import (
    OLI,
    misnamed,
    nearest_sentinel2,
    other_than_landsat,
    plain_name,
    refusal,
    refusal_of_said,
    sensor_with_bands,
)

QA_PIXEL = "QA_PIXEL"
_SENSOR_TAGS = re.compile(
    r"(?:spacecraft|platform|satellite|sensor|constellation|mission)(?:_id|_name)?", re.IGNORECASE
)
"""Tags of a GeoTIFF that name what took it."""
_HLS_NAME = re.compile(r"B0\d", re.IGNORECASE)
"""As HLS and Sentinel-2 write bands, and USGS does not."""


class StackBands(NamedTuple):
    """What a stack has of a scene."""

    bands: tuple[RasterFile, ...]
    """SR_B1..SR_B7."""
    qa: RasterFile | None
    """The band that is called QA_PIXEL."""
    exported: bool
    """Whether it is an export of Earth Engine, whose type does not say how its numbers are scaled."""


def stack_bands(stack: RasterFile, chosen: tuple[int, ...] | None) -> StackBands:
    """SR_B1..SR_B7 of a stack, and its QA_PIXEL where a band of it is called so.

    Raises:
        DataError: for bands of another sensor, number or order, or a choice that contradicts the names.
        ConfigError: when `chosen` is no choice of seven.
    """
    for name, text in stack.tags:
        if _SENSOR_TAGS.fullmatch(name) and (why := refusal_of_said(text)):
            raise DataError(f"{shown(stack.path)}: its tag {name} says {text}: {why}; {LEVEL2_FIX}")
    names = [name or "" for name in stack.descriptions]
    quality = [number for number, name in enumerate(names, 1) if plain_name(name).upper() == QA_PIXEL]
    exported = exported_bands(names, quality, stack.dtype) if chosen is None else None
    if exported:
        chosen = exported
    elif chosen is None:
        rest = [name for number, name in enumerate(names, 1) if number not in quality]
        _require_names(stack, names, rest)
        chosen = tuple(number for number in range(1, stack.count + 1) if number not in quality)
    else:
        _require_choice(stack, chosen)
        _require_agreement(stack, names, chosen)
    bands = open_bands(stack.path, chosen)
    return StackBands(bands, open_raster(stack.path, quality[0]) if quality else None, exported is not None)


def _require_choice(stack: RasterFile, chosen: tuple[int, ...]) -> None:
    present = set(range(1, stack.count + 1))
    if len(chosen) != len(OLI.bands) or len(set(chosen)) != len(chosen) or not set(chosen) <= present:
        listed = ",".join(map(str, chosen))
        raise ConfigError(f"--bands {listed}: give seven different numbers from 1 to {stack.count}, for SR_B1..SR_B7")


def _require_agreement(stack: RasterFile, names: list[str], chosen: tuple[int, ...]) -> None:
    """Refuse a choice that takes a band for another one than the file says."""
    for number, band in zip(chosen, OLI.bands, strict=True):
        name = names[number - 1]
        if misnamed(names, band, name):
            raise DataError(
                f"{shown(stack.path)}: --bands takes band {number} for {band} "
                f"({OLI.common[OLI.bands.index(band)]}), the file calls it {name}; {_order_fix(names)}"
            )


def _require_names(stack: RasterFile, names: list[str], rest: list[str]) -> None:
    """Refuse a stack of another number or order of bands; bands without names pass.

    Args:
        stack: for its path.
        names: of all bands.
        rest: of those that are not QA_PIXEL.
    """
    if other_than_landsat(names):
        raise DataError(
            f"{shown(stack.path)}: its bands are Sentinel-2's ({', '.join(names)}), not Landsat's; {_order_fix(names)}"
        )
    other = sensor_with_bands([name for name in names if name])
    if other is not None:
        raise DataError(f"{shown(stack.path)}: {refusal(other)}; {LEVEL2_FIX}")
    if len(rest) != len(OLI.bands):
        raise DataError(
            f"{shown(stack.path)}: has {len(rest)} bands, expected {len(OLI.bands)}: SR_B1..SR_B7 of Landsat 8 or 9; "
            f"{_order_fix(names)}"
        )
    found = [OLI.band(name) for name in rest]
    if any(found) and found != list(OLI.bands):
        listed = ", ".join(name or "unnamed" for name in rest)
        raise DataError(
            f"{shown(stack.path)}: its bands are {listed}, expected SR_B1..SR_B7 in order; {_order_fix(names)}"
        )


def _order_fix(names: list[str]) -> str:
    """The choice that the names allow. Of Sentinel-2's bands red edge is never near infrared."""
    if other_than_landsat(names):
        nearest = nearest_sentinel2(names)
        if nearest is None:
            return "it lacks some that lie near SR_B1..SR_B7 (B01, B02, B03, B04, B8A, B11, B12); give Landsat's"
        numbers = ",".join(str(place + 1) for place in nearest)
        return f"those nearest to SR_B1..SR_B7 are --bands {numbers}, with the --scale of its numbers"
    found = [OLI.band(name) for name in names]
    if all(found.count(band) == 1 for band in OLI.bands):
        return f"give --bands {','.join(str(found.index(band) + 1) for band in OLI.bands)}"
    return "give --bands N,… of its SR_B1..SR_B7"


def naming_notes(bands: tuple[RasterFile, ...]) -> list[str]:
    """What a stack's names leave open, one line each."""
    listed, names = ", ".join(str(band.band) for band in bands), [band.name or "" for band in bands]
    if not any(OLI.band(name) for name in names):
        named = ", ".join(filter(None, bands[0].descriptions))
        why = f"names its bands in a way not known here ({named})" if named else "does not name its bands"
        return [f"the file {why}: {listed} are taken to be SR_B1..SR_B7"]
    if all(_HLS_NAME.fullmatch(plain_name(name)) for name in names):
        return [
            f"the file calls its bands {names[0]}..{names[-1]}: they are taken for Landsat's, as in HLS L30; in "
            "Sentinel-2 and HLS S30, B05 to B07 are red edge"
        ]
    return []
