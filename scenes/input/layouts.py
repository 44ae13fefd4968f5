"""The two forms in which a scene lies on disk, and what is wrong with others."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from scenes.input.grids import RasterFile, open_raster
from scenes.input.metadata import LEVEL2_FIX, check_product_id, find_product_id, product_id_of
from scenes.input.mtl import ENDINGS
from scenes.input.stacks import QA_PIXEL, stack_bands
from utils.errors import DataError
from utils.sensors import ETM, HLS_L30, OLI, refusal, sensor_of_product

_BAND_FILE = re.compile(
    r"(?:(?P<stem>.+)[._ -])?(?P<band>SR_B\d+|coastal|blue|green|red|nir(?:08)?|swir(?:1|16|2|22))\.TIFF?",
    re.IGNORECASE,
)
"""A band of surface reflectance in USGS's names, after whatever an archive puts before them, or in a catalogue's."""
_LEVEL1_FILE = re.compile(r"(?:.+[._])?B\d+\.TIFF?", re.IGNORECASE)
_COLLECTION1_FILE = re.compile(r"(?:.+_)?sr_band\d+\.TIFF?", re.IGNORECASE)
_QA_FILE = re.compile(rf"(?:(?P<stem>.+)[._ -])?{QA_PIXEL}\.TIFF?", re.IGNORECASE)
_MTL_FILE = re.compile(r"(?:(?P<stem>.+)[._ -])?MTL\.(?:json|txt|xml)", re.IGNORECASE)


class SceneFiles(NamedTuple):
    """What belongs to a scene."""

    product: str | None
    """The product id in the names."""
    bands: tuple[RasterFile, ...]
    """SR_B1..SR_B7."""
    qa: RasterFile | None
    mtl: Path | None


def find_folder(folder: Path) -> SceneFiles:
    """The files of a product folder.

    Raises:
        DataError: for no scene or several, another product, and missing bands.
    """
    names = visible_names(folder)
    found: dict[str, dict[str, str]] = {}
    for name in names:
        if match := _BAND_FILE.fullmatch(name):
            band = OLI.band(match["band"])
            files = found.setdefault(match["stem"] or "", {})
            if band in files:
                raise DataError(f"{folder}: holds {band} twice ({files[band]}, {name}); leave one of them")
            if band:
                files[band] = name
    found = {stem: files for stem, files in found.items() if files}
    if not found:
        _refuse_other_folder(folder, names)
    if len(found) > 1:
        listed = ", ".join(sorted(stem or next(iter(files.values())) for stem, files in found.items()))
        raise DataError(f"{folder}: holds several scenes ({listed}); give each its own folder")
    ((stem, files),) = found.items()
    product = find_product_id(stem) or find_product_id(folder.name)
    if product:
        check_product_id(product, folder)
    missing = [band for band in OLI.bands if band not in files]
    catalogue = not any("SR_B" in name.upper() for name in files.values())
    if set(files) == set(OLI.bands[1:] if catalogue else ETM.bands):
        raise DataError(f"{folder}: {stem} has just the bands of Landsat 4, 5 or 7; {refusal(ETM)}; {LEVEL2_FIX}")
    if missing:
        listed = ", ".join(f"{stem}_{band}.TIF" if stem else f"{band}.TIF" for band in missing)
        raise DataError(f"{folder}: {listed} missing; fetch them again")
    bands = tuple(open_raster(folder / files[band]) for band in OLI.bands)
    for band in bands:
        if band.count != 1:
            raise DataError(f"{band.path}: has {band.count} bands, a band file has one; fetch it again")
    qa = _companion(folder, names, _QA_FILE, stem, product)
    mtl = _companion(folder, names, _MTL_FILE, stem, product)
    return SceneFiles(product, bands, open_raster(folder / qa) if qa else None, folder / mtl if mtl else None)


def visible_names(folder: Path) -> list[str]:
    """Names of a folder's files, sorted; hidden ones, such as macOS's `._…` beside every file, are nobody's."""
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith(".") and entry.is_file())


