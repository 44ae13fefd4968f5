"""Evaluation protocols of frozen representations: Landsat-Bench's two, exactly, and a stronger linear probe.

A protocol takes the three splits of one representation and returns scores on the test split, with the probabilities
that they come from, so that intervals (`eval.statistics.bootstrap`) need no second fit.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from classification_models.calibration import at_temperature, expected_calibration_error, fit_temperature
from classification_models.logistic_regression import LogisticRegressionModel
from classification_models.scores import score_multiclass, score_multilabel
from eval.probing.knn import NEIGHBOURS, neighbour_votes
from eval.statistics.spatial_blocks import area_folds, neighbour_blocks
from eval.statistics.weighted_metrics import Statistic, decisions_of, statistics_of
from utils.errors import DataError

LANDSAT_BENCH = {"C": 1.0, "solver": "sag", "max_iter": 1000}
"""The probe of arXiv:2506.08780; one binary model per label where there are several."""

C_GRID = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
"""That the strong probe chooses from; the first of equally good ones."""

MOST_TURNED = 4000
"""Training patches up to which their row space is computed; of more, the SVD costs more than it saves."""

FOLDS = 5
"""Cross-validation folds of the training split where there is no validation split."""


class Search(NamedTuple):
    """How C is looked for."""

    grid: tuple[float, ...] = C_GRID
    folds: int = FOLDS
    """Of the training split, where there is no validation split."""
    tol: float | None = None
    """Of all fits; None is the solver's own."""
    margin: float | None = None
    """The search ends where a score is so far below the best one, the larger C being the slower ones; None never."""


QUICK = Search(grid=(0.001, 0.01, 0.1, 1.0, 10.0), folds=3, tol=1e-5, margin=0.005)
"""For many representations of hundreds of numbers: a tenth of the time."""

DECISIVE = 500
"""Held-out patches from which a search may end early: the scores of fewer go up and down."""


class Vectors(NamedTuple):
    """One split of patches in one representation."""

    x: np.ndarray
    """(N, D) real numbers."""
    y: np.ndarray
    """(N,) class indices or (N, L) multi-hot."""
    ids: Sequence[str]

    def rows(self, chosen: np.ndarray) -> "Vectors":
        """Some of the patches: (M,) indices, or (N,) booleans."""
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        indices: list[int] = chosen.tolist()
        return Vectors(self.x[chosen], self.y[chosen], [self.ids[index] for index in indices])


class Scores(NamedTuple):
    """One protocol on one test split."""

    metrics: dict[str, Any]
    """As `score_multilabel` and `score_multiclass` give them."""
    scores: np.ndarray
    """(N, L) probabilities on the test split."""
    labels: np.ndarray
    """(N, L) or (N,)"""
    details: dict[str, Any]
    """What was fitted and how; JSON-ready."""

    def statistics(self) -> dict[str, Statistic]:
        """The headline figures for a bootstrap; see `eval.statistics.weighted_metrics.statistics_of`."""
        return statistics_of(self.metrics, self.labels, self.scores)

    @property
    def headline(self) -> str:
        """Landsat-Bench's figure: "map_micro" for several labels, "accuracy" for classes."""
        return "map_micro" if self.labels.ndim == 2 else "accuracy"


class ProtocolFunction(Protocol):
    """Fits on `train`, chooses on `val` if it chooses at all, scores on `test`; `names` are the L classes'."""

    def __call__(
        self, train: Vectors, val: Vectors | None, test: Vectors, names: Sequence[str], /, *, seed: int = 0
    ) -> Scores: ...


def knn5(
    train: Vectors, val: Vectors | None, test: Vectors, names: Sequence[str], /, *, seed: int = 0, scale: bool = False
) -> Scores:
    """Landsat-Bench's kNN-5: see `eval.probing.knn`. Deterministic: `val` and `seed` are unused.

    Args:
        train, val, test: the splits.
        names: of the classes.
        seed: not used.
        scale: standardise features by their training mean and standard deviation.
    """
    mean, std = _standard(train.x) if scale else (0, 1)
    train_x, test_x = ((part.x - mean) / std if scale else part.x for part in (train, test))
    votes = neighbour_votes(train_x, train.y, test_x, len(names))
    return _scored(votes, train, test, names, {"neighbours": min(NEIGHBOURS, len(train.x)), "scale": scale})


def landsat_bench_probe(
    train: Vectors, val: Vectors | None, test: Vectors, names: Sequence[str], /, *, seed: int = 0, scale: bool = False
) -> Scores:
    """Landsat-Bench's probe, `LANDSAT_BENCH`: it often stops before convergence, which `details` reports.

    Args:
        train, val, test: the splits; `val` is not used.
        names: of the classes.
        seed: of the stochastic solver.
        scale: Landsat-Bench scales for Prithvi only.
    """
    probe = _probe(train, seed=seed, scale=scale, **LANDSAT_BENCH).fit(train.x, train.y)
    details = _fit_details(probe) | {"scale": scale}
    return _scored(_probabilities(probe, test.x, len(names)), train, test, names, details)


