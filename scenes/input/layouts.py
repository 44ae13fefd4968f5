"""The forms in which a scene lies in folders, archives and stacks, and what is wrong with others."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import NamedTuple, NoReturn

from scenes.input.earth_engine import scale_of
from scenes.input.grids import RasterFile, open_raster
from scenes.input.hls import FIX, granules_of, open_granule
from scenes.input.metadata import (
    LEVEL2_FIX,
    agreed_sensor,
    check_product_id,
    find_product_id,
    product_id_of,
    sensor_in_words,
)
from scenes.input.mtl import ENDINGS, read_mtl
from scenes.input.stacks import NAME_SENSOR, QA_PIXEL, BandChoice, sensor_of_tags, stack_bands
from scenes.input.virtual_files import is_file, names_below, names_beside, plain_name, shown, shown_folder, sibling
from utils.errors import DataError
from utils.sensors import ETM, HLS_L30, OLI, Sensor, common_name, sensor_of_product

_BAND_FILE = re.compile(
    r"(?:(?P<stem>.+)[._ -])?(?P<band>SR_B\d+|coastal|blue|green|red|nir(?:08)?|swir(?:1|16|2|22))\.TIFF?",
    re.IGNORECASE,
)
"""A band of surface reflectance in USGS's names, after whatever an archive puts before them, or in a catalogue's."""
_ALIASES = (*OLI.common, "nir", "swir1", "swir2")
_LEVEL1_FILE = re.compile(r"(?:.+[._])?B\d+\.TIFF?", re.IGNORECASE)
_COLLECTION1_FILE = re.compile(r"(?:.+_)?sr_band\d+\.TIFF?", re.IGNORECASE)
_QA_FILE = re.compile(rf"(?:(?P<stem>.+)[._ -])?{QA_PIXEL}\.TIFF?", re.IGNORECASE)
_MTL_FILE = re.compile(r"(?:(?P<stem>.+)[._ -])?MTL\.(?:json|txt|xml)", re.IGNORECASE)
_QA_ENDINGS = (".TIF", ".tif", ".TIFF", ".tiff")
DEPTH = 2
"""Subfolders that a product is looked for in: an archive is often unpacked into a folder of its name."""


class SceneFiles(NamedTuple):
    """What belongs to a scene."""

    product: str | None
    """The product id in the names."""
    bands: tuple[RasterFile, ...]
    """Those of the sensor, in its order."""
    qa: RasterFile | None
    mtl: Path | None
    sensor: Sensor = OLI
    stated: Mapping[str, str] = MappingProxyType({})
    """What the form says of itself, under the names of an MTL file, which counts more."""
    scale: tuple[float, float] | None = None
    """reflectance = value * scale[0] + scale[1], where the form says so; None: Collection-2 numbers."""


class _Scene(NamedTuple):
    """A scene among the names of files."""

    parent: str
    """Subfolder, empty for the folder itself."""
    stem: str
    """What the names of its files begin with."""


def find_folder(folder: Path, stated: Sensor | None = None) -> SceneFiles:
    """The files of a product in a folder, else in one of its subfolders; the folder may be an archive's.

    Args:
        folder: where it is.
        stated: the sensor, as the user says.

    Raises:
        DataError: for no scene or several, another product, and missing bands.
    """
    for depth in (0, DEPTH):
        names = names_below(folder, depth)
        found, granules = _scenes_in(names, folder), granules_of(names)
        if found or granules:
            break
    else:
        _refuse_other_folder(folder, [PurePosixPath(name).name for name in names])
    if len(found) + len(granules) > 1:
        files = (scene.stem or next(iter(files.values())) for scene, files in found.items())
        listed = ", ".join(sorted([*files, *granules]))
        raise DataError(f"{shown(folder)}: holds several scenes ({listed}); give each its own folder")
    if granules:
        ((granule, layers),) = granules.items()
        agreed_sensor({"--sensor says": stated, "the name says": HLS_L30}, shown(folder))
        hls = open_granule(granule, {layer: folder / name for layer, name in layers.items()}, folder)
        return SceneFiles(granule, hls.bands, hls.fmask, None, HLS_L30, scale=(HLS_L30.scale, HLS_L30.offset))
    ((scene, files),) = found.items()
    home = folder / scene.parent
    beside = [PurePosixPath(name).name for name in names if str(PurePosixPath(name).parent) == (scene.parent or ".")]
    product = find_product_id(scene.stem) or find_product_id(home.name) or find_product_id(folder.name)
    return _product_files(product, scene.stem, {band: folder / name for band, name in files.items()}, beside, stated)


def find_band_file(path: Path, stated: Sensor | None = None) -> SceneFiles | None:
    """The product that a file is a band of, `…_SR_B4.TIF`, here or on the web; None for any other file.

    Args:
        path: of the file.
        stated: the sensor, as the user says.

    Raises:
        DataError: for another product, missing bands, or files of several bands.
    """
    name = plain_name(path)
    match = _BAND_FILE.fullmatch(name)
    if match is None or open_raster(path).count != 1:
        return None
    stem = match["stem"] or ""
    names = names_beside(path)
    if names is None:
        head, ending = name[: match.start("band")], name[match.end("band") :]
        bands = OLI.bands if match["band"].upper().startswith("SR_") else _ALIASES
        names = _there(path, [*(head + band + ending for band in bands), *_companion_names(stem)])
    own = _scenes_in(names, path.parent).get(_Scene("", stem))
    if own is None:
        return None
    if len(own) == 1:
        raise DataError(
            f"{shown(path)}: is one band of a scene; give the folder that holds all of them, or put them beside it"
        )
    files = {band: sibling(path, name) for band, name in own.items()}
    product = find_product_id(stem) or find_product_id(Path(shown_folder(path)).name)
    return _product_files(product, stem, files, names, stated)


def find_stack(path: Path, chosen: BandChoice | None, scaled: bool = False, stated: Sensor | None = None) -> SceneFiles:
    """The files of a stacked GeoTIFF.

    Args:
        path: the stack.
        chosen: which of its bands are the sensor's, counted from 1, or the names of all of its bands; None: it has the
            sensor's bands and no others, or says which they are.
        scaled: whether the user states the scale of its numbers.
        stated: the sensor, as the user says.

    Raises:
        DataError: for another number of bands, names in another order, or numbers of no known scale.
        ConfigError: when `chosen` is no choice of the sensor's bands.
    """
    stem = Path(plain_name(path)).stem
    product, where = find_product_id(plain_name(path)), shown(path)
    stack = open_raster(path)
    names = names_beside(path)
    if names is None:
        names = _there(path, _companion_names(stem))
    qa, mtl = ([sibling(path, name) for name in _named_after(stem, form, names)] for form in (_QA_FILE, _MTL_FILE))
    said = {
        "--sensor says": stated,
        "its name says": check_product_id(product, where) if product else None,
        "its tags say": sensor_of_tags(stack),
        "its MTL says": sensor_of_mtl(mtl[0]) if mtl else None,
    }
    found = stack_bands(stack, chosen, agreed_sensor(said, where))
    return SceneFiles(
        product,
        found.bands,
        open_raster(qa[0]) if qa else found.qa,
        mtl[0] if mtl else None,
        found.sensor,
        scale=scale_of(found.bands, found.sensor) if found.exported and not scaled else None,
    )


def _scenes_in(names: Iterable[str], folder: Path) -> dict[_Scene, dict[str, str]]:
    """Scene to band (SR_B4, or a catalogue's red) to file. Raises DataError where a band is there twice."""
    found: dict[_Scene, dict[str, str]] = {}
    for name in names:
        parent, _, last = name.rpartition("/")
        match = _BAND_FILE.fullmatch(last)
        if match is None or OLI.band(match["band"]) is None:
            continue
        band = match["band"].upper() if match["band"].upper().startswith("SR_") else common_name(match["band"])
        files = found.setdefault(_Scene(parent, match["stem"] or ""), {})
        if band in files:
            raise DataError(f"{shown(folder)}: holds {band} twice ({files[band]}, {name}); leave one of them")
        files[band] = name
    return found


def _product_files(
    product: str | None, stem: str, files: Mapping[str, Path], beside: Sequence[str], stated: Sensor | None
) -> SceneFiles:
    """The files of a product, each of one band.

    Args:
        product: its id, where one is known.
        stem: what the names of its files begin with.
        files: band, as the files name it, to file.
        beside: names of the files that lie with them.
        stated: the sensor, as the user says.

    Raises:
        DataError: for another product, missing bands, or files of several bands.
    """
    first = next(iter(files.values()))
    folder = shown_folder(first)
    by_id = check_product_id(product, folder) if product else None
    qa_name, mtl_name = (_companion(folder, beside, form, stem, product) for form in (_QA_FILE, _MTL_FILE))
    mtl = sibling(first, mtl_name) if mtl_name else None
    by_mtl = sensor_of_mtl(mtl) if mtl else None
    said = {"--sensor says": stated, "the product id says": by_id, "the MTL says": by_mtl}
    sensor = agreed_sensor(said, folder)
    if sensor is None and set(files) in (set(ETM.bands), set(ETM.common)):
        raise DataError(f"{folder}: {stem} has just the bands of Landsat 4, 5 or 7; {NAME_SENSOR}, or {LEVEL2_FIX}")
    sensor = sensor or OLI
    bands = _open_bands(files, sensor, stem, folder)
    return SceneFiles(product, bands, open_raster(sibling(first, qa_name)) if qa_name else None, mtl, sensor)


def sensor_of_mtl(mtl: Path) -> Sensor | None:
    """The sensor that an MTL file names. Raises DataError for one that the model does not know."""
    return sensor_in_words(read_mtl(mtl).get("SPACECRAFT_ID", ""), shown(mtl), "is of")


def _open_bands(files: Mapping[str, Path], sensor: Sensor, stem: str, folder: str) -> tuple[RasterFile, ...]:
    """The files of a sensor's bands, in its order; `files` as those name them."""
    found: dict[str | None, Path] = {}
    for name, file in files.items():
        band = sensor.band(name)
        if band in found and band is not None:
            listed = f"{plain_name(found[band])}, {plain_name(file)}"
            raise DataError(f"{folder}: holds {band} twice ({listed}); leave one of them")
        found[band] = file
    if missing := [band for band in sensor.bands if band not in found]:
        listed = ", ".join(f"{stem}_{band}.TIF" if stem else f"{band}.TIF" for band in missing)
        raise DataError(f"{folder}: {listed} missing; fetch them again")
    bands = tuple(open_raster(found[band]) for band in sensor.bands)
    for band in bands:
        if band.count != 1:
            raise DataError(f"{shown(band.path)}: has {band.count} bands, a band file has one; fetch it again")
    return bands


def _companion(folder: str, names: Sequence[str], form: re.Pattern[str], stem: str, product: str | None) -> str | None:
    """The file of a form that belongs to a scene, by its name or by its product's id.

    Raises:
        DataError: when the only ones there belong to another product.
    """
    if own := _named_after(stem, form, names):
        return own[0]
    found = sorted(((match["stem"] or "", name) for name in names if (match := form.fullmatch(name))), key=_preference)
    mine = product_id_of(product or "", folder)
    known = {name: product_id_of(other, f"{folder}/{name}") for other, name in found}
    if mine is not None and (strangers := [name for name, theirs in known.items() if theirs is not None]):
        if alike := [name for name in strangers if mine.same_acquisition(known[name] or mine)]:
            return alike[0]
        raise DataError(f"{folder}/{strangers[0]}: belongs to another scene than {product}; put the right one there")
    nameless = [name for other, name in found if not other or (mine is None and not stem)]
    return nameless[0] if len({Path(name).stem for name in nameless}) == 1 else None


def _named_after(stem: str, form: re.Pattern[str], names: Sequence[str]) -> list[str]:
    """Files of a form that are named after a scene, the preferred one first."""
    found = [(match["stem"] or "", name) for name in names if (match := form.fullmatch(name))]
    return [name for other, name in sorted(found, key=_preference) if other.lower() == stem.lower()]


def _preference(found: tuple[str, str]) -> int:
    ending = Path(found[1]).suffix.lower()
    return ENDINGS.index(ending) if ending in ENDINGS else 0


def _companion_names(stem: str) -> list[str]:
    """How QA_PIXEL and MTL of a scene are called by those who do not list folders."""
    head = f"{stem}_" if stem else ""
    return [f"{head}{QA_PIXEL}{end}" for end in _QA_ENDINGS] + [f"{head}MTL{end}" for end in ENDINGS]


def _there(path: Path, names: Sequence[str]) -> list[str]:
    """Those of the names that are files beside another."""
    return [name for name in names if is_file(sibling(path, name))]


def _refuse_other_folder(folder: Path, names: list[str]) -> NoReturn:
    """Say what a folder without `*_SR_B1.TIF` holds instead."""
    where = shown(folder)
    for product in sorted({product for name in names if (product := find_product_id(name))}):
        check_product_id(product, where)
    if any(sensor_of_product(name) is HLS_L30 for name in names):
        raise DataError(f"{where}: {HLS_L30.title} is read by whole granules; {FIX}")
    if any(_COLLECTION1_FILE.fullmatch(name) for name in names):
        raise DataError(f"{where}: holds *_sr_band*.tif, a Collection-1 product; {LEVEL2_FIX}")
    if any(_LEVEL1_FILE.fullmatch(name) for name in names):
        raise DataError(
            f"{where}: holds *_B*.TIF without SR: Level-1 or another sensor's numbers; {LEVEL2_FIX}; if they are its "
            "surface reflectance, name them *_SR_B*.TIF"
        )
    raise DataError(f"{where}: holds no *_SR_B1.TIF; {LEVEL2_FIX} and unpack it here")
