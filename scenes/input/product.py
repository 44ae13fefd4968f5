"""Finding a scene: a Collection-2 Level-2 folder or a stacked GeoTIFF, checked before anything is computed.

A folder holds `*_SR_B1.TIF … *_SR_B7.TIF` and, where they exist, `*_QA_PIXEL.TIF` and `*_MTL.json`, `.txt` or `.xml`.
A stack is one GeoTIFF of seven bands, with a `<name>_QA_PIXEL.tif` and `<name>_MTL.json` beside it where they exist.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from datetime import date, time
from pathlib import Path
from typing import Any, NamedTuple

from rasterio.crs import CRS

from scenes.input.grids import RasterFile, SceneGrid, check_same_grid, open_raster, scene_grid
from scenes.input.layouts import find_folder, find_stack
from scenes.input.metadata import LEVEL2_FIX, check_product_id, product_id_of, scene_time, stated_fields
from scenes.input.mtl import read_mtl
from scenes.input.stacks import naming_notes
from utils.data_config import SIMULATED_MARK
from utils.errors import ConfigError, DataError
from utils.metadata import AcquisitionTime
from utils.sensors import OLI, Sensor, refusal_of_said

_TIFF_ENDINGS = (".tif", ".tiff")
_ARCHIVE_ENDINGS = (".tar", ".gz", ".tgz", ".zip")


class SceneOptions(NamedTuple):
    """What the user states about a scene beyond its files."""

    bands: tuple[int, ...] | None = None
    """Which bands of a stack are SR_B1..SR_B7, counted from 1."""
    scale: tuple[float, float] | None = None
    """reflectance = value * scale[0] + scale[1]; None: Collection-2 Level-2 numbers, and the numbers are checked."""
    qa: Path | None = None
    """A QA_PIXEL file; None looks for one."""
    day: date | None = None
    """Of acquisition (UTC), where nothing else says it."""
    clock: time | None = None
    """Time of day of acquisition (UTC), likewise."""


FINGERPRINT_FORMAT = 1
"""Raised when the same settings give other numbers."""

DEFAULT_OPTIONS = SceneOptions()
"""Nothing stated: a product as it is delivered."""


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
    """Models take no other so far."""

    @property
    def name(self) -> str:
        return self.product or self.path.stem

    @property
    def crs(self) -> CRS | None:
        return self.grid.crs


def find_scene(path: Path, options: SceneOptions = DEFAULT_OPTIONS) -> Scene:
    """The scene at `path`.

    Raises:
        DataError: naming the file, the reason and the fix, for anything but the forms above.
        ConfigError: for an option that does not fit.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; give a Collection-2 Level-2 folder or a 7-band GeoTIFF")
    if path.is_dir():
        if options.bands:
            raise ConfigError(f"--bands is for a stacked GeoTIFF; the files in {path} name their bands themselves")
        files = find_folder(path)
    elif path.suffix.lower() in _TIFF_ENDINGS:
        files = find_stack(path, options.bands)
    else:
        archive = path.suffix.lower() in _ARCHIVE_ENDINGS
        fix = "unpack it and give the folder" if archive else "give a folder or a .tif"
        raise DataError(f"{path}: is neither a folder nor a GeoTIFF; {fix}")
    qa = open_raster(options.qa) if options.qa else files.qa
    if qa is not None and (qa.dtype, qa.count) != ("uint16", 1) and qa.path != files.bands[0].path:
        raise DataError(
            f"{qa.path}: holds {qa.count} x {qa.dtype}, QA_PIXEL is one band of uint16; give the product's own file"
        )
    grid = scene_grid(files.bands[0])
    for other in (*files.bands[1:], *((qa,) if qa else ())):
        check_same_grid(files.bands[0], other)
    values = read_mtl(files.mtl) if files.mtl else {}
    product = _check_mtl(files.product, values, files.mtl, path)
    if options.qa:
        _check_companion(product, options.qa)
    known = _with_stated_time(scene_time(product, values, files.mtl or path), options, path)
    simulated = _is_simulated(path if path.is_dir() else path.parent)
    stated = stated_fields(values, files.mtl or path)
    scale = _scale(files.bands, options.scale)
    scene = Scene(path, product, files.bands, qa, grid, known, stated, scale, simulated, ())
    return scene._replace(notes=tuple(_notes(scene, options)))


