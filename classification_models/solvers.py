"""Solvers of the probe: which one, on what matrix, and whether it converged."""

from typing import NamedTuple

import numpy as np
from scipy.special import expit, softmax
from sklearn.preprocessing import StandardScaler

from classification_models.embeddings import row_chunks
from classification_models.linear_head import LinearHead
from utils.errors import ConfigError, UserError

NEWTON_MAX_UNKNOWNS = 2048
"""`auto` takes `newton-cholesky` up to here (features + 1, times the classes if multiclass), `lbfgs` beyond.

The Hessian has unknowns^2 float64 numbers (32 MiB here) and costs N * unknowns^2 multiply-adds in each of about
6 iterations, as much at this width as some thousand L-BFGS iterations. 144 features and 10 classes: 1,450 unknowns.
"""

GRADIENT_SLACK = 10.0
"""A solution counts as converged while `largest_gradient` is at most this many times the solver's tolerance."""


class Solver(NamedTuple):
    """What a solver is run with unless told otherwise."""

    max_iter: int
    tol: float
    stochastic: bool  # keeps the features' precision, and stops on the change of the coefficients


SOLVERS = {
    "newton-cholesky": Solver(100, 1e-6, False),
    "lbfgs": Solver(5000, 1e-6, False),
    "newton-cg": Solver(1000, 1e-6, False),
    "sag": Solver(1000, 1e-4, True),  # with C = 1: Landsat-Bench's probe (arXiv:2506.08780)
    "saga": Solver(1000, 1e-4, True),
}


def choose_solver(name: str, width: int, outputs: int) -> str:
    """Resolve "auto" for `width` features and `outputs` rows of coefficients fitted together.

    Raises:
        ConfigError: for an unknown solver.
    """
    if name == "auto":
        return "newton-cholesky" if (width + 1) * outputs <= NEWTON_MAX_UNKNOWNS else "lbfgs"
    if name not in SOLVERS:
        raise ConfigError(f"unknown solver {name!r}: choose auto, {', '.join(SOLVERS)}")
    return name


def fit_scaler(x: np.ndarray) -> StandardScaler:
    """Mean and standard deviation of every feature of x (N, D), accumulated in float64."""
    scaler = StandardScaler()
    for rows in row_chunks(x):
        scaler.partial_fit(np.asarray(x[rows], np.float64))
    return scaler


def training_matrix(x: np.ndarray, scaler: StandardScaler | None, solver: str) -> np.ndarray:
    """Features (N, D) as a solver wants them: scaled, contiguous, float64 for all but the stochastic solvers.

    The float64 rule matters: in float32, `newton-cholesky` meets a singular Hessian and ends far from the optimum.
    `x` itself is returned where it already is so.

    Raises:
        UserError: when there is not enough memory, with the amount needed.
    """
    single = SOLVERS[solver].stochastic and x.dtype == np.float32
    dtype = np.dtype(np.float32 if single else np.float64)
    if scaler is None and x.dtype == dtype and x.flags.c_contiguous and x.flags.aligned:
        return x
    try:
        features = np.empty(x.shape, dtype)
    except MemoryError as error:
        size = x.size * dtype.itemsize / 2**30
        raise UserError(
            f"the {len(x)} x {x.shape[1]} features need {size:.1f} GiB of memory in {dtype}; use fewer of them with "
            f"--pool true or --feature-slice A:B"
        ) from error
    for rows in row_chunks(x):
        features[rows] = x[rows] if scaler is None else scaler.transform(np.asarray(x[rows], np.float64))
    return features


def largest_gradient(
    features: np.ndarray, target: np.ndarray, head: LinearHead, multinomial: bool, C: float
) -> np.ndarray:
    """Largest gradient component of the mean objective for every output, (K,): 0 at the optimum.

    A component is divided by its feature's root mean square where that exceeds 1, because no solver can push the
    gradient of a large feature as low.

    Args:
        features: (N, D), scaled already: the head's own scaling is not applied.
        target: (N, K) zeros and ones.
        head: the solution.
        multinomial: the K outputs are one softmax, not K independent logits.
        C: inverse strength of the penalty.
    """
    count, width = features.shape
    gradient = np.zeros((len(head.coef), width + 1))
    square = np.zeros(width)
    for rows in row_chunks(features):
        chunk = np.asarray(features[rows], np.float64)
        logits = chunk @ head.coef.T + head.intercept
        residual = (softmax(logits, axis=1) if multinomial else expit(logits)) - target[rows]
        gradient[:, :-1] += residual.T @ chunk
        gradient[:, -1] += residual.sum(axis=0)
        square += np.einsum("nd,nd->d", chunk, chunk)
    gradient /= count
    gradient[:, :-1] += head.coef / (C * count)
    gradient[:, :-1] /= np.maximum(1.0, np.sqrt(square / count))
    return np.abs(gradient).max(axis=1)
