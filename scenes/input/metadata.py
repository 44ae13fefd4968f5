"""What names say of a Landsat product: one parser for the ids of every archive. Nothing is guessed.

The MTL file beside a product is read in `scenes/input/mtl.py`; what both say of time is put together here.
"""

import math
import re
from collections.abc import Mapping
from datetime import date, datetime, time
from pathlib import Path
from typing import NamedTuple

from utils.errors import DataError
from utils.metadata import FIELDS, AcquisitionTime
from utils.sensors import TAKEN, Sensor, refusal, refusal_of_said, sensor_of_product, sensor_said

_START = r"(?<![A-Z0-9])(?P<mission>L[A-Z]\d{2})_"
_FORMS = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        # USGS Collection 1 and 2; Planetary Computer leaves out the day of processing.
        _START + r"(?P<level>L\d[A-Z0-9]{2})_(?P<place>\d{6})_(?P<date>\d{8})(?:_(?P<made>\d{8}))?"
        r"_(?P<collection>\d{2})_(?P<tier>T1|T2|RT|A1|A2)(?![A-Z0-9])",
        # Analysis Ready Data: a region and a tile of it.
        _START + r"(?P<place>(?:CU|AK|HI)_\d{6})_(?P<date>\d{8})_(?P<made>\d{8})_C?(?P<collection>\d{2})(?![A-Z0-9])",
        # Earth Engine's system:index, which does not say the level.
        _START + r"(?P<place>\d{6})_(?P<date>\d{8})(?!\d)",
        # Harmonized Landsat Sentinel-2: year and day of the year, and the time.
        r"(?<![A-Z0-9])(?P<mission>HLS\.[LS]30)\.(?P<place>T\d{2}[A-Z]{3})\.(?P<year_day>\d{7})T(?P<time>\d{6})"
        r"\.v(?P<collection>\d)\.\d(?!\d)",
    )
)
"""USGS "Landsat Collections" and "ARD" naming conventions, Earth Engine's and Planetary Computer's catalogues, HLS User
Guide 2.0."""

LEVEL2_FIX = "order the Collection-2 Level-2 product (L2SP) of Landsat 4 to 9, for example from EarthExplorer"


class ProductId(NamedTuple):
    """What a product's id says."""

    text: str
    """In capital letters (HLS: as it is written)."""
    mission: str
    """LC08, LE07, …; HLS.L30 or HLS.S30."""
    place: str
    """Path and row, a tile of Analysis Ready Data, or a tile of HLS."""
    acquired: AcquisitionTime
    level: str | None
    """L2SP, L1TP, …; None where the id does not say it."""
    collection: str | None
    made: str | None
    """The day of processing; None where the id leaves it out."""

    def same_acquisition(self, other: "ProductId") -> bool:
        """Whether two ids can be those of one product, written in whichever form."""
        same_grid = self.place.isdigit() == other.place.isdigit()  # a tile of other archives covers several scenes
        compared = [(self.mission, other.mission), (self.acquired.day, other.acquired.day), (self.level, other.level)]
        if same_grid:
            compared += [(self.place, other.place), (self.made, other.made)]
        return all(None in pair or pair[0] == pair[1] for pair in compared)


def find_product_id(text: str) -> str | None:
    """The product id in a text, in any of the archives' forms; None where there is none, or several that differ."""
    for form in _FORMS:
        found = {match[0].upper().replace(".V", ".v") for match in form.finditer(text)}
        if found:
            return found.pop() if len(found) == 1 else None
    return None


def parse_product_id(product: str) -> ProductId:
    """What an id that `find_product_id` gave says.

    Raises:
        ValueError: for any other text, and for a date that is none.
    """
    match = next((match for form in _FORMS if (match := form.fullmatch(product))), None)
    if match is None:
        raise ValueError(f"{product!r} is no product id")
    parts = match.groupdict()
    if parts.get("year_day"):
        acquired = AcquisitionTime.at(datetime.strptime(parts["year_day"] + parts["time"], "%Y%j%H%M%S"))
    else:
        acquired = AcquisitionTime(datetime.strptime(parts["date"], "%Y%m%d").date())
    level = parts.get("level")
    return ProductId(
        product,
        parts["mission"].upper(),
        parts["place"].upper(),
        acquired,
        level.upper() if level else None,
        parts["collection"].zfill(2) if parts.get("collection") else None,
        parts.get("made"),
    )