def _companion(folder: Path, names: Sequence[str], form: re.Pattern[str], stem: str, product: str | None) -> str | None:
    """The file of a form that belongs to a scene, by its name or by its product's id.

    Raises:
        DataError: when the only ones there belong to another product.
    """
    found = [(match["stem"] or "", name) for name in names if (match := form.fullmatch(name))]
    found.sort(key=lambda pair: ENDINGS.index(end) if (end := Path(pair[1]).suffix.lower()) in ENDINGS else 0)
    if own := [name for other, name in found if other.lower() == stem.lower()]:
        return own[0]
    mine = product_id_of(product or "", folder)
    known = {name: product_id_of(other, folder / name) for other, name in found}
    if mine is not None and (strangers := [name for name, theirs in known.items() if theirs is not None]):
        if alike := [name for name in strangers if mine.same_acquisition(known[name] or mine)]:
            return alike[0]
        raise DataError(f"{folder / strangers[0]}: belongs to another scene than {product}; put the right one there")
    nameless = [name for other, name in found if not other or (mine is None and not stem)]
    return nameless[0] if len({Path(name).stem for name in nameless}) == 1 else None


def _refuse_other_folder(folder: Path, names: list[str]) -> None:
    """Say what a folder without `*_SR_B1.TIF` holds instead."""
    for product in sorted({product for name in names if (product := find_product_id(name))}):
        check_product_id(product, folder)
    if any(sensor_of_product(name) is HLS_L30 for name in names):
        raise DataError(f"{folder}: {refusal(HLS_L30)}; {LEVEL2_FIX}")
    if any(_COLLECTION1_FILE.fullmatch(name) for name in names):
        raise DataError(f"{folder}: holds *_sr_band*.tif, a Collection-1 product; {LEVEL2_FIX}")
    if any(_LEVEL1_FILE.fullmatch(name) for name in names):
        raise DataError(
            f"{folder}: holds *_B*.TIF without SR: Level-1 or another sensor's numbers; {LEVEL2_FIX}; if they are its "
            "surface reflectance, name them *_SR_B*.TIF"
        )
    raise DataError(f"{folder}: holds no *_SR_B1.TIF; {LEVEL2_FIX} and unpack it here")


def find_stack(path: Path, chosen: tuple[int, ...] | None) -> SceneFiles:
    """The files of a stacked GeoTIFF.

    Args:
        path: the stack.
        chosen: which of its bands are SR_B1..SR_B7, counted from 1; None: it has these seven and no others.

    Raises:
        DataError: for another number of bands, names in another order, or one band of a product.
        ConfigError: when `chosen` is no choice of seven.
    """
    product = find_product_id(path.name)
    if product:
        check_product_id(product, path)
    stack = open_raster(path)
    if stack.count == 1 and _BAND_FILE.fullmatch(path.name):
        raise DataError(f"{path}: is one band of a scene; give the folder that holds all of them: {path.parent}")
    bands, inside = stack_bands(stack, chosen)
    beside = _beside(path)
    files = [path.with_name(name) for name in beside if _QA_FILE.fullmatch(name)]
    qa = open_raster(files[0]) if files else None
    mtl = next((path.with_name(name) for end in ENDINGS for name in beside
                if _MTL_FILE.fullmatch(name) and name.lower().endswith(end)), None)  # fmt: skip
    return SceneFiles(product, bands, qa or inside, mtl)


def _beside(path: Path) -> list[str]:
    """QA_PIXEL and MTL that are named after a stack."""

    def named_after(name: str) -> Iterator[bool]:
        for form in (_QA_FILE, _MTL_FILE):
            match = form.fullmatch(name)
            yield match is not None and (match["stem"] or "").lower() == path.stem.lower()

    return [name for name in visible_names(path.parent) if any(named_after(name))]
