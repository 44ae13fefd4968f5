"""A probe on a user's labelled cells, scored by spatial cross-validation beside two baselines without a model."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from classification_models.logistic_regression import LogisticRegressionModel
from eval.probing.protocols import strong_probe
from eval.probing.representation import Vectors, score_probabilities
from eval.statistics.bootstrap import SHARE, Interval, resample
from eval.statistics.spatial_blocks import PATCH_KM, neighbour_blocks, split_by_area
from eval.statistics.weighted_metrics import statistics_of
from scenes.labels.features import CellPixels
from utils.errors import DataError

FOLDS = 5
BLOCK_SIDES = (10, 5, 2, 1)
"""Sides of the squares that stay on one side, in windows of 1.2 km: the largest that gives enough of them is taken."""
LEAST_BLOCKS = 3 * FOLDS
MOST_CELLS = 6000
"""Of more labelled cells every n-th is taken: neighbours are alike, and a linear probe gains little from more."""
GRID = (0.01, 0.1, 1.0)
"""Values of C; between them, scores hardly change."""
SEED = 0
TITLES = {"embedding": "embeddings", "statistics": "statistics of the cell", "pixels": "single pixels"}


class LabelledCells(NamedTuple):
    """Cells with a class."""

    x: np.ndarray
    """(N, D) embeddings."""
    y: np.ndarray
    """(N,) class index."""
    ids: list[str]
    places: np.ndarray
    """(N, 2) latitude and longitude of their centres."""
    pixels: CellPixels
    names: tuple[str, ...]


class Blocks(NamedTuple):
    """Squares on the ground that stay whole."""

    block_of: np.ndarray
    fold_of: np.ndarray
    side: int


class Held(NamedTuple):
    """A representation's predictions of cells that its probe has not seen, and which C was chosen."""

    probabilities: np.ndarray
    chosen: list[float]


def thinned(count: int) -> slice:
    """Every n-th of so many cells, so that at most `MOST_CELLS` are left."""
    return slice(None, None, -(-count // MOST_CELLS) or 1)


def choose_blocks(cells: LabelledCells) -> Blocks | None:
    """Squares as large as they can be with enough of them; None where there are fewer than folds at any size."""
    for side in BLOCK_SIDES:
        blocks = neighbour_blocks(cells.ids, cells.places, side)
        if len(np.unique(blocks)) >= (LEAST_BLOCKS if side > BLOCK_SIDES[-1] else FOLDS):
            splits = split_by_area(cells.ids, {str(fold): 1.0 for fold in range(FOLDS)}, SEED, cells.places, side)
            fold_of = {name: int(fold) for fold, members in splits.items() for name in members}
            return Blocks(blocks, np.array([fold_of[name] for name in cells.ids]), side)
    return None


def score_cells(cells: LabelledCells) -> dict[str, Any]:
    """Accuracy and macro F1 by spatial cross-validation, with 95 % intervals over squares.

    Each fifth of the squares is predicted by a probe fitted on three others, whose C was chosen on the one left; so
    neither fit nor choice has seen the ground that is scored, or its neighbours within a square.

    Returns:
        JSON-ready: scores of the three representations, differences, per class, and what was divided; or
        `not_scored` with the reason.
    """
    blocks = choose_blocks(cells)
    if blocks is None:
        squares = f"{len(np.unique(neighbour_blocks(cells.ids, cells.places, BLOCK_SIDES[-1])))} squares of 1.2 km"
        return {"not_scored": f"the labelled cells lie in {squares}, too few for {FOLDS} folds"}
    cells_themselves = np.arange(len(cells.y))
    work: dict[str, Callable[[], Held]] = {
        "embedding": lambda: _held_out(cells, blocks, cells.x, cells_themselves),
        "statistics": lambda: _held_out(cells, blocks, cells.pixels.statistics, cells_themselves),
        "pixels": lambda: _held_out_pixels(cells, blocks),
    }
    try:
        held = {name: predict() for name, predict in work.items()}
    except DataError as error:  # a fold of one class
        return {"not_scored": f"the classes lie too far apart to leave {FOLDS} folds with two of them ({error})"}
    metrics = {name: _metrics(cells, found) for name, found in held.items()}
    resampled = {
        name: {
            figure: resample(statistic, blocks.block_of, SEED, limits=SHARE)
            for figure, statistic in statistics_of(metrics[name], cells.y, found.probabilities).items()
            if figure in ("accuracy", "f1_macro")
        }
        for name, found in held.items()
    }
    scores = {name: {key: _plain(value.interval()) for key, value in of.items()} for name, of in resampled.items()}
    ours = resampled["embedding"]
    return {
        "scores": scores,
        "embedding_minus": {
            name: {key: _plain(ours[key].minus(value).interval()) for key, value in of.items()}
            for name, of in resampled.items()
            if name != "embedding"
        },
        "most_frequent_class": float(np.bincount(cells.y).max() / len(cells.y)),
        "folds": FOLDS,
        "squares": len(np.unique(blocks.block_of)),
        "square_km": round(blocks.side * PATCH_KM, 1),
        "C": {name: found.chosen for name, found in held.items()},
        "per_class": {row["name"]: _of_class(row) for row in metrics["embedding"]["per_class"] if row["support"]},
    }


def fit_cells(cells: LabelledCells, scored: dict[str, Any]) -> LogisticRegressionModel:
    """The probe of the map: fitted on all cells, with the C that was chosen most often, the smallest of equals."""
    chosen = scored.get("C", {}).get("embedding") or [1.0]
    C = max(sorted(set(chosen)), key=chosen.count)
    return LogisticRegressionModel(scale=True, C=C).fit(cells.x, cells.y)


def _held_out(cells: LabelledCells, blocks: Blocks, x: np.ndarray, cell_of: np.ndarray, step: int = 1) -> Held:
    """Predictions of rows (M, D), added up by the cell (M,) that each belongs to; every `step`-th row is fitted on."""
    some = np.arange(0, len(x), step)
    labels, folds = cells.y[cell_of], blocks.fold_of[cell_of]
    out, chosen = np.zeros((len(cells.y), len(cells.names))), []
    for fold in range(FOLDS):
        test, val = folds == fold, folds == (fold + 1) % FOLDS
        scored = np.flatnonzero(test)
        fitted, chosen_on, held = (
            Vectors(x[rows], labels[rows], [cells.ids[cell] for cell in cell_of[rows].tolist()])
            for rows in (some[~(test | val)[some]], some[val[some]], scored)
        )
        found = strong_probe(fitted, chosen_on, held, cells.names, grid=GRID)
        np.add.at(out, cell_of[scored], found.scores)
        chosen.append(float(found.details["C"]))
    return Held(out, chosen)


def _held_out_pixels(cells: LabelledCells, blocks: Blocks) -> Held:
    """A cell is the mean of its pixels' probabilities."""
    of = cells.pixels
    summed = _held_out(cells, blocks, of.pixels, of.cell_of, -(-len(of.pixels) // MOST_CELLS) or 1)
    return summed._replace(
        probabilities=summed.probabilities / np.maximum(summed.probabilities.sum(axis=1, keepdims=True), 1e-12)
    )


def _metrics(cells: LabelledCells, held: Held) -> dict[str, Any]:
    return score_probabilities(held.probabilities, cells.y, cells.y, cells.names)


def _plain(interval: Interval) -> dict[str, float | None]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def _of_class(row: dict[str, Any]) -> dict[str, Any]:
    return {"cells": int(row["support"]), **{key: row[key] for key in ("precision", "recall", "f1")}}
