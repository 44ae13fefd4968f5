"""The two forms in which a scene lies on disk, and what is wrong with others."""

import re
from pathlib import Path
from typing import NamedTuple

from scenes.input.grids import RasterFile, open_raster
from scenes.input.metadata import LEVEL2_FIX, check_product_id, find_product_id
from utils.errors import ConfigError, DataError
from utils.sensors import ETM, HLS_L30, OLI, refusal, sensor_of_product, sensor_with_bands

_BAND_FILE = re.compile(r"(?P<stem>.+)_SR_B(?P<number>\d+)\.TIFF?", re.IGNORECASE)
_LEVEL1_FILE = re.compile(r".+_B\d+\.TIFF?", re.IGNORECASE)
_COLLECTION1_FILE = re.compile(r".+_sr_band\d+\.TIFF?", re.IGNORECASE)


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
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    found: dict[str, dict[int, str]] = {}
    for name in names:
        if match := _BAND_FILE.fullmatch(name):
            found.setdefault(match["stem"], {})[int(match["number"])] = name
    if not found:
        _refuse_other_folder(folder, names)
    if len(found) > 1:
        raise DataError(f"{folder}: holds several scenes ({', '.join(sorted(found))}); give each its own folder")
    ((stem, files),) = found.items()
    product = find_product_id(stem)
    if product:
        check_product_id(product, folder)
    missing = [band for number, band in enumerate(OLI.bands, 1) if number not in files]
    if set(OLI.bands) - set(missing) == set(ETM.bands):
        raise DataError(f"{folder}: {stem} has just the bands of Landsat 4, 5 or 7; {refusal(ETM)}; {LEVEL2_FIX}")
    if missing:
        raise DataError(f"{folder}: {', '.join(f'{stem}_{band}.TIF' for band in missing)} missing; fetch them again")
    bands = tuple(open_raster(folder / files[number]) for number in range(1, len(OLI.bands) + 1))
    for band in bands:
        if band.count != 1:
            raise DataError(f"{band.path}: has {band.count} bands, a band file has one; fetch it again")
    qa = [folder / name for name in names if re.fullmatch(rf"{re.escape(stem)}_QA_PIXEL\.TIFF?", name, re.IGNORECASE)]
    return SceneFiles(product, bands, open_raster(qa[0]) if qa else None, _mtl_beside(folder, stem))


def _refuse_other_folder(folder: Path, names: list[str]) -> None:
    """Say what a folder without `*_SR_B1.TIF` holds instead."""
    for product in sorted({product for name in names if (product := find_product_id(name))}):
        check_product_id(product, folder)
    if any(sensor_of_product(name) is HLS_L30 for name in names):
        raise DataError(f"{folder}: {refusal(HLS_L30)}; {LEVEL2_FIX}")
    if any(_COLLECTION1_FILE.fullmatch(name) for name in names):
        raise DataError(f"{folder}: holds *_sr_band*.tif, a Collection-1 product; {LEVEL2_FIX}")
    if any(_LEVEL1_FILE.fullmatch(name) for name in names):
        raise DataError(f"{folder}: holds *_B*.TIF without SR: Level-1 or another sensor's numbers; {LEVEL2_FIX}")
    raise DataError(f"{folder}: holds no *_SR_B1.TIF; {LEVEL2_FIX} and unpack it here")


def find_stack(path: Path, chosen: tuple[int, ...] | None) -> SceneFiles:
    """The files of a stacked GeoTIFF.

    Args:
        path: the stack.
        chosen: which of its bands are SR_B1..SR_B7, counted from 1; None: it has these seven and no others.

    Raises:
        DataError: for another number of bands, or names in another order.
        ConfigError: when `chosen` is no choice of seven.
    """
    product = find_product_id(path.name)
    if product:
        check_product_id(product, path)
    stack = open_raster(path)
    if chosen is None:
        _require_names(stack)
        chosen = tuple(range(1, len(OLI.bands) + 1))
    present = set(range(1, stack.count + 1))
    if len(chosen) != len(OLI.bands) or len(set(chosen)) != len(chosen) or not set(chosen) <= present:
        listed = ",".join(map(str, chosen))
        raise ConfigError(f"--bands {listed}: give seven different numbers from 1 to {stack.count}, for SR_B1..SR_B7")
    bands = tuple(stack._replace(band=number) for number in chosen)
    beside = [path.with_name(f"{path.stem}_QA_PIXEL{end}") for end in (".tif", ".TIF", ".tiff")]
    qa = next((open_raster(file) for file in beside if file.is_file()), None)
    return SceneFiles(product, bands, qa, _mtl_beside(path.parent, path.stem))


def _require_names(stack: RasterFile) -> None:
    """Refuse a stack of another number or order of bands; bands without names pass."""
    numbers, wanted = [band_number(name) for name in stack.descriptions], list(range(1, len(OLI.bands) + 1))
    complete = all(number in numbers for number in wanted)
    order = ",".join(str(numbers.index(number) + 1) for number in wanted) if complete else "N,… of its SR_B1..SR_B7"
    other = sensor_with_bands([name for name in stack.descriptions if name])
    if other is not None:
        raise DataError(f"{stack.path}: {refusal(other)}; {LEVEL2_FIX}")
    if stack.count != len(OLI.bands):
        raise DataError(
            f"{stack.path}: has {stack.count} bands, expected {len(OLI.bands)}: SR_B1..SR_B7 of Landsat 8 or 9; give "
            f"--bands {order}"
        )
    if any(number is not None for number in numbers) and numbers != wanted:
        listed = ", ".join(name or "unnamed" for name in stack.descriptions)
        raise DataError(f"{stack.path}: its bands are {listed}, expected SR_B1..SR_B7 in order; give --bands {order}")


def band_number(name: str | None) -> int | None:
    """3 for a description such as SR_B3, B03, "Band 3" or, as catalogues have it, green; None for any other."""
    index = OLI.index(name or "")
    return None if index is None else index + 1


def _mtl_beside(folder: Path, stem: str) -> Path | None:
    files = (folder / f"{stem}_MTL{end}" for end in (".json", ".txt"))
    return next((file for file in files if file.is_file()), None)
