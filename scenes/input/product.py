"""Finding a scene: a Collection-2 Level-2 folder or a stacked GeoTIFF, checked before anything is computed.

A folder holds `*_SR_B1.TIF … *_SR_B7.TIF` and, where they exist, `*_QA_PIXEL.TIF` and `*_MTL.json` or `.txt`. A stack
is one GeoTIFF of seven bands, with a `<name>_QA_PIXEL.tif` and `<name>_MTL.json` or `.txt` beside it where they exist.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rasterio.crs import CRS

from scenes.input.grids import RasterFile, SceneGrid, check_same_grid, open_raster, scene_grid
from scenes.input.layouts import band_number, find_folder, find_stack
from scenes.input.metadata import check_product_id, find_product_id, read_mtl, scene_time, stated_fields
from utils.data_config import SIMULATED_MARK
from utils.errors import ConfigError, DataError
from utils.metadata import AcquisitionTime
from utils.sensors import OLI, Sensor

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
    if qa is not None and (qa.dtype, qa.count) != ("uint16", 1):
        raise DataError(
            f"{qa.path}: holds {qa.count} x {qa.dtype}, QA_PIXEL is one band of uint16; give the product's own file"
        )
    grid = scene_grid(files.bands[0])
    for other in (*files.bands[1:], *((qa,) if qa else ())):
        check_same_grid(files.bands[0], other)
    values = read_mtl(files.mtl) if files.mtl else {}
    product = _check_mtl(files.product, values, files.mtl, path)
    time = scene_time(product, values, files.mtl or path)
    simulated = _is_simulated(path if path.is_dir() else path.parent)
    stated = stated_fields(values, files.mtl or path)
    scene = Scene(path, product, files.bands, qa, grid, time, stated, options.scale, simulated, ())
    return scene._replace(notes=tuple(_notes(scene)))


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
    stated = find_product_id(values.get("LANDSAT_PRODUCT_ID", ""))
    if stated:
        check_product_id(stated, mtl or path)
    if stated and product and stated != product:
        raise DataError(f"{mtl}: belongs to {stated}, the files of {path} to {product}; put the right MTL there")
    return product or stated


def _notes(scene: Scene) -> list[str]:
    notes = []
    if scene.time.day is None:
        notes.append("no product id or MTL says when this was taken: week and hour are given to the model as missing")
    elif scene.time.clock is None:
        notes.append("no MTL says at what time this was taken: the hour is given to the model as missing")
    if scene.crs is None:
        notes.append("no coordinate reference system: latitude and longitude are given to the model as missing")
    if not scene.grid.georeferenced:
        notes.append("no georeference: the spacing is taken to be 30 m")
    if scene.qa is None:
        notes.append("no QA_PIXEL: cloud and shadow are not masked (--qa FILE names one); fill is")
    if scene.bands[0].count > 1 and not any(map(band_number, scene.bands[0].descriptions)):
        listed = ", ".join(str(band.band) for band in scene.bands)
        named = ", ".join(name for name in scene.bands[0].descriptions if name)
        why = f"names its bands in a way not known here ({named})" if named else "does not name its bands"
        notes.append(f"the file {why}: {listed} are taken to be SR_B1..SR_B7")
    return notes
