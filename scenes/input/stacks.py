"""The bands of a stacked GeoTIFF: what it calls them, what the user asks for, and whether both agree."""

import re
from typing import NamedTuple

from scenes.input.earth_engine import exported_bands
from scenes.input.grids import RasterFile, open_bands, open_raster
from scenes.input.metadata import LEVEL2_FIX, agreed_sensor, sensor_in_words
from scenes.input.virtual_files import shown
from utils.errors import ConfigError, DataError
from utils.sensors import (
    ETM,
    IGNORED,
    OLI,
    SENSORS,
    UNSTATED,
    Sensor,
    misnamed,
    nearest_sentinel2,
    other_than_landsat,
    plain_name,
    sensor_with_bands,
)

QA_PIXEL = "QA_PIXEL"
BandChoice = tuple[int, ...] | tuple[str, ...]
"""Numbers of the sensor's bands, counted from 1, or names of all bands of a file."""
NAME_SENSOR = "if they are theirs, say which: --sensor tm or --sensor etm"
_SENSOR_TAGS = re.compile(
    r"(?:spacecraft|platform|satellite|sensor|constellation|mission)(?:_id|_name)?", re.IGNORECASE
)
"""Tags of a GeoTIFF that name what took it."""
_HLS_NAME = re.compile(r"B0\d", re.IGNORECASE)
"""As HLS and Sentinel-2 write bands, and USGS does not."""
_SURFACE = re.compile(r"SR_B\d", re.IGNORECASE)


class StackBands(NamedTuple):
    """What a stack has of a scene."""

    bands: tuple[RasterFile, ...]
    """Those of the sensor, in its order."""
    qa: RasterFile | None
    """The band that is called QA_PIXEL."""
    exported: bool
    """Whether it is an export of Earth Engine, whose type does not say how its numbers are scaled."""
    sensor: Sensor


def sensor_of_tags(stack: RasterFile) -> Sensor | None:
    """The sensor that a stack's tags name.

    Raises:
        DataError: for one that the model does not know.
    """
    where = shown(stack.path)
    said = {
        f"its tag {name} says": sensor_in_words(text, where, f"its tag {name} says")
        for name, text in stack.tags
        if _SENSOR_TAGS.fullmatch(name)
    }
    return agreed_sensor(said, where)


def stack_bands(stack: RasterFile, chosen: BandChoice | None, known: Sensor | None) -> StackBands:
    """The sensor's bands of a stack, and its QA_PIXEL where a band of it is called so.

    Args:
        stack: the file.
        chosen: see `BandChoice`; None: what the file says.
        known: the sensor, as user, name or tags of the file say; None where nothing does.

    Raises:
        DataError: for bands of another sensor, number or order, or a choice that contradicts the names.
        ConfigError: when `chosen` is no choice of the sensor's bands.
    """
    names = [name or "" for name in stack.descriptions]
    quality = [number for number, name in enumerate(names, 1) if plain_name(name).upper() == QA_PIXEL]
    exported = None
    if chosen is None:
        rest = [name for number, name in enumerate(names, 1) if number not in quality]
        sensor = known or _sensor_of_names(stack, names)
        exported = exported_bands(names, quality, stack.dtype, sensor)
        if not exported:
            _require_names(stack, names, rest, sensor)
        numbers = exported or tuple(number for number in range(1, stack.count + 1) if number not in quality)
    else:
        sensor, numbers = _chosen(stack, chosen, known)
        _require_agreement(stack, names, numbers, sensor)
    bands = open_bands(stack.path, numbers)
    qa = open_raster(stack.path, quality[0]) if quality else None
    return StackBands(bands, qa, exported is not None, sensor)


def _chosen(stack: RasterFile, chosen: BandChoice, known: Sensor | None) -> tuple[Sensor, tuple[int, ...]]:
    """The sensor, and its bands in its order, that a choice means."""
    numbers = tuple(number for number in chosen if isinstance(number, int))
    if len(numbers) == len(chosen):
        sensor = known or OLI
        _require_numbers(stack, numbers, sensor)
        return sensor, numbers
    names = [str(name) for name in chosen]
    if len(names) != stack.count:
        raise ConfigError(
            f"--bands {','.join(names)}: {len(names)} names, {shown(stack.path)} has {stack.count} bands; name all, in "
            f"their order, and {IGNORED} for those that are not to be taken"
        )
    sensor = known or UNSTATED
    found = [None if other_than_landsat(names) else sensor.band(name) for name in names]
    for name, band in zip(names, found, strict=True):
        if (band is None and name.lower() not in (IGNORED, QA_PIXEL.lower())) or (band and found.count(band) > 1):
            problem = "named twice" if band else f"none of {sensor.title}"
            raise ConfigError(
                f"--bands: {name} is {problem}; names are {', '.join(sensor.common)}, and {IGNORED} for any other band"
            )
    sensor = sensor.only([sensor.common[sensor.bands.index(band)] for band in found if band])
    if not sensor.bands:
        raise ConfigError(f"--bands {','.join(names)}: names none of {', '.join(OLI.common)}")
    if sensor == UNSTATED:  # all seven: only OLI has them
        sensor = OLI
    return sensor, tuple(found.index(band) + 1 for band in sensor.bands)