def strong_probe(
    train: Vectors,
    val: Vectors | None,
    test: Vectors,
    names: Sequence[str],
    /,
    *,
    seed: int = 0,
    grid: Sequence[float] | None = None,
) -> Scores:
    """A probe as good as a linear one gets: standardised, converged, C chosen on the validation split.

    C has the best micro mAP (accuracy for classes) of a grid. Without a validation split it is chosen by
    cross-validation within the training split, neighbouring patches on one side; with too few patches for that it
    is 1. The probe scored is fitted on the training split alone.

    Args:
        train, val, test: the splits; `val` may be None.
        names: of the classes.
        seed: of the folds.
        grid: values of C, the first of equally good ones is taken; None is `C_GRID`.
    """
    choice = _choose(train, val, names, seed, Search(grid=tuple(C_GRID if grid is None else grid)))
    found, details = _fitted(train, test, names, choice.details["C"])
    return _scored(found, train, test, names, details | choice.details)


def calibrated_probe(
    train: Vectors, val: Vectors | None, test: Vectors, names: Sequence[str], /, *, seed: int = 0
) -> Scores:
    """The strong probe, chosen in a shorter `Search`, and how well its probabilities are calibrated.

    One temperature is fitted on the predictions that C was chosen by, of patches that those probes had not seen.
    `details` tell the calibration error on the test split without and with it; the scores are those without.

    Args:
        train, val, test, names, seed: see `strong_probe`.
    """
    choice = _choose(train, val, names, seed, QUICK)
    found, details = _fitted(train, test, names, choice.details["C"], QUICK.tol)
    temperature = 1.0 if choice.held_out is None else fit_temperature(choice.held_out, choice.labels)
    scaled = at_temperature(found, temperature, test.y.ndim == 2)
    calibration = {
        "temperature": temperature,
        "calibration_error": expected_calibration_error(found, test.y),
        "calibration_error_scaled": expected_calibration_error(scaled, test.y),
    }
    return _scored(found, train, test, names, details | choice.details | calibration)


PROTOCOLS: dict[str, ProtocolFunction] = {
    "knn5": knn5,
    "knn5_scaled": partial(knn5, scale=True),
    "landsat_bench_probe": landsat_bench_probe,
    "strong_probe": strong_probe,
    "calibrated_probe": calibrated_probe,
}

PROTOCOL_TITLES = {
    "knn5": "kNN-5",
    "knn5_scaled": "kNN-5, standardised",
    "landsat_bench_probe": "linear probe as in Landsat-Bench",
    "strong_probe": "linear probe, standardised, C chosen, converged",
    "calibrated_probe": "linear probe, standardised, C chosen in a short search",
}


def run_protocol(
    protocol: str, train: Vectors, val: Vectors | None, test: Vectors, names: Sequence[str], *, seed: int = 0
) -> Scores:
    """Evaluate a representation by a protocol.

    A constant representation carries no more than the class frequencies: whatever the protocol, its scores are the
    training split's class shares. (`sag` would stop before its first step, and kNN would pick any five patches.)

    Args:
        protocol: a key of `PROTOCOLS`.
        train, val, test, names, seed: see `ProtocolFunction`.
    """
    if (train.x == train.x[:1]).all():
        present = train.y > 0 if train.y.ndim == 2 else train.y[:, None] == np.arange(len(names))
        shares = np.repeat(present.mean(axis=0, keepdims=True), len(test.x), axis=0)
        return _scored(shares, train, test, names, {"class_shares": True})
    return PROTOCOLS[protocol](train, val, test, names, seed=seed)


def score_probabilities(
    probabilities: np.ndarray, labels: np.ndarray, train_labels: np.ndarray, names: Sequence[str]
) -> dict[str, Any]:
    """All metrics of probabilities (N, L); decisions are `decisions_of` them. Labels (N, L) or (N,)."""
    decisions = decisions_of(probabilities, labels.ndim == 2)
    score = score_multilabel if labels.ndim == 2 else score_multiclass
    return score(labels, decisions, probabilities, names, train_labels)


class _Choice(NamedTuple):
    """A C, and the predictions it was chosen by."""

    details: dict[str, Any]
    held_out: np.ndarray | None
    """(M, L) probabilities of patches that the probe of the chosen C had not seen; None where nothing was compared."""
    labels: np.ndarray
    """(M, L) or (M,) of the same patches."""


