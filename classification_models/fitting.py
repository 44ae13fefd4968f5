"""Fit the probe's regressions, and check their convergence."""

import logging
from typing import Any, NamedTuple

import joblib
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from threadpoolctl import threadpool_info, threadpool_limits
from tqdm import tqdm

from classification_models.embeddings import row_chunks
from classification_models.feature_rows import FeatureRows
from classification_models.linear_head import (
    constant_regression,
    linear_head,
    one_vs_rest,
    regression_from_numbers,
)
from classification_models.logistic_loss import LogisticLoss
from classification_models.memory import available_memory, gibibytes, require_memory
from classification_models.memory_needs import memory_needs
from classification_models.preconditioned_lbfgs import PreconditionedLbfgs
from classification_models.preconditioner import block_edges
from classification_models.row_space import worth_it
from classification_models.solvers import PRECONDITIONED, SOLVERS, Size, choose_solver
from utils.devices import select_device
from utils.reporting import reporter

logger = logging.getLogger(__name__)

GRADIENT_SLACK = 10.0
"""scikit-learn's solvers count as converged while the largest gradient is at most this many times their tolerance."""

GAP_SLACK = 1.1
"""`preconditioned-lbfgs` counts as converged while the gap is at most this many times its tolerance: coefficients are
judged as they are stored."""

ONE_THREAD_SIZE = 2**24
"""Features (rows times width) up to which `preconditioned-lbfgs` uses one CPU thread: it takes seconds, and on a loaded
machine more threads cost more in synchronisation than they gain."""

REPORTED_FROM = 2**27
"""Bytes needed from which a line reports them."""

RESIDENT_SHARE = 0.9
"""Features move to a GPU if they and all else take at most this share of its free memory."""


class Targets(NamedTuple):
    """Labels in the form that solvers take."""

    matrix: np.ndarray  # (N, K) booleans: a column per label or class, a single one for two classes
    classes: np.ndarray  # (K,) label indices, or the classes
    multilabel: bool

    @property
    def multinomial(self) -> bool:
        """Whether the columns are one softmax."""
        return not self.multilabel and self.matrix.shape[1] > 1

    @property
    def constant(self) -> np.ndarray:
        """(K,) booleans: labels that never change, so that there is nothing to fit."""
        positives = np.count_nonzero(self.matrix, axis=0)
        return (positives == 0) | (positives == len(self.matrix))


def make_targets(y: np.ndarray, multilabel: bool) -> Targets:
    """Class indices (N,) or multi-hot labels (N, L) as columns of booleans."""
    if multilabel:
        return Targets(y > 0, np.arange(y.shape[1]), True)
    classes = np.unique(y)
    return Targets(y[:, None] == (classes[1:] if len(classes) == 2 else classes), classes, False)


class FitPlan(NamedTuple):
    """How a problem will be fitted."""

    solver: str
    device: torch.device
    threads: int
    needed: int  # bytes beside the features as given
    resident: bool  # the features are moved to the GPU
    fix: str  # for the message if memory runs out after all
    row_space: bool  # fitted in the space that the rows span


