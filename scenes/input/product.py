"""Finding a scene in any of its forms, checked before anything is computed.

A folder holds `*_SR_B1.TIF … *_SR_B7.TIF` and, where they exist, `*_QA_PIXEL.TIF` and `*_MTL.json`, `.txt` or `.xml`,
itself or in a subfolder; a `.tar` or `.zip` is read as such a folder, and so is one of HLS L30 (`scenes.input.hls`). A
stack is one GeoTIFF of seven bands, with a `<name>_QA_PIXEL.tif` and `<name>_MTL.json` beside it where they exist, or
an export of Earth Engine (`scenes.input.earth_engine`). A `.json` is a STAC item (`scenes.input.stac`). What is said by
an address (`https://…`) is read where it is. TM and ETM+ have six bands, of which `*_SR_B1.TIF` is blue: which sensor
it is say the product id, the MTL, tags or the user, and nothing is guessed.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rasterio.crs import CRS

from scenes.input.grids import RasterFile, SceneGrid, check_same_grid, open_raster, scene_grid
from scenes.input.layouts import SceneFiles, find_band_file, find_folder, find_stack
from scenes.input.metadata import (
    LEVEL2_FIX,
    agreed_sensor,
    check_product_id,
    product_id_of,
    scene_time,
    sensor_in_words,
    stated_fields,
)
from scenes.input.mtl import read_mtl
from scenes.input.stac import find_item
from scenes.input.stacks import naming_notes
from scenes.input.statements import DEFAULT_OPTIONS, SceneOptions, adjustment, stated_sensor, with_stated_time
from scenes.input.virtual_files import (
    ARCHIVE_ENDINGS,
    address_of,
    is_file,
    plain_name,
    read_bytes,
    root_of_archive,
    shown,
    sibling,
    state_of,
)
from transformation.landsat_numbers import COLLECTION2
from utils.data_config import SIMULATED_MARK
from utils.errors import ConfigError, DataError
from utils.metadata import AcquisitionTime
from utils.sensors import HLS_L30, OLI, SENSORS, Sensor

_TIFF_ENDINGS = (".tif", ".tiff")
_PACKED_ENDINGS = (".gz", ".tgz", ".bz2", ".xz", ".7z")
FORMS = "a Collection-2 Level-2 folder, its .tar or .zip, a STAC item (.json), or a GeoTIFF of its bands"


FINGERPRINT_FORMAT = 2
"""Raised when the same settings give other numbers."""


class Scene(NamedTuple):
    """A scene whose files fit together."""

    path: Path
    product: str | None
    bands: tuple[RasterFile, ...]
    """Those of the sensor, in its order."""
    qa: RasterFile | None
    grid: SceneGrid
    time: AcquisitionTime
    stated: Mapping[str, float]
    """Metadata fields that the MTL states, by name."""
    scale: tuple[float, float] | None
    """reflectance = value * scale[0] + scale[1], as the user or the files state; None: Collection-2 numbers."""
    simulated: bool
    notes: tuple[str, ...]
    """What is missing and what follows from it, one line each."""
    sensor: Sensor = OLI
    """Whose bands they are. What the user names a part of has no other."""
    adjusted: str | None = None
    """As in `SceneOptions.adjust`."""

    @property
    def name(self) -> str:
        return self.product or Path(plain_name(self.path)).stem

    @property
    def crs(self) -> CRS | None:
        return self.grid.crs


def find_scene(path: Path, options: SceneOptions = DEFAULT_OPTIONS) -> Scene:
    """The scene at `path`.

    Raises:
        DataError: naming the file, the reason and the fix, for anything but the forms above.
        ConfigError: for an option that does not fit.
    """
    files = _files_of(path, options)
    first = files.bands[0]
    qa = open_raster(options.qa) if options.qa else files.qa
    if qa is not None and (options.qa or qa.path != first.path):  # a band of the stack has the type of all
        _check_quality(qa, files.sensor)
    grid = scene_grid(first)
    for other in (*files.bands[1:], *((qa,) if qa else ())):
        check_same_grid(first, other)
    values = {**files.stated, **(read_mtl(files.mtl) if files.mtl else {})}
    where = shown(files.mtl or path)
    product = _check_mtl(files, values, path)
    if options.qa:
        _check_companion(product, options.qa)
    scene = Scene(
        path=path,
        product=product,
        bands=files.bands,
        qa=qa,
        grid=grid,
        time=with_stated_time(scene_time(product, values, where), options, path),
        stated=stated_fields(values, where),
        scale=_scale(files, options.scale),
        simulated=_is_simulated(files),
        notes=(),
        sensor=files.sensor,
        adjusted=adjustment(files.sensor, options.adjust),
    )
    return scene._replace(notes=tuple(_notes(scene, options)))


def _files_of(path: Path, options: SceneOptions) -> SceneFiles:
    """The files of the form that a path has."""
    ending = Path(plain_name(path)).suffix.lower()
    remote = address_of(path) is not None
    if not remote and not path.exists():
        raise DataError(f"{path}: no such file or folder; give {FORMS}")
    if remote and ending not in (*_TIFF_ENDINGS, ".json"):
        raise DataError(f"{shown(path)}: on the web, only a GeoTIFF or a STAC item (.json) is read; fetch it first")
    if remote and not is_file(path):
        raise DataError(f"{shown(path)}: its server does not give it (missing, or only to those who sign in); fetch it "
                        "with the provider's own tool, or sign the address")  # fmt: skip
    stated = stated_sensor(options.sensor)
    if ending in _TIFF_ENDINGS and not path.is_dir() and (options.bands or not (files := find_band_file(path, stated))):
        return find_stack(path, options.bands, options.scale is not None, stated)
    if options.bands:
        raise ConfigError(f"--bands is for a stacked GeoTIFF; the files in {shown(path)} name their bands themselves")
    if ending in _TIFF_ENDINGS and not path.is_dir():
        return files
    if path.is_dir():
        return find_folder(path, stated)
    if ending in ARCHIVE_ENDINGS:
        return find_folder(root_of_archive(path), stated)
    if ending == ".json":
        return find_item(path, stated)
    fix = "unpack it and give the folder" if ending in _PACKED_ENDINGS else f"give {FORMS}"
    raise DataError(f"{path}: is neither a folder nor a GeoTIFF; {fix}")


def _check_quality(qa: RasterFile, sensor: Sensor) -> None:
    """Refuse a quality band of another type than the product's."""
    name, dtype = ("Fmask", "uint8") if sensor is HLS_L30 else ("QA_PIXEL", "uint16")
    if (qa.dtype, qa.count) != (dtype, 1):
        raise DataError(
            f"{shown(qa.path)}: holds {qa.count} x {qa.dtype}, {name} is one band of {dtype}; give the product's own "
            "file"
        )


