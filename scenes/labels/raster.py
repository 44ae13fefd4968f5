"""Labels on the scene's grid: shapes burnt in, or a raster of classes warped by nearest neighbour."""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
import rasterio.features
import rasterio.warp
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.transform import array_bounds
from rasterio.windows import Window, from_bounds
from rasterio.windows import transform as window_transform

from scenes.input.grids import SceneGrid
from scenes.labels.shapes import TABLE_ENDINGS, VECTOR_ENDINGS, Shapes, ordered_names, read_shapes
from scenes.products.labelled import LEAST_LABELLED, UNKNOWN, Truth
from utils.errors import DataError
from utils.files import make_folder
from utils.parsing import parse_json

ROWS = 512
"""Of the scene, handled at a time."""
MARGIN = 2
"""Pixels of the labels around a stripe that are read with it."""
ONE_PIXEL = 1e-9
"""Least labelled share of a cell where points are the labels: one is enough."""


class Labels(NamedTuple):
    """Labels that have been found good, before anything is computed."""

    path: Path
    names: tuple[str, ...]
    shapes: Shapes | None
    """None where the file is a raster."""
    values: tuple[int, ...] = ()
    """Of a raster: the number of each class."""
    notes: tuple[str, ...] = ()


def open_labels(path: Path, column: str | None, grid: SceneGrid) -> Labels:
    """Read what is needed to know the classes.

    Raises:
        DataError, ConfigError: for a scene without a place, and labels that cannot be read or lie outside of it.
    """
    if grid.crs is None or not grid.georeferenced:
        raise DataError(f"--labels {path}: the scene has no georeference, so no label can be placed in it")
    if not path.exists():
        raise DataError(f"{path}: no such file; give polygons, points (.csv with lon, lat, class) or a raster")
    if path.suffix.lower() in (*TABLE_ENDINGS, *VECTOR_ENDINGS):
        shapes = read_shapes(path, column, grid.crs)
        _check_inside(path, shapes, grid)
        notes = (f"{shapes.left_out:,} shapes without a class or a place are left out",) if shapes.left_out else ()
        return Labels(path, shapes.names, shapes, notes=notes)
    return _open_raster(path, grid)


def write_label_raster(labels: Labels, grid: SceneGrid, path: Path) -> Truth:
    """Class indices on the scene's grid, `UNKNOWN` wherever no label is or two contradict each other."""
    make_folder(path.parent)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": grid.height, "width": grid.width,
               "crs": grid.crs, "transform": grid.transform, "nodata": UNKNOWN, "compress": "deflate"}  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.update_tags(classes=json.dumps(labels.names))
        for top in range(0, grid.height, ROWS):
            part = _rows_of(grid, top)
            window = Window.from_slices((top, top + part.height), (0, grid.width))
            burnt = _burn(labels.shapes, part) if labels.shapes else _warp(labels, part)
            file.write(burnt, 1, window=window)
    points = labels.shapes is not None and labels.shapes.only_points
    return Truth(path, labels.names, ONE_PIXEL if points else LEAST_LABELLED)


def _rows_of(grid: SceneGrid, top: int) -> SceneGrid:
    height = min(ROWS, grid.height - top)
    window = Window.from_slices((top, top + height), (0, grid.width))
    return SceneGrid(grid.crs, window_transform(window, grid.transform), height, grid.width)


def _check_inside(path: Path, shapes: Shapes, grid: SceneGrid) -> None:
    left, bottom, right, top = array_bounds(grid.height, grid.width, grid.transform)
    edges = np.array([rasterio.features.bounds(shape) for shape in shapes.geometries])
    inside = (edges[:, 0] < right) & (edges[:, 2] > left) & (edges[:, 1] < top) & (edges[:, 3] > bottom)
    if not inside.any():
        raise DataError(f"{path}: none of its {len(edges):,} shapes lies in the scene; check its coordinates and CRS")


def _burn(shapes: Shapes, part: SceneGrid) -> np.ndarray:
    """(h, w) uint8; a pixel belongs to the polygon that its centre lies in."""
    left, bottom, right, top = array_bounds(part.height, part.width, part.transform)
    result = np.full((part.height, part.width), UNKNOWN, np.uint8)
    taken = np.zeros(result.shape, bool)
    for index in range(len(shapes.names)):
        chosen = []
        for shape in (shapes.geometries[i] for i in np.flatnonzero(shapes.classes == index)):
            edges = rasterio.features.bounds(shape)
            if edges[0] <= right and edges[2] >= left and edges[1] <= top and edges[3] >= bottom:
                chosen.append(shape)
        if not chosen:
            continue
        burnt = np.zeros(result.shape, np.uint8)
        rasterio.features.rasterize(chosen, out=burnt, transform=part.transform)
        burnt = burnt > 0
        result[burnt & ~taken], result[burnt & taken] = index, UNKNOWN
        taken |= burnt
    return result