def _scale(bands: tuple[RasterFile, ...], stated: tuple[float, float] | None) -> tuple[float, float] | None:
    """How numbers become reflectance: as stated, else as the files' own tags say.

    Raises:
        DataError: where both speak and differ, or the bands' tags differ.
    """
    said = {band.scaling for band in bands if band.scaling != (1.0, 0.0)}
    if not said:
        return stated
    if len(said) > 1 or any(band.scaling == (1.0, 0.0) for band in bands):
        raise DataError(f"{bands[0].path}: its bands state several scales ({_shown(sorted(said))}); correct the tags")
    (tagged,) = said
    alike = all(
        math.isclose(one, two, rel_tol=1e-4, abs_tol=1e-9) for one, two in zip(tagged, stated or tagged, strict=True)
    )
    if not alike:
        raise DataError(
            f"{bands[0].path}: its tags say reflectance = value * {tagged[0]:g} + {tagged[1]:g}, --scale says "
            f"{_shown([stated or tagged])}; leave --scale out, or correct the tags"
        )
    collection2 = all(
        math.isclose(one, two, rel_tol=1e-4) for one, two in zip(tagged, (OLI.scale, OLI.offset), strict=True)
    )
    return stated if collection2 and bands[0].dtype == "uint16" else stated or tagged


def _shown(scales: Sequence[tuple[float, float]]) -> str:
    return ", ".join(f"{scale:g},{offset:g}" for scale, offset in scales)


def _with_stated_time(known: AcquisitionTime, options: SceneOptions, path: Path) -> AcquisitionTime:
    """What is known of the time, and what the user adds. Raises ConfigError where the two contradict each other."""
    for name, of_files, of_user in (("--date", known.day, options.day), ("--time", known.clock, options.clock)):
        if None not in (of_files, of_user) and of_files != of_user:
            raise ConfigError(f"{name} {of_user}: {path} says {of_files}; leave {name} out, or correct what is wrong")
    return AcquisitionTime(known.day or options.day, known.clock or options.clock)


def _check_companion(product: str | None, companion: Path) -> None:
    """Refuse a file whose name says that it belongs to another product."""
    mine, theirs = product_id_of(product or "", companion), product_id_of(companion.name, companion)
    if mine is not None and theirs is not None and not mine.same_acquisition(theirs):
        raise DataError(f"{companion}: belongs to another scene than {product}; give the one of this product")


def settings_fingerprint(scene: Scene, identity: dict[str, Any]) -> str:
    """Hex SHA-256 of settings and of the name, size and time of change of every file of the scene."""
    files = {}
    for band in (*scene.bands, *((scene.qa,) if scene.qa else ())):
        about = band.path.stat()
        files[band.path.name] = [about.st_size, about.st_mtime_ns]
    order = [(band.path.name, band.band) for band in scene.bands]
    values = {"format": FINGERPRINT_FORMAT, "files": files, "order": order, "scale": scene.scale, **identity}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _is_simulated(folder: Path) -> bool:
    readme = folder / "README.md"
    return readme.is_file() and readme.read_text(encoding="utf-8", errors="replace").startswith(SIMULATED_MARK)


def _check_mtl(product: str | None, values: dict[str, str], mtl: Path | None, path: Path) -> str | None:
    """The product id, which the MTL may add but not contradict."""
    where = mtl or path
    stated, mine = product_id_of(values.get("LANDSAT_PRODUCT_ID", ""), where), product_id_of(product or "", path)
    if stated is not None and mine is not None and not mine.same_acquisition(stated):
        raise DataError(f"{mtl}: belongs to {stated.text}, the files of {path} to {product}; put the right MTL there")
    if stated is not None:
        check_product_id(stated.text, where)
    if why := refusal_of_said(values.get("SPACECRAFT_ID", "")):
        raise DataError(f"{where}: is of {values['SPACECRAFT_ID']}: {why}; {LEVEL2_FIX}")
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
        notes.append(f"the files' tags say reflectance = value * {factor:g} + {offset:g}: taken so")
    if scene.bands[0].count > 1:
        notes += naming_notes(scene.bands)
    return notes
