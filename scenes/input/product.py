"""Finding a scene in any of its forms, checked before anything is computed.

A folder holds `*_SR_B1.TIF … *_SR_B7.TIF` and, where they exist, `*_QA_PIXEL.TIF` and `*_MTL.json` or `.txt`, itself or
in a subfolder; a `.tar` or `.zip` is read as such a folder, and so is one of HLS L30 (`scenes.input.hls`). A stack is
one GeoTIFF of seven bands, with a `<name>_QA_PIXEL.tif` and `<name>_MTL.json` or `.txt` beside it where they exist, or
an export of Earth Engine (`scenes.input.earth_engine`). A `.json` is a STAC item (`scenes.input.stac`). What is said
by an address (`https://…`) is read where it is.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rasterio.crs import CRS

from scenes.input.grids import RasterFile, SceneGrid, check_same_grid, open_raster, scene_grid
from scenes.input.layouts import SceneFiles, band_number, find_band_file, find_folder, find_stack
from scenes.input.metadata import check_product_id, find_product_id, read_mtl, scene_time, stated_fields
from scenes.input.stac import find_item
from scenes.input.virtual_files import (
    ARCHIVE_ENDINGS,
    address_of,
    is_file,
    plain_name,
    read_bytes,
    root_of_archive,
    shown,
    state_of,
)
from utils.data_config import SIMULATED_MARK
from utils.errors import ConfigError, DataError
from utils.metadata import AcquisitionTime
from utils.sensors import OLI, Sensor

_TIFF_ENDINGS = (".tif", ".tiff")
_PACKED_ENDINGS = (".gz", ".tgz", ".bz2", ".xz", ".7z")
FORMS = "a Collection-2 Level-2 folder, its .tar or .zip, a STAC item (.json), or a 7-band GeoTIFF"


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
    qa = open_raster(options.qa) if options.qa else files.qa
    own = qa is not None and (not options.qa) and qa.path == files.bands[0].path  # a band of the stack, of its type
    if qa is not None and files.sensor is OLI and not own and (qa.dtype, qa.count) != ("uint16", 1):
        raise DataError(
            f"{shown(qa.path)}: holds {qa.count} x {qa.dtype}, QA_PIXEL is one band of uint16; give the product's own "
            "file"
        )
    grid = scene_grid(files.bands[0])
    for other in (*files.bands[1:], *((qa,) if qa else ())):
        check_same_grid(files.bands[0], other)
    values = {**files.stated, **(read_mtl(files.mtl) if files.mtl else {})}
    product = _check_mtl(files.product, values, files.mtl, path)
    where = Path(shown(files.mtl or path))
    time, stated = scene_time(product, values, where), stated_fields(values, where)
    scene = Scene(
        path=path,
        product=product,
        bands=files.bands,
        qa=qa,
        grid=grid,
        time=time,
        stated=stated,
        scale=options.scale or files.scale,
        simulated=_is_simulated(files),
        notes=(),
        sensor=files.sensor,
    )
    return scene._replace(notes=tuple(_notes(scene)))


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
    if ending in _TIFF_ENDINGS and not path.is_dir() and (options.bands or not (files := find_band_file(path))):
        return find_stack(path, options.bands)
    if options.bands:
        raise ConfigError(f"--bands is for a stacked GeoTIFF; the files in {shown(path)} name their bands themselves")
    if ending in _TIFF_ENDINGS and not path.is_dir():
        return files
    if path.is_dir():
        return find_folder(path)
    if ending in ARCHIVE_ENDINGS:
        return find_folder(root_of_archive(path))
    if ending == ".json":
        return find_item(path)
    fix = "unpack it and give the folder" if ending in _PACKED_ENDINGS else f"give {FORMS}"
    raise DataError(f"{path}: is neither a folder nor a GeoTIFF; {fix}")


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
    readme = files.bands[0].path.with_name("README.md")
    if address_of(readme):
        return False
    return is_file(readme) and read_bytes(readme).decode("utf-8", errors="replace").startswith(SIMULATED_MARK)


def _check_mtl(product: str | None, values: dict[str, str], mtl: Path | None, path: Path) -> str | None:
    """The product id, which the MTL may add but not contradict."""
    stated = find_product_id(values.get("LANDSAT_PRODUCT_ID", ""))
    if stated:
        check_product_id(stated, Path(shown(mtl or path)))
    if stated and product and stated != product:
        raise DataError(
            f"{shown(mtl or path)}: belongs to {stated}, the files of {shown(path)} to {product}; "
            "put the right MTL there"
        )
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