def _open_raster(path: Path, grid: SceneGrid) -> Labels:
    try:
        with rasterio.open(path) as file:
            kind, count, crs, nodata = file.dtypes[0], file.count, file.crs, file.nodata
            known = _names_in(path, file.tags())
    except (RasterioError, OSError) as error:
        raise DataError(
            f"{path}: cannot be read; give polygons ({', '.join(VECTOR_ENDINGS)}), points (.csv) or a raster (.tif)"
        ) from error
    if np.dtype(kind).kind not in "iu" or count != 1:
        raise DataError(f"{path}: holds {count} x {kind}; labels are one band of whole numbers")
    if crs is None:
        raise DataError(f"{path}: does not say its coordinate reference system; set it (gdal_edit.py -a_srs)")
    found: set[int] = set()
    for top in range(0, grid.height, ROWS):
        for values, seen, _ in _windows(path, _rows_of(grid, top)):
            found.update(np.unique(values[seen]).tolist())
    unsaid = () if nodata is not None else _unlabelled(found, kind, known)
    values = sorted(found - set(unsaid))
    if not values:
        raise DataError(f"{path}: labels no pixel of the scene; check that it belongs there")
    names = [known.get(value) or f"class {value}" for value in values]
    if len(set(names)) < len(names):
        names = [f"{name} ({value})" for name, value in zip(names, values, strict=True)]
    ordered_names(path, set(names))
    notes = ()
    if unsaid:
        listed = ", ".join(map(str, sorted(unsaid)))
        notes = (f"{path.name} declares no nodata value: {listed} is taken for unlabelled",)
    return Labels(path, tuple(names), None, tuple(values), notes)


def _unlabelled(found: set[int], kind: str, known: dict[int, str]) -> tuple[int, ...]:
    """Numbers that stand for no label where the file does not say so: 0, negative ones and the type's largest."""
    largest = np.iinfo(kind).max
    return tuple(value for value in found if (value <= 0 or value == largest) and not known.get(value))


def _names_in(path: Path, tags: dict[str, str]) -> dict[int, str]:
    """Names of numbers: from the tag `classes` (JSON list), else GDAL's category names beside the file."""
    try:
        names = parse_json(tags.get("classes", "null")) or []
        if not isinstance(names, list):
            return {}
        if not names and (beside := path.with_name(f"{path.name}.aux.xml")).is_file():
            names = [entry.text for entry in ElementTree.parse(beside).iterfind(".//CategoryNames/Category")]
    except (ValueError, OSError, ElementTree.ParseError):
        return {}
    return {index: str(name).strip() for index, name in enumerate(names) if name and str(name).strip()}


def _windows(path: Path, part: SceneGrid) -> Iterator[tuple[np.ndarray, np.ndarray, rasterio.Affine]]:
    """Numbers, where they are labels, and the georeference, of the labels around a stripe; nothing where none are."""
    with rasterio.open(path) as file:
        whole = Window(0, 0, file.width, file.height)  # pyright: ignore[reportCallIssue] - attrs makes its arguments
        edges = array_bounds(part.height, part.width, part.transform)
        try:
            edges = rasterio.warp.transform_bounds(part.crs or CRS(), file.crs, *edges)
            around = from_bounds(*edges, transform=file.transform)
            rows, columns = around.toslices()
            window = Window.from_slices(
                (max(0, int(rows.start) - MARGIN), min(file.height, int(rows.stop) + 1 + MARGIN)),
                (max(0, int(columns.start) - MARGIN), min(file.width, int(columns.stop) + 1 + MARGIN)),
            )
        except Exception:  # rotated, south up or outside a projection: all of it
            window = whole
        if window.width > 0 and window.height > 0:
            transform = file.window_transform(window)
            yield file.read(1, window=window), file.read_masks(1, window=window) > 0, transform


def _warp(labels: Labels, part: SceneGrid) -> np.ndarray:
    result = np.full((part.height, part.width), UNKNOWN, np.uint8)
    with rasterio.open(labels.path) as file:
        crs = file.crs
    for values, seen, transform in _windows(labels.path, part):
        indices = np.full(values.shape, UNKNOWN, np.uint8)
        for index, value in enumerate(labels.values):
            indices[seen & (values == value)] = index
        rasterio.warp.reproject(
            indices,
            result,
            src_transform=transform,
            src_crs=crs,
            dst_transform=part.transform,
            dst_crs=part.crs,
            src_nodata=UNKNOWN,
            dst_nodata=UNKNOWN,
            resampling=Resampling.nearest,
        )
    return result
