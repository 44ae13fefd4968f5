"""A STAC item of one scene: its assets by the catalogues' own keys, its time and sun from its properties.

Known are the items of the USGS (`landsat-c2l2-sr`) and of Microsoft's Planetary Computer (`landsat-c2-l2`); both name
bands as STAC's `eo:common_name` does. An asset is a file beside the item, or at its address, relative to the item's own
or whole. A file of the asset's name beside the item is taken first: items are fetched together with their assets.
"""

from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from scenes.input.grids import RasterFile, open_raster
from scenes.input.layouts import SceneFiles
from scenes.input.metadata import LEVEL2_FIX, agreed_sensor, check_product_id, find_product_id, sensor_in_words
from scenes.input.mtl import ENDINGS
from scenes.input.virtual_files import address_of, is_file, path_of, plain_name, read_bytes, shown
from utils.errors import DataError
from utils.parsing import is_there, parse_json
from utils.sensors import OLI, TAKEN, Sensor, refusal, sensor_of_product

QUALITY_KEYS = ("qa_pixel", "QA_PIXEL")
MTL_KEYS = tuple(f"{name}{ending}" for ending in ENDINGS for name in ("mtl", "MTL"))
AZURE = ".blob.core.windows.net"


def find_item(path: Path, stated: Sensor | None = None) -> SceneFiles:
    """The files of a STAC item.

    Args:
        path: of the item.
        stated: the sensor, as the user says.

    Raises:
        DataError: for another JSON file, another product, missing bands, and files that cannot be read.
    """
    item = _read(path)
    places = {key: _place(asset.get("href"), path) for key, asset in item["assets"].items() if isinstance(asset, dict)}
    product = next(filter(None, (find_product_id(plain_name(place)) for place in places.values() if place)), None)
    product = product or find_product_id(str(item.get("id", "")))
    sensor = _sensor(item, product, stated, shown(path))
    named = {sensor.band(key): place for key, place in places.items() if place is not None}
    if missing := [name for band, name in zip(sensor.bands, sensor.common, strict=True) if band not in named]:
        raise DataError(
            f"{shown(path)}: has no asset {', '.join(missing)}; give an item of Landsat 4 to 9, Collection-2 Level-2"
        )
    bands = tuple(_open(named[band]) for band in sensor.bands)
    qa = next((places[key] for key in QUALITY_KEYS if places.get(key)), None)
    mtl = next((place for key in MTL_KEYS if (place := places.get(key)) and not address_of(place)), None)
    return SceneFiles(
        product,
        bands,
        _open(qa) if qa else None,
        mtl if mtl and is_file(mtl) else None,
        sensor,
        stated=_stated(item, path),
    )


def _sensor(item: dict[str, Any], product: str | None, stated: Sensor | None, where: str) -> Sensor:
    """The sensor of an item: as the user, its product's id or its properties say, else OLI.

    Raises:
        DataError: where they differ, and for one that the model does not know.
    """
    by_id = check_product_id(product, where) if product else sensor_of_product(str(item.get("id", "")))
    if by_id not in (None, *TAKEN):
        raise DataError(f"{where}: {refusal(by_id)}; {LEVEL2_FIX}")
    platform = str((item.get("properties") or {}).get("platform") or "")
    by_platform = sensor_in_words(platform, where, "is of")
    said = {"--sensor says": stated, "its id says": by_id, "its platform says": by_platform}
    return agreed_sensor(said, where) or OLI


def _read(path: Path) -> dict[str, Any]:
    try:
        item = parse_json(read_bytes(path).decode("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{shown(path)}: cannot be read ({error}); fetch it again") from error
    if not isinstance(item, dict) or item.get("type") != "Feature" or not isinstance(item.get("assets"), dict):
        raise DataError(f"{shown(path)}: is no STAC item (type Feature with assets); give the item of one scene")
    return item


def _place(href: object, item: Path) -> Path | None:
    """Where an asset is; None for one without a usable address."""
    if not isinstance(href, str) or not href:
        return None
    name = unquote(PurePosixPath(urlsplit(href).path).name)
    base = address_of(item)
    if base is not None:
        return path_of(urljoin(base, href))
    if name and is_there(beside := item.with_name(name)):
        return beside
    if href.startswith("file://"):
        return Path(unquote(urlsplit(href).path))
    return path_of(href) if "://" in href else item.parent / href


def _open(place: Path) -> RasterFile:
    address = address_of(place)
    if address is None and "://" in str(place).replace(":/", "://"):
        raise DataError(
            f"{place}: only files and http(s) addresses are read; fetch the files and put them beside the item"
        )
    if address is not None and not is_file(place):
        host = urlsplit(address).hostname or ""
        fix = "sign the item first (planetary_computer.sign)" if host.endswith(AZURE) else "sign in and fetch the files"
        raise DataError(f"{shown(place)}: its server does not give it; {fix}, and put them beside the item")
    return open_raster(place)


def _stated(item: dict[str, Any], path: Path) -> dict[str, str]:
    """What the item says of the scene, under the names of an MTL file."""
    properties = item.get("properties") or {}
    stated: dict[str, str] = {}
    if text := properties.get("datetime"):
        try:
            moment = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
        except ValueError as error:
            raise DataError(f"{shown(path)}: its datetime {text!r} cannot be read; correct or remove it") from error
        moment = moment.astimezone(UTC) if moment.tzinfo else moment
        stated = {"DATE_ACQUIRED": f"{moment:%Y-%m-%d}", "SCENE_CENTER_TIME": f"{moment:%H:%M:%S}"}
    if platform := properties.get("platform"):
        stated["SPACECRAFT_ID"] = str(platform)
    if (elevation := properties.get("view:sun_elevation")) is not None:
        stated["SUN_ELEVATION"] = str(elevation)
    return stated
