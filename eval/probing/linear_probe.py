"""Linear probes of a representation: how C is looked for, and fits in as few dimensions as there are patches."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from classification_models.feature_rows import FeatureRows
from classification_models.logistic_regression import LogisticRegressionModel
from classification_models.row_space import RowSpace
from classification_models.scores import map_micro
from eval.probing.representation import Vectors
from eval.statistics.spatial_blocks import area_folds, neighbour_blocks
from eval.statistics.weighted_metrics import decisions_of
from utils.errors import DataError

MOST_TURNED = 4000
"""Training patches up to which their row space is computed once for every C; of more, it costs more than it saves."""

FOLDS = 5
"""Cross-validation folds of the training split where there is no validation split."""

DECISIVE = 500
"""Held-out patches from which a search may end early: the scores of fewer go up and down."""


class Search(NamedTuple):
    """How C is looked for."""

    grid: tuple[float, ...]
    folds: int = FOLDS
    """Of the training split, where there is no validation split."""
    tol: float | None = None
    """Of all fits; None is the solver's own."""
    margin: float | None = None
    """The search ends where a score is so far below the best one, the larger C being the slower ones; None never."""


class Choice(NamedTuple):
    """A C, and the predictions it was chosen by."""

    details: dict[str, Any]
    held_out: np.ndarray | None
    """(M, L) probabilities of patches that the probe of the chosen C had not seen; None where nothing was compared."""
    labels: np.ndarray
    """(M, L) or (M,) of the same patches."""


def choose(train: Vectors, val: Vectors | None, names: Sequence[str], seed: int, search: Search) -> Choice:
    """C by its score on the validation split, or else by cross-validation within the training split."""
    return _choose_on(val, train, names, search) if val is not None else _choose_within(train, names, seed, search)


def _choose_on(val: Vectors, train: Vectors, names: Sequence[str], search: Search) -> Choice:
    found = _along_grid(train, val, names, search.grid, search)
    return _best(found, val.y, search, f"{len(val.ids)} validation patches")


def _choose_within(train: Vectors, names: Sequence[str], seed: int, search: Search) -> Choice:
    """The held-out predictions of all folds are scored together."""
    details = {"C": 1.0, "chosen_on": "nothing: too few training patches", "grid": None, "grid_scores": None}
    fixed = Choice(details, None, train.y)
    if len(np.unique(neighbour_blocks(train.ids))) < 2 * search.folds:
        return fixed
    fold_of = area_folds(train.ids, search.folds, seed)
    held_out, grid = np.zeros((len(search.grid), len(train.ids), len(names))), search.grid
    for fold in range(search.folds):
        inside, outside = train.rows(fold_of != fold), fold_of == fold
        try:
            found = _along_grid(inside, train.rows(outside), names, grid, search)
        except DataError:  # a fold without a single positive, or of one class
            return fixed
        held_out[: len(found), outside], grid = found, grid[: len(found)]
    where = f"{search.folds} folds of the training split, areas kept whole"
    return _best(held_out[: len(grid)], train.y, search, where)


def _along_grid(
    train: Vectors, held_out: Vectors, names: Sequence[str], grid: Sequence[float], search: Search
) -> np.ndarray:
    """Probabilities (C, M, L) on patches that the probes are not fitted on, for every C until the search ends."""
    task, found, scores = _standardised(train, held_out), [], []
    for C in grid:
        probe = probe_of(train, C=C, scale=task.scale, tol=search.tol).fit(task.fitted_on, train.y)
        found.append(probabilities_of(probe, task.evaluated_on, len(names)))
        if search.margin is not None and len(held_out.ids) >= DECISIVE:
            scores.append(_headline(found[-1], held_out.y))
            if scores[-1] < max(scores) - search.margin:
                break
    return np.stack(found)


def _best(held_out: np.ndarray, labels: np.ndarray, search: Search, where: str) -> Choice:
    """The C whose predictions, one of the (C, M, L) `held_out`, score best."""
    found = [_headline(probabilities, labels) for probabilities in held_out]
    best = int(np.argmax(found))
    details = {
        "C": search.grid[best],
        "chosen_on": where,
        "grid": list(search.grid[: len(found)]),
        "grid_scores": found,
        "at_edge_of_grid": best in (0, len(search.grid) - 1),
    }
    return Choice(details, held_out[best], labels)


def fitted(
    train: Vectors, test: Vectors, names: Sequence[str], C: float, tol: float | None = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Probabilities (N, L) on `test` by the probe fitted on `train`, and facts of the fit."""
    task = _standardised(train, test)
    probe = probe_of(train, C=C, scale=task.scale, tol=tol).fit(task.fitted_on, train.y)
    return probabilities_of(probe, task.evaluated_on, len(names)), fit_details(probe)


def _headline(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The one score that C is chosen by: all the others would cost more than many a fit."""
    if labels.ndim == 1:
        return float((decisions_of(probabilities, multilabel=False) == labels).mean())
    value = map_micro(labels > 0, probabilities)
    return -1.0 if value is None else value


def probe_of(train: Vectors, **settings: Any) -> LogisticRegressionModel:
    return LogisticRegressionModel(multilabel=train.y.ndim == 2, **settings)


def probabilities_of(probe: LogisticRegressionModel, x: np.ndarray, classes: int) -> np.ndarray:
    """(N, L) probabilities; a class without a training sample has 0."""
    found = probe.predict_proba(x)
    if probe.multilabel:
        return found
    full = np.zeros((len(x), classes), found.dtype)
    full[:, probe.classes_] = found
    return full


def fit_details(probe: LogisticRegressionModel) -> dict[str, Any]:
    report = probe.report
    return {
        "C": probe.C,
        "solver": report["solver"],
        "iterations": max(report["n_iter"]),
        "converged": report["converged"],
        "classifiers": len(report["n_iter"]),
        "not_converged": len(report["not_converged"]),
        "seconds": report["seconds"],
    }


class _Task(NamedTuple):
    """What a standardised probe is fitted and evaluated on."""

    fitted_on: np.ndarray
    """(N, D)"""
    evaluated_on: np.ndarray
    """(M, D)"""
    scale: bool
    """The probe is to standardise them itself, chunk by chunk; else it is done."""


def _standardised(train: Vectors, other: Vectors) -> _Task:
    """Features of two sets, standardised by the first; of more features than patches, their share of its row space.

    A fit with an L2 penalty has weights in the space that the patches it is fitted on span. Turned into that space, the
    features are as few as those patches, and the fit and all it predicts are the same. Of more patches no copy is made.
    """
    patches, features = train.x.shape
    if not (patches <= MOST_TURNED and patches < features):
        return _Task(train.x, other.x, scale=True)
    space = RowSpace(FeatureRows(train.x, torch.device("cpu")), scale=True)
    return _Task(space.rows, space.project(other.x), scale=False)


def standard(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every feature; 1 for one that never changes."""
    std = x.std(axis=0, dtype=np.float64)
    return x.mean(axis=0, dtype=np.float64), np.where(std > 0, std, 1.0)
