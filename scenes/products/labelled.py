"""Cells with the class that covers most of them, as an embedding file that a probe can be fitted on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
from rasterio.windows import Window

from classification_models.embeddings import X_CHECKSUMS
from scenes.input.grids import SceneGrid, difference, open_raster
from scenes.products.embedding_file import EmbeddingMap
from scenes.windows import Frame
from utils.checked_json import write_checked_json
from utils.errors import DataError
from utils.files import write_checked_npz
from utils.parsing import parse_json

UNKNOWN = 255
"""In a truth raster: no class."""
LEAST_LABELLED = 0.5
"""Share of a cell that the truth must name for the cell to count."""
MOST_CELLS = 200_000
"""Of a larger map, every n-th labelled cell is taken: enough for a linear probe, and little memory."""
SPLIT = "train"
"""Of the arrays' names, as `train_logistic_regression.py` reads them."""


class Truth(NamedTuple):
    """A land-cover raster on the scene's grid."""

    path: Path
    classes: tuple[str, ...] | None
    """Names by index, from its tag `classes` (JSON); None where it has none."""
    least: float = LEAST_LABELLED
    """Share of a cell that must have a class."""


class CellClass(NamedTuple):
    """The truth in a row of cells."""

    main: np.ndarray  # (columns,) class index; the one with the largest share
    share: np.ndarray  # (columns,) of the cell
    known: np.ndarray  # (columns,) bool, enough of the cell has a class


def open_truth(path: Path, grid: SceneGrid) -> Truth:
    """Check a truth raster. Raises DataError for another grid than the scene's, or other values than uint8."""
    truth = open_raster(path)
    if difference(grid, truth._replace(crs=truth.crs if grid.crs else None)):
        raise DataError(f"{path}: its grid is not the scene's; warp it to the band files' grid with gdalwarp -r near")
    if truth.dtype != "uint8":
        raise DataError(f"{path}: holds {truth.dtype} values; give class indices as uint8, {UNKNOWN} where unknown")
    with rasterio.open(path) as file:
        try:
            classes = parse_json(file.tags().get("classes", "null")) or []
            if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
                raise ValueError("no list of names")
        except ValueError as error:
            raise DataError(f"{path}: its tag `classes` is no JSON list of names; correct or remove it") from error
    return Truth(path, tuple(classes) or None)


def cell_classes(truth: Truth, frame: Frame) -> Iterator[CellClass]:
    """The truth of every row of cells, from top to bottom."""
    with rasterio.open(truth.path) as file:
        for row in range(frame.output_shape[0]):
            blocks = _blocks(file, frame, row)
            indices = np.unique(blocks)
            indices = indices[indices != UNKNOWN] if (indices != UNKNOWN).any() else np.array([0], np.uint8)
            shares = np.stack([(blocks == index).mean(axis=1) for index in indices])
            best = shares.argmax(axis=0)
            yield CellClass(indices[best].astype(np.int64), shares.max(axis=0), shares.sum(axis=0) >= truth.least)


def _blocks(file: rasterio.DatasetReader, frame: Frame, row: int) -> np.ndarray:
    """(columns, pixels of a cell) of a row of cells, UNKNOWN outside the scene and where the file declares nodata."""
    cell, columns = frame.cell, frame.output_shape[1]
    top = (frame.output_rows.start + row) * cell - frame.above
    left = frame.output_columns.start * cell - frame.left
    padded = np.full((cell, columns * cell), UNKNOWN, np.uint8)
    rows = slice(max(0, top), min(file.height, top + cell))
    stop = min(file.width, left + columns * cell)
    window = Window.from_slices(rows, slice(max(0, left), stop))
    inside = np.where(file.read_masks(1, window=window) == 0, UNKNOWN, file.read(1, window=window))
    padded[rows.start - top : rows.stop - top, max(0, -left) : stop - left] = inside
    return padded.reshape(cell, columns, cell).swapaxes(0, 1).reshape(columns, -1)


def write_labelled_cells(
    path: Path, embeddings: EmbeddingMap, frame: Frame, truth: Truth, visible: int, origin: dict[str, Any]
) -> tuple[Path, int]:
    """Write `x_train` (N, D) float32, `y_train` (N,) and `ids` of the visible cells with a class, and a JSON beside it.

    Args:
        path: the `.npz`; ids are `<scene>_<row>_<column>`.
        embeddings: the map.
        frame: of the scene.
        truth: the classes.
        visible: how many cells of the map are; decides which share of them is taken.
        origin: where the embeddings come from, for the JSON; `scene` is its name.

    Returns:
        The path and N.

    Raises:
        DataError: when no visible cell has a class.
    """
    rows, step, count = cell_classes(truth, frame), -(-visible // MOST_CELLS) or 1, 0
    x, y, ids = [], [], []
    for cells in embeddings.stripes():
        for offset, valid in enumerate(cells.valid):
            known = next(rows)
            columns = np.flatnonzero(valid & known.known)
            first, count = -count % step, count + len(columns)
            columns = columns[first::step]
            x.append(cells.values[offset, columns])
            y.append(known.main[columns])
            ids += [f"{origin['scene']}_{cells.top + offset}_{column}" for column in columns]
    if not ids:
        raise DataError(f"{truth.path}: names no class in any visible cell; check that it belongs to this scene")
    labels = np.concatenate(y).astype(np.int16)
    others = {f"y_{SPLIT}": labels, "ids": np.array(ids)}
    checksums = write_checked_npz(path, f"x_{SPLIT}", np.concatenate(x), others)
    classes = truth.classes or tuple(f"class {index}" for index in range(int(labels.max()) + 1))
    shapes = {"x_shape": [len(ids), embeddings.count], "y_shape": [len(ids)]}
    kind = {"tokens": 1, "width": embeddings.count, "multilabel": False, "classes": list(classes)}
    about = {"split": SPLIT, **shapes, X_CHECKSUMS: checksums._asdict(), **kind, **origin}
    write_checked_json(path.with_suffix(".json"), about)
    return path, len(ids)