def _require_numbers(stack: RasterFile, chosen: tuple[int, ...], sensor: Sensor) -> None:
    present = set(range(1, stack.count + 1))
    if len(chosen) != len(sensor.bands) or len(set(chosen)) != len(chosen) or not set(chosen) <= present:
        listed, many = ",".join(map(str, chosen)), {6: "six", 7: "seven"}[len(sensor.bands)]
        raise ConfigError(
            f"--bands {listed}: give {many} different numbers from 1 to {stack.count}, for {sensor.listed}; or name "
            "all bands of the file"
        )


def _require_agreement(stack: RasterFile, names: list[str], chosen: tuple[int, ...], sensor: Sensor) -> None:
    """Refuse a choice that takes a band for another one than the file says."""
    whole = SENSORS.get(sensor.name, OLI)
    for number, band, common in zip(chosen, sensor.bands, sensor.common, strict=True):
        name = names[number - 1]
        if misnamed(names, OLI.bands[OLI.common.index(common)], name, whole):
            raise DataError(
                f"{shown(stack.path)}: --bands takes band {number} for {band} ({common}), the file calls it {name}; "
                f"{_order_fix(names, sensor)}"
            )


def _sensor_of_names(stack: RasterFile, names: list[str]) -> Sensor:
    """The sensor of a stack that nothing else names: OLI, unless its bands are called as those of TM and ETM+ alone.

    Raises:
        DataError: for names that are of OLI without a band, or of TM and ETM+, and mean other bands in each.
    """
    if other_than_landsat(names):
        return OLI
    if sensor_with_bands([name for name in names if name]) is ETM:
        return UNSTATED.only(ETM.common)
    numbered = {plain_name(name).upper() for name in names if _SURFACE.fullmatch(plain_name(name))}
    if numbered == set(ETM.bands):
        raise DataError(
            f"{shown(stack.path)}: has just the bands of Landsat 4, 5 or 7 ({', '.join(sorted(numbered))}); "
            f"{NAME_SENSOR}, or {LEVEL2_FIX}"
        )
    return OLI


def _require_names(stack: RasterFile, names: list[str], rest: list[str], sensor: Sensor) -> None:
    """Refuse a stack of another number or order of bands; bands without names pass.

    Args:
        stack: for its path.
        names: of all bands.
        rest: of those that are not QA_PIXEL.
        sensor: whose bands they are to be.
    """
    if other_than_landsat(names):
        raise DataError(
            f"{shown(stack.path)}: its bands are Sentinel-2's ({', '.join(names)}), not Landsat's; "
            f"{_order_fix(names, sensor)}"
        )
    if len(rest) != len(sensor.bands):
        theirs = f"; {NAME_SENSOR}" if len(rest) == len(ETM.bands) else ""
        raise DataError(
            f"{shown(stack.path)}: has {len(rest)} bands, expected {len(sensor.bands)}: {sensor.listed} of "
            f"{sensor.title}; {_order_fix(names, sensor)}{theirs}"
        )
    found = [sensor.band(name) for name in rest]
    if any(found) and found != list(sensor.bands):
        listed = ", ".join(name or "unnamed" for name in rest)
        raise DataError(
            f"{shown(stack.path)}: its bands are {listed}, expected {sensor.listed} in order; "
            f"{_order_fix(names, sensor)}"
        )


def _order_fix(names: list[str], sensor: Sensor) -> str:
    """The choice that the names allow. Of Sentinel-2's bands red edge is never near infrared."""
    if other_than_landsat(names):
        nearest = nearest_sentinel2(names)
        if nearest is None:
            return "it lacks some that lie near SR_B1..SR_B7 (B01, B02, B03, B04, B8A, B11, B12); give Landsat's"
        numbers = ",".join(str(place + 1) for place in nearest)
        return f"those nearest to SR_B1..SR_B7 are --bands {numbers}, with the --scale of its numbers"
    found = [sensor.band(name) for name in names]
    if all(found.count(band) == 1 for band in sensor.bands):
        return f"give --bands {','.join(str(found.index(band) + 1) for band in sensor.bands)}"
    return f"give --bands N,… of its {sensor.listed}, or the names of all its bands"


def naming_notes(bands: tuple[RasterFile, ...], sensor: Sensor, stated: bool) -> list[str]:
    """What a stack's names leave open, one line each; nothing of those that the user has `stated`."""
    listed, names = ", ".join(str(band.band) for band in bands), [band.name or "" for band in bands]
    if not any(sensor.band(name) for name in names):
        if stated:
            return []
        named = ", ".join(filter(None, bands[0].descriptions))
        why = f"names its bands in a way not known here ({named})" if named else "does not name its bands"
        return [f"the file {why}: {listed} are taken to be {sensor.listed}"]
    if all(_HLS_NAME.fullmatch(plain_name(name)) for name in names):
        return [
            f"the file calls its bands {names[0]}..{names[-1]}: they are taken for Landsat's, as in HLS L30; in "
            "Sentinel-2 and HLS S30, B05 to B07 are red edge"
        ]
    return []
