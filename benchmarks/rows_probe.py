"""The linear probe: to convergence, against `sag` as published; and the time to an equally good solution."""

import logging
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import logsumexp

from benchmarks.goals import goal
from benchmarks.large_probe import LABELS
from benchmarks.large_probe import ROWS as LARGE_ROWS
from benchmarks.large_probe import WIDTH as WIDE
from benchmarks.probe_data import probe_problem
from benchmarks.reference_work import SAG_ITERATIONS, reference_probe
from benchmarks.report import Row, timed_row
from benchmarks.setting import Setting
from benchmarks.timing import Ratio, Timing, alternate, faster, quartiles
from classification_models.fitting import plan_fit
from classification_models.linear_head import fitted, linear_head
from classification_models.logistic_regression import LogisticRegressionModel
from classification_models.solvers import Size
from utils.errors import UserError

ROWS, WIDTH, CLASSES = 16_200, 144, 10
"""EuroSAT-Landsat's training split with the CLS token."""

FEW_ROWS = 119
"""Labelled patches of the published small sample."""

MEMORY_GOAL = 24e9
"""Bytes."""

CPU = torch.device("cpu")
QUICK_ROWS = 800
MOST_ITERATIONS = 50
"""Far more than Newton's method needs to get below an unconverged `sag`."""


def probe_rows(setting: Setting) -> list[Row]:
    """The small problem against the reference, few rows of all tokens, then BigEarthNet-Landsat's sizes alone."""
    large = [] if setting.quick else [_narrow(setting), wide_row(setting, LARGE_ROWS, WIDE)]
    return [*_against_sag(setting), few_rows_row(setting), *large]


def few_rows_row(setting: Setting) -> Row:
    """The real sample with all its tokens, against scikit-learn's `lbfgs` on the features, the next best on a CPU."""
    rows, width = (20, 600) if setting.quick else (FEW_ROWS, WIDE)
    x, y = probe_problem(rows, width, LABELS, multilabel=True, seed=setting.seed)
    reports: dict[str, dict[str, Any]] = {}

    def fit(solver: str) -> None:
        reports[solver] = LogisticRegressionModel(multilabel=True, solver=solver, seed=setting.seed).fit(x, y).report

    logging.disable(logging.WARNING)  # plain `lbfgs` may end unconverged, which the note says
    timings = alternate({name: partial(fit, name) for name in ("auto", "lbfgs")}, min(3, setting.rounds), CPU)
    logging.disable(logging.NOTSET)
    auto, plain = reports["auto"], reports["lbfgs"]
    row = timed_row(
        f"probe, {rows} × {width:,}, {LABELS} labels",
        timings["auto"],
        timings["lbfgs"],
        unit="s",
        goal=goal("probe of few rows", "cpu", setting.quick),
        note=f"{auto['solver']} in the space of {auto['fitted_in']}, at most {max(auto['gap']):.0e} above the optimum; "
        f"the reference is `lbfgs` of scikit-learn, which ends at most {max(plain['gap']):.0e} above it",
    )
    return row if auto["converged"] else replace(row, void="this project's probe has not converged")