def plan_fit(x: np.ndarray, size: Size, solver: str, device: str, n_jobs: int, announce: bool) -> FitPlan:
    """Choose solver and device, and make sure that the memory suffices.

    Args:
        x: (N, D) features.
        size: of the problem.
        solver: "auto" or a key of `SOLVERS`.
        device: "auto", "cpu", "cuda" or "cuda:N".
        n_jobs: threads asked for.
        announce: print what is needed and what is there, unless it is little.

    Raises:
        ConfigError: for a solver that does not run on the device.
        UserError: when the memory does not suffice, with the amount needed.
    """
    row_space = solver == "auto" and worth_it(size.count, size.width)
    fitted = size._replace(width=size.count) if row_space else size
    chosen = choose_solver(solver, fitted, device)
    where = select_device(device) if chosen == PRECONDITIONED else torch.device("cpu")
    gpu = where.type == "cuda"
    threads = min(joblib.effective_n_jobs(n_jobs), joblib.cpu_count())
    if chosen == PRECONDITIONED:  # never more than the environment allows
        threads = 1 if x.size <= ONE_THREAD_SIZE else min(threads, torch.get_num_threads())
    one_fit = chosen != PRECONDITIONED and (size.multinomial or size.columns == 1)
    at_a_time = 1 if one_fit else threads
    needs = memory_needs(chosen, fitted, x.dtype.itemsize, at_a_time, gpu)
    if row_space:
        needs["rows and their decomposition"] = 2 * 8 * x.size
    fix = "fit fewer features with --pool true or --feature-slice A:B" + (", or use --device cpu" if gpu else "")
    if chosen != PRECONDITIONED:
        fix += f", or use --solver {PRECONDITIONED}"
    available = available_memory(where)
    needed = require_memory(needs, available, f"{chosen} on {size.count} x {size.width} features ({where})", fix)
    stored = x.size * (4 if np.can_cast(x.dtype, np.float32, "safe") else 8)
    resident = gpu and needed + stored <= RESIDENT_SHARE * available
    needed += stored if resident else 0
    if announce and needed >= REPORTED_FROM:
        reporter.info(f"memory       {gibibytes(needed)} needed of {gibibytes(available)} on {where}, by {chosen}")
        if not gpu and isinstance(x, np.memmap) and needed + x.nbytes > available:
            reporter.info(
                f"             and {gibibytes(x.nbytes)} of features, which every iteration will read from the disk"
            )
        blocks = len(block_edges(fitted.width))
        if chosen == PRECONDITIONED and blocks > 1:
            reporter.info(
                f"             {size.width} features in {blocks} blocks, each preconditioned alone: more iterations"
            )
    return FitPlan(chosen, where, threads, needed, resident, fix, row_space)


def fit_preconditioned(
    objective: LogisticLoss, targets: Targets, settings: dict[str, Any], verbose: bool
) -> LogisticRegression | OneVsRestClassifier:
    """Fit all labels or classes together with `PreconditionedLbfgs`, as scikit-learn's objects.

    Args:
        objective: of the problem.
        targets: its labels.
        settings: max_iter, tol, and what else scikit-learn's objects are to remember.
        verbose: show bars.
    """
    varying = np.flatnonzero(~targets.constant) if targets.multilabel else np.zeros(1, np.int64)
    solver = PreconditionedLbfgs(objective, settings["max_iter"], settings["tol"], verbose)
    solution = solver.minimise(torch.from_numpy(varying).to(objective.features.device))
    coef, intercept = objective.to_coefficients(solution.point)
    n_iter = solution.iterations.tolist()
    settings = settings | {"solver": "lbfgs"}  # what scikit-learn calls it
    if not targets.multilabel:
        return regression_from_numbers(coef, intercept, targets.classes, n_iter[0], **settings)
    fitted = iter(zip(coef, intercept, n_iter, strict=True))
    members = []
    for label, constant in enumerate(targets.constant):
        if constant:
            members.append(constant_regression(bool(targets.matrix[0, label]), coef.shape[1], **settings))
        else:
            w, b, iterations = next(fitted)
            members.append(regression_from_numbers(w[None], b[None], np.array([0, 1]), iterations, **settings))
    return one_vs_rest(members, **settings)


def fit_scikit_learn(
    features: np.ndarray, targets: Targets, settings: dict[str, Any], threads: int, verbose: bool
) -> LogisticRegression | OneVsRestClassifier:
    """Fit with one of scikit-learn's solvers.

    Labels are fitted `threads` at a time, each on one thread of linear algebra, so that the result does not depend on
    their number; the multinomial model uses them for its linear algebra.

    Args:
        features: (N, D), scaled already.
        targets: their labels.
        settings: of scikit-learn's `LogisticRegression`.
        threads: how many.
        verbose: show a bar over the labels.
    """
    if not targets.multilabel:
        present = max((library["num_threads"] for library in threadpool_info()), default=1)
        y = targets.matrix.argmax(axis=1) if targets.multinomial else targets.matrix[:, 0].astype(np.int64)
        with threadpool_limits(min(present, threads)):  # never more than the environment allows
            return LogisticRegression(**settings).fit(features, targets.classes[y])

    def fit_one(label: int) -> LogisticRegression:
        if targets.constant[label]:
            return constant_regression(bool(targets.matrix[0, label]), features.shape[1], **settings)
        return LogisticRegression(**settings).fit(features, targets.matrix[:, label].astype(np.int64))

    count = targets.matrix.shape[1]
    with threadpool_limits(1):  # labels run in parallel; threads within a label would compete with them
        pool = joblib.Parallel(n_jobs=threads, backend="threading", return_as="generator")
        fitted = pool(joblib.delayed(fit_one)(label) for label in range(count))
        bar = tqdm(fitted, desc="probe", total=count, unit="label", disable=None if verbose else True)
        members: list[LogisticRegression] = [regression for regression in bar if regression is not None]
        return one_vs_rest(members, **settings)


