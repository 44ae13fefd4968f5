"""Metadata in a Landsat product: its id and its MTL file. Nothing is guessed; what is missing stays None."""

import json
import math
import re
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from scenes.input.virtual_files import read_bytes, shown
from utils.errors import DataError
from utils.metadata import FIELDS, AcquisitionTime
from utils.sensors import OLI, refusal, sensor_of_product

PRODUCT_ID = re.compile(
    r"L(?P<sensor>[A-Z])(?P<satellite>\d{2})_(?P<level>L\d[A-Z0-9]{2})_(?P<path_row>\d{6})_(?P<date>\d{8})_\d{8}"
    r"_(?P<collection>\d{2})_(?P<tier>T1|T2|RT)",
    re.IGNORECASE,
)
"""Collection products, USGS "Landsat Collections" naming convention."""

LEVEL2_FIX = "order the Collection-2 Level-2 product (L2SP) of Landsat 8 or 9, for example from EarthExplorer"


def find_product_id(text: str) -> str | None:
    """The first product id in a text."""
    match = PRODUCT_ID.search(text)
    return match[0].upper() if match else None


def check_product_id(product: str, where: Path) -> None:
    """Refuse products whose numbers the model does not know.

    Raises:
        DataError: another sensor than OLI of Landsat 8 and 9, Level 1, or Collection 1.
    """
    match = PRODUCT_ID.fullmatch(product)
    if match is None:
        raise ValueError(f"{product!r} is no product id")
    level, sensor = match["level"].upper(), sensor_of_product(product)
    if sensor is None:
        raise DataError(f"{where}: {product} is of a sensor that the model does not know; {LEVEL2_FIX}")
    if sensor is not OLI:
        raise DataError(f"{where}: {product}: {refusal(sensor)}; {LEVEL2_FIX}")
    if level.startswith("L1"):
        raise DataError(
            f"{where}: {product} is Level-1: its numbers are light at the sensor, not surface reflectance; {LEVEL2_FIX}"
        )
    if match["collection"] != "02":
        raise DataError(
            f"{where}: {product} is of Collection {int(match['collection'])}, whose numbers are scaled otherwise; "
            f"{LEVEL2_FIX}, or state how they are scaled (--scale 0.0001,0)"
        )


def read_mtl(path: Path) -> dict[str, str]:
    """All values of an MTL.json or MTL.txt by name; of names that occur twice, the first.

    Raises:
        DataError: naming the file, when it cannot be read.
    """
    try:
        text = read_bytes(path).decode("utf-8")
        if path.suffix.lower() == ".json":
            values: dict[str, str] = {}
            _flatten(json.loads(text), values)
        else:
            lines = (line.partition("=") for line in text.splitlines() if "=" in line)
            values = {}
            for name, _, value in lines:
                values.setdefault(name.strip(), value.strip().strip('"'))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{shown(path)}: cannot be read ({error}); fetch it again, or move it away to go on without"
        ) from error
    return values


def _flatten(entry: Any, values: dict[str, str]) -> None:
    if isinstance(entry, dict):
        for name, value in entry.items():
            if isinstance(value, dict):
                _flatten(value, values)
            else:
                values.setdefault(name, str(value))


def scene_time(product: str | None, mtl: dict[str, str], where: Path) -> AcquisitionTime:
    """Date and time from the MTL, the date else from the product id.

    Raises:
        DataError: when what is written there is no date or time.
    """
    day = clock = None
    try:
        if product and (parts := PRODUCT_ID.fullmatch(product)):
            day = datetime.strptime(parts["date"], "%Y%m%d").date()
        if text := mtl.get("DATE_ACQUIRED"):
            day = date.fromisoformat(text)
        if text := mtl.get("SCENE_CENTER_TIME"):
            clock = time.fromisoformat(text.strip('"').split(".")[0].rstrip("Z"))
    except ValueError as error:
        raise DataError(f"{where}: date or time cannot be read ({error}); correct it in the MTL file") from error
    return AcquisitionTime(day, clock)


def stated_fields(mtl: dict[str, str], where: Path) -> dict[str, float]:
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