def product_id_of(text: str, where: Path | str) -> ProductId | None:
    """Find and parse. Raises DataError naming `where` when the date in an id is none."""
    product = find_product_id(text)
    try:
        return None if product is None else parse_product_id(product)
    except ValueError as error:
        raise DataError(f"{where}: date or time of {product} cannot be read ({error}); correct the name") from error


def check_product_id(product: str, where: Path | str) -> Sensor:
    """The sensor of a product whose numbers the model knows.

    Raises:
        DataError: another sensor than OLI, ETM+ or TM of Landsat 4 to 9, Level 1, or Collection 1.
    """
    parsed = product_id_of(product, where)
    if parsed is None:
        raise ValueError(f"{product!r} is no product id")
    sensor = sensor_of_product(product)
    if sensor is None:
        why = refusal_of_said(parsed.mission) or "its sensor is none that the model knows"
        raise DataError(f"{where}: {product}: {why}; {LEVEL2_FIX}")
    if sensor not in TAKEN:
        raise DataError(f"{where}: {product}: {refusal(sensor)}; {LEVEL2_FIX}")
    if parsed.level is not None and parsed.level.startswith("L1"):
        raise DataError(
            f"{where}: {product} is Level-1: its numbers are light at the sensor, not surface reflectance; {LEVEL2_FIX}"
        )
    if parsed.collection not in (None, "02"):
        raise DataError(
            f"{where}: {product} is of Collection {int(parsed.collection)}, whose numbers are scaled otherwise; "
            f"{LEVEL2_FIX}, or state how they are scaled (--scale 0.0001,0)"
        )
    return sensor


def sensor_in_words(text: str, where: Path | str, said_by: str) -> Sensor | None:
    """The sensor that a text such as LANDSAT_7 names; None where it names none.

    Raises:
        DataError: for one that the model does not know.
    """
    said = sensor_said(text)
    if said is None or said in TAKEN:
        return said if isinstance(said, Sensor) else None
    raise DataError(f"{where}: {said_by} {text}: {refusal_of_said(text)}; {LEVEL2_FIX}")


def agreed_sensor(said: Mapping[str, Sensor | None], where: Path | str) -> Sensor | None:
    """The sensor on which all that speak agree; None where nothing does.

    Args:
        said: who says it, as the beginning of a sentence, to what is said.
        where: for messages.

    Raises:
        DataError: where two of them differ.
    """
    known = [(who, sensor) for who, sensor in said.items() if sensor is not None]
    for who, sensor in known[1:]:
        if sensor is not known[0][1]:
            raise DataError(
                f"{where}: {who} {sensor.title}, {known[0][0]} {known[0][1].title}; leave --sensor out, or correct "
                "what is wrong"
            )
    return known[0][1] if known else None


def scene_time(product: str | None, mtl: Mapping[str, str], where: Path | str) -> AcquisitionTime:
    """Date and time from the MTL, else from the product id.

    Raises:
        DataError: when what is written there is no date or time.
    """
    known = product_id_of(product, where) if product else None
    day, clock = known.acquired if known else AcquisitionTime()
    try:
        if text := mtl.get("DATE_ACQUIRED"):
            day = date.fromisoformat(text)
        if text := mtl.get("SCENE_CENTER_TIME"):
            clock = time.fromisoformat(text.strip('"').split(".")[0].rstrip("Z"))
    except ValueError as error:
        raise DataError(f"{where}: date or time cannot be read ({error}); correct it in the MTL file") from error
    return AcquisitionTime(day, clock)


def stated_fields(mtl: Mapping[str, str], where: Path | str) -> dict[str, float]:
    """The metadata fields that an MTL states, by name, such as the sun's elevation at the scene's centre.

    Raises:
        DataError: when what is written there is no such number.
    """
    stated = {}
    for field in FIELDS.values():
        if field.mtl_key is None or field.mtl_key not in mtl:
            continue
        text = mtl[field.mtl_key]
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not field.limits[0] <= value <= field.limits[1]:
            raise DataError(f"{where}: {field.mtl_key} is {text!r}, not {field.unit}; correct it or leave the line out")
        stated[field.name] = value
    return stated
