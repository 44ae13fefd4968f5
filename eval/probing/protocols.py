"""Evaluation protocols of frozen representations: Landsat-Bench's two, exactly, and a stronger linear probe.

A protocol takes the three splits of one representation and returns scores on the test split, with the probabilities
that they come from, so that intervals (`eval.statistics.bootstrap`) need no second fit.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from classification_models.calibration import at_temperature, expected_calibration_error, fit_temperature
from eval.probing.knn import NEIGHBOURS, neighbour_votes
from eval.probing.linear_probe import Search, choose, fit_details, fitted, probabilities_of, probe_of, standard
from eval.probing.representation import Scores, Vectors, score_probabilities

LANDSAT_BENCH = {"C": 1.0, "solver": "sag", "max_iter": 1000}
"""The probe of arXiv:2506.08780; one binary model per label where there are several."""

C_GRID = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
"""That the strong probe chooses from; the first of equally good ones."""

QUICK = Search(grid=(0.001, 0.01, 0.1, 1.0, 10.0), folds=3, tol=1e-5, margin=0.005)
"""For many representations of hundreds of numbers: a tenth of the time."""


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
    mean, std = standard(train.x) if scale else (0, 1)
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
    probe = probe_of(train, seed=seed, scale=scale, **LANDSAT_BENCH).fit(train.x, train.y)
    details = fit_details(probe) | {"scale": scale}
    return _scored(probabilities_of(probe, test.x, len(names)), train, test, names, details)


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
    choice = choose(train, val, names, seed, Search(grid=tuple(C_GRID if grid is None else grid)))
    found, details = fitted(train, test, names, choice.details["C"])
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
    choice = choose(train, val, names, seed, QUICK)
    found, details = fitted(train, test, names, choice.details["C"], QUICK.tol)
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


def _scored(
    probabilities: np.ndarray, train: Vectors, test: Vectors, names: Sequence[str], details: dict[str, Any]
) -> Scores:
    metrics = score_probabilities(probabilities, test.y, train.y, names)
    sizes = {"train_patches": len(train.x), "test_patches": len(test.x), "features": train.x.shape[1]}
    return Scores(metrics, probabilities, test.y, sizes | details)