def training_matrix(x: np.ndarray, features: FeatureRows, scale: bool, solver: str) -> np.ndarray:
    """Features (N, D) as scikit-learn wants them: scaled, contiguous, float64 for all but the stochastic solvers.

    The float64 rule matters: in float32, `newton-cholesky` meets a singular Hessian and ends far from the optimum.
    `x` itself is returned where it already is so.
    """
    single = SOLVERS[solver].stochastic and x.dtype == np.float32
    dtype = np.dtype(np.float32 if single else np.float64)
    if not scale and x.dtype == dtype and x.flags.c_contiguous and x.flags.aligned:
        return x
    matrix = np.empty(x.shape, dtype)
    mean, std = features.mean.cpu().numpy(), features.std.cpu().numpy()
    for rows in row_chunks(x):
        matrix[rows] = (x[rows] - mean) / std if scale else x[rows]
    return matrix


def judge(
    objective: LogisticLoss,
    targets: Targets,
    model: LogisticRegression | OneVsRestClassifier,
    settings: dict[str, Any],
    row_space: bool = False,
) -> dict[str, Any]:
    """What ran and whether it converged, label by label and in float64; a solver that did not is warned of.

    Fewer rows than features can nearly always be separated, so that values, and with them gradients, are tiny: what
    was fitted in the space of rows has also converged where the gap proves it.

    Returns:
        JSON-ready. A list has an entry per label (a single one if multiclass): n_iter, gradient (largest component),
        objective, gap (upper bound of the relative distance to the smallest objective; None if beyond all numbers).
    """
    solver, tol = settings["solver"], settings["tol"]
    head = linear_head(model, None)
    n_iter = [int(np.max(member.n_iter_)) for member in getattr(model, "estimators_", [model])]
    constant = np.flatnonzero(targets.constant) if targets.multilabel else np.zeros(0, np.int64)
    varying = np.setdiff1d(np.arange(objective.problems), constant)
    point = objective.from_coefficients(head.coef, np.nan_to_num(head.intercept, posinf=0, neginf=0))[varying]
    at = objective.evaluate(point, torch.from_numpy(varying).to(point.device))
    figures = np.zeros((3, objective.problems))
    for row, values in zip(
        figures, (objective.largest_gradient(at.gradient), at.value, objective.relative_gap(at)), strict=True
    ):
        row[varying] = values.cpu().numpy()
    gradient, value, gap = figures
    if solver == PRECONDITIONED:
        good = gap <= GAP_SLACK * tol
    else:
        limit = np.inf if SOLVERS[solver].stochastic else GRADIENT_SLACK * tol
        good = (np.array(n_iter) < settings["max_iter"]) & (gradient <= limit)
        good |= row_space & (gap <= GAP_SLACK * SOLVERS[PRECONDITIONED].tol)
    failed = np.setdiff1d(np.flatnonzero(~good), constant).tolist()
    if failed:
        logger.warning(
            f"warning: {solver} did not converge"
            + (f" for {len(failed)} of {len(n_iter)} labels" if targets.multilabel else "")
            + f": up to {max(n_iter[i] for i in failed)} iterations of {settings['max_iter']}, largest gradient "
            f"{gradient[failed].max():.1e}, objective up to {gap[failed].max():.0e} too high (tolerance {tol:g}); try "
            f"--solver auto, --scale true or a larger --max-iter"
        )
    return {
        "solver": solver, "max_iter": settings["max_iter"], "tol": tol, "n_iter": n_iter,
        "gradient": gradient.tolist(), "objective": value.tolist(),
        "gap": [float(size) if np.isfinite(size) else None for size in gap],
        "converged": not failed, "not_converged": failed, "constant_labels": constant.tolist(),
    }  # fmt: skip
