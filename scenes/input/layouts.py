"""The forms in which a scene lies in folders, archives and stacks, and what is wrong with others."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from scenes.input.earth_engine import Export, export_in, scale_of
from scenes.input.grids import RasterFile, open_raster
from scenes.input.hls import granules_of, open_granule
from scenes.input.metadata import LEVEL2_FIX, check_product_id, find_product_id
from scenes.input.virtual_files import is_file, names_below, plain_name, shown
from utils.errors import ConfigError, DataError
from utils.sensors import ETM, HLS_L30, OLI, Sensor, refusal, sensor_with_bands

_BAND_FILE = re.compile(r"(?P<stem>.+)_SR_B(?P<number>\d+)\.TIFF?", re.IGNORECASE)
_LEVEL1_FILE = re.compile(r".+_B\d+\.TIFF?", re.IGNORECASE)
DEPTH = 2
"""Subfolders that a product is looked for in: an archive is often unpacked into a folder of its name."""
_COLLECTION1_FILE = re.compile(r".+_sr_band\d+\.TIFF?", re.IGNORECASE)


class SceneFiles(NamedTuple):
    """What belongs to a scene."""

    product: str | None
    """The product id in the names."""
    bands: tuple[RasterFile, ...]
    """SR_B1..SR_B7."""
    qa: RasterFile | None
    mtl: Path | None
    sensor: Sensor = OLI
    stated: Mapping[str, str] = MappingProxyType({})
    """What the form says of itself, under the names of an MTL file, which counts more."""
    scale: tuple[float, float] | None = None
    """reflectance = value * scale[0] + scale[1], where the form says so; None: Collection-2 numbers."""


def find_folder(folder: Path) -> SceneFiles:
    """The files of a product in a folder or in one of its subfolders; the folder may be an archive's.

    Raises:
        DataError: for no scene or several, another product, and missing bands.
    """
    names = names_below(folder, DEPTH)
    found: dict[str, dict[int, str]] = {}
    for name in names:
        if match := _BAND_FILE.fullmatch(name):
            found.setdefault(match["stem"], {})[int(match["number"])] = name
    granules = granules_of(names)
    if not found and not granules:
        _refuse_other_folder(folder, [name.rpartition("/")[2] for name in names])
    if len(scenes := [*found, *granules]) > 1:
        raise DataError(
            f"{shown(folder)}: holds several scenes ({', '.join(sorted(scenes))}); give each its own folder"
        )
    if granules:
        return _hls_files(folder, *next(iter(granules.items())))
    ((stem, files),) = found.items()
    beside, name = (folder / stem).parent, stem.rpartition("/")[2]
    return product_files(beside, name, {number: folder / file for number, file in files.items()})


def product_files(folder: Path, stem: str, files: Mapping[int, Path]) -> SceneFiles:
    """The files of a product by the numbers of their bands.

    Args:
        folder: where they and their companions lie.
        stem: what their names begin with.
        files: number of a band, as in SR_B4, to its file.

    Raises:
        DataError: for another product, missing bands, or files of several bands.
    """
    product = find_product_id(stem)
    if product:
        check_product_id(product, Path(shown(folder)))
    missing = [band for number, band in enumerate(OLI.bands, 1) if number not in files]
    if set(OLI.bands) - set(missing) == set(ETM.bands):
        raise DataError(
            f"{shown(folder)}: {stem} has just the bands of Landsat 4, 5 or 7; {refusal(ETM)}; {LEVEL2_FIX}"
        )
    if missing:
        listed = ", ".join(f"{stem}_{band}.TIF" for band in missing)
        raise DataError(f"{shown(folder)}: {listed} missing; fetch them again")
    bands = tuple(open_raster(files[number]) for number in range(1, len(OLI.bands) + 1))
    for band in bands:
        if band.count != 1:
            raise DataError(f"{shown(band.path)}: has {band.count} bands, a band file has one; fetch it again")
    beside = (folder / f"{stem}_QA_PIXEL{end}" for end in (".TIF", ".tif", ".TIFF", ".tiff"))
    qa = next((open_raster(path) for path in beside if is_file(path)), None)
    return SceneFiles(product, bands, qa, _mtl_beside(folder, stem))


def find_band_file(path: Path) -> SceneFiles | None:
    """The product that a file is a band of, `…_SR_B4.TIF`, here or on the web; None for any other file's name.

    Raises:
        DataError: as `product_files`.
    """
    match = _BAND_FILE.fullmatch(plain_name(path))
    if match is None:
        return None
    ending = plain_name(path).rpartition(".")[2]
    tail = f"_SR_B{match['number']}.{ending}"
    siblings = {
        number: path.with_name(path.name.replace(tail, f"_SR_B{number}.{ending}"))
        for number in range(1, len(OLI.bands) + 1)
    }
    there = {number: file for number, file in siblings.items() if is_file(file)}
    stem = path.name.partition(tail)[0]
    return product_files(path.parent, stem, there)


def _hls_files(folder: Path, granule: str, layers: Mapping[str, str]) -> SceneFiles:
    hls = open_granule(granule, {layer: folder / name for layer, name in layers.items()}, folder)
    stated = {"DATE_ACQUIRED": f"{hls.when:%Y-%m-%d}", "SCENE_CENTER_TIME": f"{hls.when:%H:%M:%S}"}
    return SceneFiles(granule, hls.bands, hls.fmask, None, HLS_L30, stated, (HLS_L30.scale, HLS_L30.offset))


def _refuse_other_folder(folder: Path, names: list[str]) -> None:
    """Say what a folder without `*_SR_B1.TIF` holds instead."""
    for product in sorted({product for name in names if (product := find_product_id(name))}):
        check_product_id(product, Path(shown(folder)))
    if any(_COLLECTION1_FILE.fullmatch(name) for name in names):
        raise DataError(f"{shown(folder)}: holds *_sr_band*.tif, a Collection-1 product; {LEVEL2_FIX}")
    if any(_LEVEL1_FILE.fullmatch(name) for name in names):
        raise DataError(
            f"{shown(folder)}: holds *_B*.TIF without SR: Level-1 or another sensor's numbers; {LEVEL2_FIX}"
        )
    raise DataError(f"{shown(folder)}: holds no *_SR_B1.TIF; {LEVEL2_FIX} and unpack it here")


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
        check_product_id(product, Path(shown(path)))
    stack = open_raster(path)
    export = export_in(stack) if chosen is None else None
    if export is not None:
        return _export_files(product, stack, export)
    if chosen is None:
        _require_names(stack)
        chosen = tuple(range(1, len(OLI.bands) + 1))
    present = set(range(1, stack.count + 1))
    if len(chosen) != len(OLI.bands) or len(set(chosen)) != len(chosen) or not set(chosen) <= present:
        listed = ",".join(map(str, chosen))
        raise ConfigError(f"--bands {listed}: give seven different numbers from 1 to {stack.count}, for SR_B1..SR_B7")
    bands = tuple(stack._replace(band=number) for number in chosen)
    beside = [path.with_name(f"{path.stem}_QA_PIXEL{end}") for end in (".tif", ".TIF", ".tiff")]
    qa = next((open_raster(file) for file in beside if is_file(file)), None)
    return SceneFiles(product, bands, qa, _mtl_beside(path.parent, path.stem))


def _export_files(product: str | None, stack: RasterFile, export: Export) -> SceneFiles:
    bands = tuple(stack._replace(band=number) for number in export.bands)
    qa = stack._replace(band=export.qa) if export.qa else None
    return SceneFiles(
        product, bands, qa, _mtl_beside(stack.path.parent, stack.path.stem), scale=scale_of(stack, export)
    )


def _require_names(stack: RasterFile) -> None:
    """Refuse a stack of another number or order of bands; bands without names pass."""
    where = shown(stack.path)
    numbers, wanted = [band_number(name) for name in stack.descriptions], list(range(1, len(OLI.bands) + 1))
    complete = all(number in numbers for number in wanted)
    order = ",".join(str(numbers.index(number) + 1) for number in wanted) if complete else "N,… of its SR_B1..SR_B7"
    other = sensor_with_bands([name for name in stack.descriptions if name])
    if other is not None:
        raise DataError(f"{where}: {refusal(other)}; {LEVEL2_FIX}")
    if stack.count != len(OLI.bands):
        raise DataError(
            f"{where}: has {stack.count} bands, expected {len(OLI.bands)}: SR_B1..SR_B7 of Landsat 8 or 9; give "
            f"--bands {order}"
        )
    if any(number is not None for number in numbers) and numbers != wanted:
        listed = ", ".join(name or "unnamed" for name in stack.descriptions)
        raise DataError(f"{where}: its bands are {listed}, expected SR_B1..SR_B7 in order; give --bands {order}")


def band_number(name: str | None) -> int | None:
    """3 for a description such as SR_B3, B03, "Band 3" or, as catalogues have it, green; None for any other."""
    index = OLI.index(name or "")
    return None if index is None else index + 1


def _mtl_beside(folder: Path, stem: str) -> Path | None:
    files = (folder / f"{stem}_MTL{end}" for end in (".json", ".txt"))
    return next((file for file in files if is_file(file)), None)
