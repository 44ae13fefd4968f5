"""The linear probe: L2 logistic regression on frozen embeddings, multinomial or one binary model per label.

The objective is scikit-learn's: mean_i loss(y_i, w x_i + b) + |w|^2 / (2 C N), the intercept not penalised.
"""

import json
import logging
import time
import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info, threadpool_limits
from tqdm import tqdm

from classification_models.linear_head import (
    LinearHead,
    constant_regression,
    linear_head,
    one_vs_rest,
    probabilities,
    regression_from_numbers,
    scaler_from_numbers,
)
from classification_models.solvers import (
    GRADIENT_SLACK,
    SOLVERS,
    choose_solver,
    fit_scaler,
    largest_gradient,
    training_matrix,
)
from utils.errors import CheckpointError, ConfigError, DataError, UserError
from utils.files import atomic_path

logger = logging.getLogger(__name__)

_NPZ_FORMAT = "moemae-linear-probe-1"

_SETTINGS: dict[str, Any] = {
    "scale": False, "max_iter": None, "seed": 0, "multilabel": False, "verbose": False, "n_jobs": 1,
    "C": 1.0, "solver": "auto", "tol": None,
}  # fmt: skip


class LogisticRegressionModel:
    """L2 logistic regression: multinomial for class indices, one-vs-rest for multi-hot labels.

    Memory while fitting, besides the features as given: one float64 copy of them (8 N D bytes; none for `sag` and
    `saga` without scaling), and per thread as much again for `newton-cholesky`, along with its Hessian.

    `scaler` and `model` are scikit-learn's own objects, as in the published files. Predictions use their numbers
    alone (`LinearHead`) and so do not depend on scikit-learn's version.

    Attributes:
        scaler: None where features are not scaled.
        model: None before fitting.
        report: after fitting: solver, max_iter, tol, n_iter and largest gradient per label (one entry if
            multiclass), converged, not_converged and constant_labels (label indices), seconds.
    """

    def __init__(
        self,
        scale: bool = False,
        max_iter: int | None = None,
        seed: int = 0,
        multilabel: bool = False,
        verbose: bool = False,
        n_jobs: int = 1,
        C: float = 1.0,
        solver: str = "auto",
        tol: float | None = None,
    ):
        """Settle how to fit.

        Args:
            scale: standardise every feature by its training mean and standard deviation.
            max_iter: limit of iterations; None takes the solver's in `SOLVERS`.
            seed: of `sag` and `saga`, the only solvers with chance in them.
            multilabel: labels are (N, L) multi-hot instead of (N,) class indices.
            verbose: show a progress bar over the labels when stderr is a terminal.
            n_jobs: threads, -1 for one per core. Each fits one label at a time, on one thread of linear algebra, so
                that the result does not depend on their number; the multinomial model uses them for its linear
                algebra.
            C: inverse strength of the L2 penalty.
            solver: "auto" (see `solvers.NEWTON_MAX_UNKNOWNS`) or a key of `SOLVERS`.
            tol: stopping tolerance; None takes the solver's in `SOLVERS`.

        Raises:
            ConfigError: for an impossible value.
        """
        if not (C > 0 and np.isfinite(C)):
            raise ConfigError(f"C must be a positive number, got {C}")
        if n_jobs == 0 or (max_iter is not None and max_iter < 1) or (tol is not None and not tol > 0):
            raise ConfigError(f"impossible value among n_jobs={n_jobs}, max_iter={max_iter}, tol={tol}")
        if solver != "auto":
            choose_solver(solver, 1, 1)
        self.scale, self.max_iter, self.seed, self.multilabel = scale, max_iter, seed, multilabel
        self.verbose, self.n_jobs, self.C, self.solver, self.tol = verbose, n_jobs, C, solver, tol
        self.scaler: StandardScaler | None = None
        self.model: LogisticRegression | OneVsRestClassifier | None = None
        self.report: dict[str, Any] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore; what the authors' files do not say is taken from the regression inside, or its default."""
        model = state.get("model")
        inner = vars(getattr(model, "estimator", model)) if model is not None else {}
        known = {name: inner[name] for name in ("C", "solver", "tol") if name in inner}
        self.__dict__.update(_SETTINGS | {"scaler": None, "report": {}} | known | state)

    def fit(self, x: np.ndarray, y: np.ndarray) -> "LogisticRegressionModel":
        """Fit on features (N, D) and labels (N,) class indices or (N, L) multi-hot.

        Raises:
            DataError: when shapes disagree or nothing can be learned (no label with a positive, a single class).
        """
        self._check(x, y)
        started = time.perf_counter()
        classes = np.arange(y.shape[1]) if self.multilabel else np.unique(y)
        solver = choose_solver(self.solver, x.shape[1], 1 if self.multilabel or len(classes) == 2 else len(classes))
        settings = {
            "solver": solver,
            "C": self.C,
            "max_iter": self.max_iter or SOLVERS[solver].max_iter,
            "tol": self.tol or SOLVERS[solver].tol,
            "random_state": self.seed,
        }
        self.scaler = fit_scaler(x) if self.scale else None
        features = training_matrix(x, self.scaler, solver)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # whether it converged is judged below, label by label
            if self.multilabel:
                self.model = one_vs_rest(self._fit_labels(features, y, settings), **settings)
            else:
                present = max((library["num_threads"] for library in threadpool_info()), default=1)
                with threadpool_limits(min(present, _threads(self.n_jobs))):  # never more than the environment allows
                    self.model = LogisticRegression(**settings).fit(features, y)
        self.report = self._judge(features, y, settings)
        self.report["seconds"] = round(time.perf_counter() - started, 3)
        return self

    def _check(self, x: np.ndarray, y: np.ndarray) -> None:
        if x.ndim != 2 or len(x) == 0 or len(x) != len(y):
            raise DataError(f"features {x.shape} and labels {y.shape} do not fit together: expected (N, D) and N rows")
        if y.ndim != (2 if self.multilabel else 1):
            kind = "(N, L) multi-hot" if self.multilabel else "(N,) class indices"
            raise DataError(f"labels have the shape {y.shape}, expected {kind} with multilabel={self.multilabel}")
        if self.multilabel and not (y > 0).any():
            raise DataError("no label has a single positive in the training labels: there is nothing to fit")
        if not self.multilabel and (y == y[0]).all():
            raise DataError(f"the training labels hold only class {int(y[0])}: at least two classes are needed")

    def _fit_labels(self, features: np.ndarray, y: np.ndarray, settings: dict[str, Any]) -> list[LogisticRegression]:
        """One binary regression per label; the threads share the features."""

        def fit_one(label: int) -> LogisticRegression:
            target = (y[:, label] > 0).astype(np.int64)
            if target.min() == target.max():
                return constant_regression(bool(target[0]), features.shape[1], **settings)
            return LogisticRegression(**settings).fit(features, target)

        count = y.shape[1]
        threads = _threads(self.n_jobs)
        with threadpool_limits(1):
            pool = joblib.Parallel(n_jobs=threads, backend="threading", return_as="generator")
            fitted = pool(joblib.delayed(fit_one)(label) for label in range(count))
            return list(tqdm(fitted, desc="probe", total=count, unit="label", disable=None if self.verbose else True))

    def _judge(self, features: np.ndarray, y: np.ndarray, settings: dict[str, Any]) -> dict[str, Any]:
        """What ran and whether it converged; a solver that did not is warned of."""
        head, solver = self._head(), settings["solver"]
        n_iter = [int(np.max(member.n_iter_)) for member in _members(self.model)]
        target = y > 0 if self.multilabel else y[:, None] == head.classes[-len(head.coef) :]
        multinomial = not self.multilabel and len(head.coef) > 1
        gradient = largest_gradient(features, target, head, multinomial, self.C)
        gradient = [float(value) for value in (gradient if self.multilabel else [gradient.max()])]
        constant = np.flatnonzero(np.isinf(head.intercept)).tolist()
        limit = np.inf if SOLVERS[solver].stochastic else GRADIENT_SLACK * settings["tol"]
        failed = [
            index
            for index, (iterations, size) in enumerate(zip(n_iter, gradient, strict=True))
            if index not in constant and not (iterations < settings["max_iter"] and size <= limit)
        ]
        if failed:
            logger.warning(
                f"warning: {solver} did not converge"
                + (f" for {len(failed)} of {len(n_iter)} labels" if self.multilabel else "")
                + f": up to {max(n_iter[i] for i in failed)} iterations of {settings['max_iter']}, largest gradient "
                f"{max(gradient[i] for i in failed):.1e} (tolerance {settings['tol']:g}); try --solver auto, "
                f"--scale true or a larger --max-iter"
            )
        return {
            "solver": solver, "max_iter": settings["max_iter"], "tol": settings["tol"], "n_iter": n_iter,
            "gradient": gradient, "converged": not failed, "not_converged": failed, "constant_labels": constant,
        }  # fmt: skip

    def _head(self) -> LinearHead:
        if self.model is None:
            raise UserError("this probe has not been fitted: call fit, or load a fitted one")
        return linear_head(self.model, self.scaler)

    @property
    def classes_(self) -> np.ndarray:
        """Class (or label) index of every column of `predict_proba`."""
        return self._head().classes

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        """Logits (N, K) of features (N, D): a column per label or class, a single one for two classes."""
        return self._head().logits(x, per_label=self.multilabel)

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        """Probabilities (N, K): of each label on its own, or over `classes_`, rows summing to 1."""
        return probabilities(self.decision_function(x), self.multilabel)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Decisions, int64: (N, L) zeros and ones (logit above 0), or (N,) class indices."""
        logits = self.decision_function(x)
        if self.multilabel:
            return (logits > 0).astype(np.int64)
        best = (logits[:, 0] > 0).astype(np.int64) if logits.shape[1] == 1 else logits.argmax(axis=1)
        return self.classes_[best].astype(np.int64)

    def save(self, path: str | Path) -> Path:
        """Write `.joblib` (a pickle, as published) or `.npz` (plain arrays); both predict the same bits.

        Raises:
            UserError: for another suffix, or when the file cannot be written; nothing is left half-written.
        """
        path = Path(path)
        if path.suffix not in (".joblib", ".npz"):
            raise ConfigError(f"{path}: a probe is saved as .joblib or .npz")
        self._head()
        with atomic_path(path) as temporary:
            if path.suffix == ".npz":
                np.savez(temporary, **_to_arrays(self))
            else:
                joblib.dump(self, temporary)
        return path

    @classmethod
    def load(cls, path: str | Path) -> "LogisticRegressionModel":
        """Read a probe from `.npz` or `.joblib`, ours or the authors'.

        A `.joblib` is a pickle, and reading one runs whatever its author put there: load only files that you trust.
        The `.npz` form holds nothing but numbers and text.

        Raises:
            CheckpointError: naming the file, when it is missing, damaged or something else.
        """
        path = Path(path)
        if not path.is_file():
            raise CheckpointError(f"{path}: no such probe file")
        try:
            probe = _from_arrays(cls, path) if path.suffix == ".npz" else _unpickle(path)
            if not isinstance(probe, cls):
                raise TypeError(f"it holds a {type(probe).__name__}")
            head = probe._head()
            if head.coef.ndim != 2 or not np.isfinite(head.coef).all() or np.isnan(head.intercept).any():
                raise ValueError("its coefficients are not finite numbers")
        except Exception as error:  # a damaged pickle can raise anything
            reason = (str(error).splitlines() or [""])[0][:120]
            raise CheckpointError(
                f"{path}: not a readable probe ({type(error).__name__}: {reason}); give a .joblib or .npz written by "
                f"train_logistic_regression.py"
            ) from error
        return probe


def _threads(n_jobs: int) -> int:
    return min(joblib.effective_n_jobs(n_jobs), joblib.cpu_count())


def _members(model: LogisticRegression | OneVsRestClassifier) -> list[Any]:
    return getattr(model, "estimators_", [model])


def _to_arrays(probe: LogisticRegressionModel) -> dict[str, np.ndarray]:
    """The `.npz` form: numbers, and the settings as JSON text."""
    head = probe._head()
    settings = {name: getattr(probe, name) for name in (*_SETTINGS, "report")}
    arrays = {
        "format": np.array(_NPZ_FORMAT),
        "coef": head.coef,
        "intercept": head.intercept,
        "classes": head.classes,
        "multilabel": np.array(probe.multilabel),
        "n_iter": np.array([np.max(getattr(member, "n_iter_", 0)) for member in _members(probe.model)]),
        "settings": np.array(json.dumps(settings)),
    }
    return arrays if head.mean is None else arrays | {"scaler_mean": head.mean, "scaler_scale": head.scale}


def _from_arrays(cls: type[LogisticRegressionModel], path: Path) -> LogisticRegressionModel:
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    if "format" not in arrays or arrays["format"].item() != _NPZ_FORMAT:
        raise ValueError(f"its format is not {_NPZ_FORMAT}")
    probe = cls()
    probe.__setstate__(json.loads(arrays["settings"].item()))
    settings = {"C": probe.C, "random_state": probe.seed}
    if probe.multilabel:
        rows = zip(arrays["coef"], arrays["intercept"], arrays["n_iter"], strict=True)
        members = [regression_from_numbers(w[None], b[None], np.array([0, 1]), n, **settings) for w, b, n in rows]
        probe.model = one_vs_rest(members, **settings)
    else:
        numbers = (arrays[name] for name in ("coef", "intercept", "classes"))
        probe.model = regression_from_numbers(*numbers, arrays["n_iter"][0], **settings)
    if "scaler_mean" in arrays:
        probe.scaler = scaler_from_numbers(arrays["scaler_mean"], arrays["scaler_scale"])
    return probe


def _unpickle(path: Path) -> Any:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = joblib.load(path)
    versions = {w.message.original_sklearn_version for w in caught if w.category is InconsistentVersionWarning}
    if versions:
        logger.warning(f"{path}: written with scikit-learn {', '.join(sorted(versions))}; only its numbers are used")
    return value