def _scale(files: SceneFiles, stated: tuple[float, float] | None) -> tuple[float, float] | None:
    """How numbers become reflectance: as stated, else as the files' own tags or their form say.

    Raises:
        DataError: where two of them speak and differ, or the bands' tags differ.
    """
    bands, where = files.bands, shown(files.bands[0].path)
    tags = {band.scaling for band in bands if band.scaling != (1.0, 0.0)}
    if len(tags) > 1 or (tags and any(band.scaling == (1.0, 0.0) for band in bands)):
        raise DataError(f"{where}: its bands state several scales ({_shown(sorted(tags))}); correct the tags")
    tagged = next(iter(tags), None)
    said = {"--scale says": stated, "its tags say": tagged, f"{files.sensor.title} has": files.scale}
    known = [(who, scale) for who, scale in said.items() if scale is not None]
    for (who, one), (other, two) in itertools.combinations(known, 2):
        if not _alike(one, two):
            fix = "leave --scale out, or correct the tags" if stated else "correct the tags"
            raise DataError(
                f"{where}: {other} reflectance = value * {two[0]:g} + {two[1]:g}, {who} {_shown([one])}; {fix}"
            )
    if stated is None and files.scale is None and tagged and _alike(tagged, COLLECTION2) and bands[0].dtype == "uint16":
        return None  # the product's own numbers, which are checked as such
    return known[0][1] if known else None