def _choose(train: Vectors, val: Vectors | None, names: Sequence[str], seed: int, search: Search) -> _Choice:
    """C by its score on the validation split, or else by cross-validation within the training split."""
    return _choose_on(val, train, names, search) if val is not None else _choose_within(train, names, seed, search)


def _choose_on(val: Vectors, train: Vectors, names: Sequence[str], search: Search) -> _Choice:
    found = _along_grid(train, val, names, search.grid, search)
    return _best(found, val.y, train.y, names, search, f"{len(val.ids)} validation patches")


def _choose_within(train: Vectors, names: Sequence[str], seed: int, search: Search) -> _Choice:
    """The held-out predictions of all folds are scored together."""
    details = {"C": 1.0, "chosen_on": "nothing: too few training patches", "grid": None, "grid_scores": None}
    fixed = _Choice(details, None, train.y)
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
    return _best(held_out[: len(grid)], train.y, train.y, names, search, where)


def _along_grid(
    train: Vectors, held_out: Vectors, names: Sequence[str], grid: Sequence[float], search: Search
) -> np.ndarray:
    """Probabilities (C, M, L) on patches that the probes are not fitted on, for every C until the search ends."""
    task, found, scores = _standardised(train, held_out), [], []
    for C in grid:
        probe = _probe(train, C=C, scale=task.scale, tol=search.tol).fit(task.fitted_on, train.y)
        found.append(_probabilities(probe, task.evaluated_on, len(names)))
        if search.margin is not None and len(held_out.ids) >= DECISIVE:
            scores.append(_headline(found[-1], held_out.y, train.y, names))
            if scores[-1] < max(scores) - search.margin:
                break
    return np.stack(found)


def _best(
    held_out: np.ndarray, labels: np.ndarray, train_labels: np.ndarray, names: Sequence[str], search: Search, where: str
) -> _Choice:
    """The C whose predictions, one of the (C, M, L) `held_out`, score best."""
    found = [_headline(probabilities, labels, train_labels, names) for probabilities in held_out]
    best = int(np.argmax(found))
    details = {
        "C": search.grid[best],
        "chosen_on": where,
        "grid": list(search.grid[: len(found)]),
        "grid_scores": found,
        "at_edge_of_grid": best in (0, len(search.grid) - 1),
    }
    return _Choice(details, held_out[best], labels)


def _fitted(
    train: Vectors, test: Vectors, names: Sequence[str], C: float, tol: float | None = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Probabilities (N, L) on `test` by the probe fitted on `train`, and facts of the fit."""
    task = _standardised(train, test)
    probe = _probe(train, C=C, scale=task.scale, tol=tol).fit(task.fitted_on, train.y)
    return _probabilities(probe, task.evaluated_on, len(names)), _fit_details(probe)


def _headline(probabilities: np.ndarray, labels: np.ndarray, train_labels: np.ndarray, names: Sequence[str]) -> float:
    if labels.ndim == 1:  # all the other scores would cost more than many a fit
        return float((decisions_of(probabilities, multilabel=False) == labels).mean())
    value = score_probabilities(probabilities, labels, train_labels, names)["map_micro"]
    return -1.0 if value is None else value


def _probe(train: Vectors, **settings: Any) -> LogisticRegressionModel:
    return LogisticRegressionModel(multilabel=train.y.ndim == 2, **settings)


def _probabilities(probe: LogisticRegressionModel, x: np.ndarray, classes: int) -> np.ndarray:
    """(N, L) probabilities; a class without a training sample has 0."""
    found = probe.predict_proba(x)
    if probe.multilabel:
        return found
    full = np.zeros((len(x), classes), found.dtype)
    full[:, probe.classes_] = found
    return full


def _scored(
    probabilities: np.ndarray, train: Vectors, test: Vectors, names: Sequence[str], details: dict[str, Any]
) -> Scores:
    metrics = score_probabilities(probabilities, test.y, train.y, names)
    sizes = {"train_patches": len(train.x), "test_patches": len(test.x), "features": train.x.shape[1]}
    return Scores(metrics, probabilities, test.y, sizes | details)


def _fit_details(probe: LogisticRegressionModel) -> dict[str, Any]:
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
    mean, std = _standard(train.x)
    fitted_on, evaluated_on = ((part.x - mean) / std for part in (train, other))
    axes = np.linalg.svd(fitted_on, full_matrices=False)[2]  # (patches, features)
    return _Task(fitted_on @ axes.T, evaluated_on @ axes.T, scale=False)


def _standard(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every feature; 1 for one that never changes."""
    std = x.std(axis=0, dtype=np.float64)
    return x.mean(axis=0, dtype=np.float64), np.where(std > 0, std, 1.0)
