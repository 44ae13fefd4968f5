"""From labels to a probe: burn, take the labelled cells, score, fit, and say what came of it."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio.warp
from rasterio.crs import CRS

from scenes.input.reader import SceneReader
from scenes.labels.features import pixels_of_cells
from scenes.labels.probe import TITLES, LabelledCells, fit_cells, score_cells, thinned
from scenes.labels.raster import Labels, write_label_raster
from scenes.products.embedding_file import EmbeddingMap
from scenes.products.labelled import SPLIT, write_labelled_cells
from scenes.windows import Frame
from utils.errors import DataError
from utils.files import write_json
from utils.reporting import reporter


class LabelWork(NamedTuple):
    """What there is when labels are to be used."""

    labels: Labels
    reader: SceneReader
    frame: Frame
    embeddings: EmbeddingMap
    visible: int
    """Visible cells of the map."""
    origin: dict[str, Any]
    """Where the embeddings come from; see `scenes.products.labelled.write_labelled_cells`."""
    folder: Path
    """For what is kept."""
    scratch: Path


class FittedLabels(NamedTuple):
    """A probe on labels, as files."""

    probe: Path
    """`.npz`, with the JSON that `scenes.products.land_cover.load_probe` reads beside it."""
    files: list[Path]
    record: dict[str, Any]


def fit_labels(work: LabelWork) -> FittedLabels:
    """Fit and score a probe.

    Raises:
        DataError: when the labels name fewer than two classes in visible cells.
    """
    labels, grid = work.labels, work.frame.grid
    truth = write_label_raster(labels, grid, work.scratch / "labels.tif")
    path = work.folder / "labelled_cells.npz"
    try:
        path, count = write_labelled_cells(path, work.embeddings, work.frame, truth, work.visible, work.origin)
    except DataError as error:
        raise DataError(
            f"{labels.path}: labels no visible cell of the scene (a polygon counts where it covers half of a cell of "
            f"{work.frame.cell * grid.transform.a:g} m); give larger ones, or --cell {work.frame.patch}"
        ) from error
    cells = _labelled_cells(path, work)
    counts = np.bincount(cells.y, minlength=len(labels.names))
    if (counts > 0).sum() < 2:
        only = labels.names[int(counts.argmax())]
        raise DataError(f"{labels.path}: only {only} is in visible cells; a map needs two classes or more")
    lost = [name for name, number in zip(labels.names, counts, strict=True) if not number]
    for note in (*labels.notes, *(f"no visible cell is {name}: the map will not show it" for name in lost)):
        reporter.info(f"note         {note}")
    scored = score_cells(cells)
    probe = fit_cells(cells, scored).save(work.folder / "labels_probe.npz")
    record = {
        "file": labels.path.name,
        "cells": count,
        "fitted_on": len(cells.y),
        "cells_by_class": {name: int(number) for name, number in zip(labels.names, counts, strict=True)},
        **scored,
    }
    about = {"classes": list(labels.names), "labels": record, "embeddings": {"train": work.origin}}
    beside = write_json(probe.with_suffix(".json"), about)
    _report(record)
    return FittedLabels(probe, [path, path.with_suffix(".json"), probe, beside], record)


def _labelled_cells(path: Path, work: LabelWork) -> LabelledCells:
    with np.load(path) as arrays:
        part = thinned(len(arrays["ids"]))
        x, y, ids = (arrays[name][part] for name in (f"x_{SPLIT}", f"y_{SPLIT}", "ids"))
    rows, columns = np.array([name.rsplit("_", 2)[1:] for name in ids.tolist()], np.int64).T
    grid = work.embeddings.transform
    xs, ys = grid.c + grid.a * (columns + 0.5), grid.f + grid.e * (rows + 0.5)
    lon, lat = rasterio.warp.transform(work.embeddings.crs, CRS.from_epsg(4326), xs, ys)[:2]
    pixels = pixels_of_cells(work.reader, work.frame, rows, columns)
    return LabelledCells(x, y.astype(np.int64), ids.tolist(), np.stack([lat, lon], 1), pixels, work.labels.names)


def _report(record: dict[str, Any]) -> None:
    present = sum(number > 0 for number in record["cells_by_class"].values())
    reporter.info(f"labels       {record['cells']:,} visible cells of {present} classes in {record['file']}")
    if "not_scored" in record:
        reporter.info(f"score        none: {record['not_scored']}")
        return
    reporter.info(
        f"score        by {record['folds']} folds of {record['squares']} squares of {record['square_km']:g} km (95 % "
        f"interval); the most frequent class alone: accuracy {record['most_frequent_class']:.1%}"
    )
    for name, title in TITLES.items():
        accuracy, f1 = (_percent(record["scores"][name][key]) for key in ("accuracy", "f1_macro"))
        reporter.info(f"             {title}: accuracy {accuracy}, F1 macro {f1}")


def _percent(interval: dict[str, float | None]) -> str:
    text = f"{interval['value']:.1%}"
    if interval["low"] is None or interval["high"] is None:
        return text
    return f"{text} ({interval['low']:.1%} to {interval['high']:.1%})"