def _alike(one: tuple[float, float], two: tuple[float, float]) -> bool:
    return all(math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-9) for a, b in zip(one, two, strict=True))


def _shown(scales: Sequence[tuple[float, float]]) -> str:
    return ", ".join(f"{scale:g},{offset:g}" for scale, offset in scales)


def _check_companion(product: str | None, companion: Path) -> None:
    """Refuse a file whose name says that it belongs to another product."""
    where = shown(companion)
    mine, theirs = product_id_of(product or "", where), product_id_of(plain_name(companion), where)
    if mine is not None and theirs is not None and not mine.same_acquisition(theirs):
        raise DataError(f"{where}: belongs to another scene than {product}; give the one of this product")


def settings_fingerprint(scene: Scene, identity: dict[str, Any]) -> str:
    """Hex SHA-256 of settings and of the name, size and time of change of every file of the scene."""
    files = {}
    for band in (*scene.bands, *((scene.qa,) if scene.qa else ())):
        files[plain_name(band.path)] = state_of(band.path)
    order = [(plain_name(band.path), band.band) for band in scene.bands]
    values = {"format": FINGERPRINT_FORMAT, "files": files, "order": order, "scale": scene.scale, **identity}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _is_simulated(files: SceneFiles) -> bool:
    """Whether a file beside the first band says so."""
    first = files.bands[0].path
    if address_of(first):
        return False
    readme = sibling(first, "README.md")
    return is_file(readme) and read_bytes(readme).decode("utf-8", errors="replace").startswith(SIMULATED_MARK)


def _check_mtl(files: SceneFiles, values: dict[str, str], path: Path) -> str | None:
    """The product id, which the MTL may add but not contradict; nor may it contradict the sensor."""
    product, where = files.product, shown(files.mtl or path)
    stated, mine = product_id_of(values.get("LANDSAT_PRODUCT_ID", ""), where), product_id_of(product or "", where)
    if stated is not None and mine is not None and not mine.same_acquisition(stated):
        raise DataError(
            f"{where}: belongs to {stated.text}, the files of {shown(path)} to {product}; put the right MTL there"
        )
    by_id = check_product_id(stated.text, where) if stated is not None else None
    said = {"its product id says": by_id, "it is of": sensor_in_words(values.get("SPACECRAFT_ID", ""), where, "is of")}
    if (sensor := agreed_sensor(said, where)) is not None and files.sensor.name in SENSORS:
        agreed_sensor({"the files are read as": SENSORS[files.sensor.name], "it is of": sensor}, where)
    if values.get("PROCESSING_LEVEL", "").upper().startswith("L1"):
        raise DataError(f"{where}: says that the product is Level-1, not surface reflectance; {LEVEL2_FIX}")
    return product or (stated.text if stated else None)


def _notes(scene: Scene, options: SceneOptions) -> list[str]:
    notes = []
    if scene.time.day is None:
        notes.append(
            "no product id or MTL says when this was taken: week and hour are given to the model as missing "
            "(--date YYYY-MM-DD states the day)"
        )
    elif scene.time.clock is None:
        notes.append(
            "no MTL says at what time this was taken: the hour is given to the model as missing (--time HH:MM tells)"
        )
    if not scene.grid.georeferenced:
        notes.append(
            "no georeference (a geotransform with its map projection): latitude and longitude are given to the model "
            "as missing, and the spacing is taken to be 30 m"
        )
    elif scene.crs is None:
        notes.append("no coordinate reference system: latitude and longitude are given to the model as missing")
    if scene.qa is None:
        notes.append("no QA_PIXEL: cloud and shadow are not masked (--qa FILE names one); fill is")
    if scene.scale is not None and options.scale is None:
        factor, offset = scene.scale
        tagged = any(band.scaling != (1.0, 0.0) for band in scene.bands)
        source = "the files' tags say" if tagged else "by its form and the range of its numbers,"
        notes.append(f"{source} reflectance = value * {factor:g} + {offset:g}: taken so")
    if scene.bands[0].count > 1:
        notes += naming_notes(scene.bands, scene.sensor, bool(options.bands and isinstance(options.bands[0], str)))
    return notes