def _against_sag(setting: Setting) -> list[Row]:
    """Fit both in turns on the same numbers, then see when ours was as good as the other ended."""
    count = QUICK_ROWS if setting.quick else ROWS
    x, y = probe_problem(count, WIDTH, CLASSES, multilabel=False, seed=setting.seed)
    turns = max(1, setting.rounds // 4)  # `sag` takes half a minute a turn
    ours, theirs = [], []
    for _ in range(turns):
        started = time.perf_counter()
        probe = LogisticRegressionModel(n_jobs=-1, seed=setting.seed).fit(x, y)
        ours.append(time.perf_counter() - started)
        started = time.perf_counter()
        reference = reference_probe(x, y, setting.seed)
        theirs.append(time.perf_counter() - started)
    ours, theirs = Timing(tuple(ours)), Timing(tuple(theirs))
    found, target = (objective(x, y, head.coef, head.intercept) for head in (probe.head, linear_head(reference, None)))
    iterations, converged = int(fitted(reference, "n_iter_").max()), bool(probe.report["converged"])
    note = (
        f"objective {found:.9f} after {probe.report['n_iter'][0]} iterations of {probe.report['solver']} "
        f"({'converged' if converged else 'NOT CONVERGED'}); `sag`: {target:.9f} after {iterations} of {SAG_ITERATIONS}"
    )
    work = f"probe, {count:,} × {WIDTH}, {CLASSES} classes"
    full = Row(
        work,
        "s",
        ours=ours.median,
        reference=theirs.median,
        ratio=faster(ours, theirs),
        goal=goal("probe", "cpu", setting.quick),
        note=note,
        details={"seconds": {"ours": ours.rounds, "reference": theirs.rounds}, "converged": converged,
                 "objective": {"ours": found, "reference": target}, "iterations_of_sag": iterations},
    )  # fmt: skip
    if not converged:  # a fast answer that is not one reaches no goal
        full = replace(full, void="this project's probe has not converged")
    return [full, _equal_objective(work, x, y, target, theirs, setting)]


def _equal_objective(work: str, x: np.ndarray, y: np.ndarray, target: float, theirs: Timing, setting: Setting) -> Row:
    """Seconds until ours is at least as good as the reference ended: a fresh fit stopped after 1, 2, 3 … iterations."""
    for limit in range(1, MOST_ITERATIONS + 1):
        logging.disable(logging.WARNING)  # it is stopped early on purpose
        started = time.perf_counter()
        probe = LogisticRegressionModel(n_jobs=-1, seed=setting.seed, max_iter=limit).fit(x, y)
        seconds = time.perf_counter() - started
        logging.disable(logging.NOTSET)
        if objective(x, y, probe.head.coef, probe.head.intercept) <= target:
            pairs = [reference / seconds for reference in theirs.rounds]
            return Row(
                f"{work}: time to the objective where `sag` ended",
                "s",
                ours=seconds,
                reference=theirs.median,
                ratio=Ratio(theirs.median / seconds, *quartiles(pairs)),
                note=f"reached after {limit} iterations, fitted from the start",
            )
    return Row(f"{work}: time to the objective where `sag` ended", "s", note=f"not within {MOST_ITERATIONS} iterations")


def _narrow(setting: Setting) -> Row:
    """BigEarthNet-Landsat's training split with the CLS token."""
    x, y = probe_problem(LARGE_ROWS, WIDTH, LABELS, multilabel=True, seed=setting.seed)
    return fit_row(setting, x, y)


def wide_row(setting: Setting, rows: int, width: int) -> Row:
    """The same with all tokens: fitted on a GPU; on a CPU only what it needs is worked out."""
    work, shape = f"probe, {rows:,} × {width:,}, {LABELS} labels", (rows, width)
    with tempfile.TemporaryDirectory() as folder:
        try:
            x = np.memmap(Path(folder) / "x", np.float32, "w+", shape=shape)  # takes no space until it is written
            if setting.kind == "cuda":
                x, y = probe_problem(*shape, LABELS, multilabel=True, seed=setting.seed, out=x)
                return fit_row(setting, x, y)
            size = Size(*shape, LABELS, multinomial=False)
            plan = plan_fit(x, size, "auto", "cpu", n_jobs=-1, announce=False)
        except (UserError, OSError) as error:  # it says what it needs before starting
            return Row(
                work, "s", goal=goal("large probe", setting.kind), note=str(error), reached=setting.kind == "cpu"
            )
    note = (
        f"only worked out, not fitted: {plan.solver}; the {x.nbytes / 1e9:.1f} GB of features stay on the disk; "
        "`python -m benchmarks.large_probe` fits it"
    )
    megabytes = plan.needed / 2**20
    return Row(
        f"{work}: memory needed",
        "MiB",
        ours=megabytes,
        goal=goal("large probe", "cpu"),
        note=note,
        reached=plan.needed <= MEMORY_GOAL,
    )


def fit_row(setting: Setting, x: np.ndarray, y: np.ndarray) -> Row:
    """One fit, alone: the reference would take hours."""
    probe = LogisticRegressionModel(n_jobs=-1, multilabel=True, seed=setting.seed, device=str(setting.device))
    report = probe.fit(x, y).report
    state = "converged" if report["converged"] else "NOT CONVERGED"
    note = f"{report['solver']} on {report['device']}, {max(report['n_iter'])} iterations, {state}"
    row = Row(
        f"probe, {x.shape[0]:,} × {x.shape[1]:,}, {y.shape[1]} labels",
        "s",
        ours=report["seconds"],
        goal=goal("large probe", setting.kind) if x.shape[1] == WIDE else None,
        note=f"{note}; needs {report['memory_bytes'] / 2**30:.2f} GiB beside the features, by its own estimate",
        details={"report": report},
    )
    return row if report["converged"] else replace(row, reached=False)


def objective(x: np.ndarray, y: np.ndarray, coef: np.ndarray, intercept: np.ndarray, C: float = 1.0) -> float:
    """mean_i -log softmax(W x_i + b)[y_i] + |W|^2 / (2 C N), in float64.

    Args:
        x: features (N, D).
        y: class indices (N,).
        coef, intercept: W (K, D) and b (K,).
        C: inverse strength of the penalty.
    """
    logits = x.astype(np.float64) @ coef.T.astype(np.float64) + intercept
    loss = np.asarray(logsumexp(logits, axis=1)) - logits[np.arange(len(y)), y]
    return float(loss.mean() + np.square(coef, dtype=np.float64).sum() / (2 * C * len(y)))
