"""The linear probe: L2 logistic regression on frozen embeddings, multinomial or one binary model per label.

The objective is scikit-learn's: mean_i loss(y_i, w x_i + b) + |w|^2 / (2 C N), the intercept not penalised.
"""

import re
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from classification_models.feature_rows import FeatureRows
from classification_models.fitting import (
    FitPlan,
    Targets,
    fit_preconditioned,
    fit_scikit_learn,
    judge,
    make_targets,
    plan_fit,
    training_matrix,
)
from classification_models.linear_head import (
    LinearHead,
    check_head,
    linear_head,
    probabilities,
    scaler_from_numbers,
)
from classification_models.logistic_loss import LogisticLoss
from classification_models.memory import explain_lack_of_memory
from classification_models.plain_pickles import ForeignName
from classification_models.probe_formats import (
    ProbeParts,
    read_arrays,
    read_pickle,
    run_pickle,
    to_arrays,
    write_pickle,
)
from classification_models.row_space import RowSpace
from classification_models.solvers import PRECONDITIONED, SOLVERS, Size, check_solver, default_tolerance
from utils.errors import CheckpointError, ConfigError, DataError, UserError
from utils.files import atomic_path, write_npz
from utils.recorded import PROBE_SUFFIXES, require_recorded
from utils.threads import full_precision, torch_threads

_SETTINGS: dict[str, Any] = {
    "scale": False, "max_iter": None, "seed": 0, "multilabel": False, "verbose": False, "n_jobs": 1,
    "C": 1.0, "solver": "auto", "tol": None, "device": "auto",
}  # fmt: skip


class LogisticRegressionModel:
    """L2 logistic regression: multinomial for class indices, one-vs-rest for multi-hot labels.

    Memory while fitting is worked out and compared with what is there before anything starts (`plan_fit`).
    `preconditioned-lbfgs` reads the features where they are; scikit-learn's solvers copy them.

    `scaler` and `model` are scikit-learn's own objects, as in the published files. Predictions use their numbers
    alone (`LinearHead`) and so do not depend on scikit-learn's version.

    Attributes:
        scaler: None where features are not scaled.
        model: None before fitting.
        report: after fitting: solver, fitted_in ("features", or "rows": the space that they span), device, max_iter,
            tol, memory_bytes (needed by estimate, beside the features as given), seconds; per label (one entry if
            multiclass) n_iter, gradient, objective and gap as `judge` gives them; converged, not_converged and
            constant_labels (label indices).
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
        device: str = "auto",
    ):
        """Settle how to fit.

        Args:
            scale: standardise every feature by its training mean and standard deviation.
            max_iter: limit of iterations; None takes the solver's in `SOLVERS`.
            seed: of `sag` and `saga`, the only solvers with chance in them.
            multilabel: labels are (N, L) multi-hot instead of (N,) class indices.
            verbose: show a progress bar over the labels when stderr is a terminal.
            n_jobs: threads, -1 for one per core; see `fit_scikit_learn` for how its solvers use them.
            C: inverse strength of the L2 penalty.
            solver: "auto" (see `solvers.NEWTON_MAX_WORK` and `row_space`) or a key of `SOLVERS`, on the features.
            tol: stopping tolerance; None takes the solver's in `SOLVERS`.
            device: "cpu", "cuda", "cuda:N", or "auto": a GPU for large problems where there is one.

        Raises:
            ConfigError: for an impossible value.
        """
        if not (C > 0 and np.isfinite(C)):
            raise ConfigError(f"C must be a positive number, got {C}")
        if n_jobs == 0 or (max_iter is not None and max_iter < 1) or (tol is not None and not tol > 0):
            raise ConfigError(f"impossible value among n_jobs={n_jobs}, max_iter={max_iter}, tol={tol}")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
            raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, got {device!r}")
        check_solver(solver, device)
        self.scale, self.max_iter, self.seed, self.multilabel = scale, max_iter, seed, multilabel
        self.verbose, self.n_jobs, self.C, self.solver, self.tol = verbose, n_jobs, C, solver, tol
        self.device = device
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
            ConfigError: when the solver does not run on the device.
            DataError: when shapes disagree or nothing can be learned (no label with a positive, a single class).
            UserError: when the memory does not suffice, with the amount needed.
        """
        self._check(x, y)
        started = time.perf_counter()
        targets = make_targets(y, self.multilabel)
        count, width = x.shape
        size = Size(count, width, targets.matrix.shape[1], targets.multinomial)
        plan = plan_fit(x, size, self.solver, self.device, self.n_jobs, self.verbose)
        settings = {
            "solver": plan.solver,
            "C": self.C,
            "max_iter": self.max_iter or SOLVERS[plan.solver].max_iter,
            "tol": self.tol or default_tolerance(plan.solver, plan.row_space),
            "random_state": self.seed,
        }
        # One thread per product, chunks in parallel instead; TF32 would put the gap's bound out of reach.
        with torch_threads(1), full_precision(), explain_lack_of_memory(plan.fix):
            features = FeatureRows(x, plan.device, plan.resident, plan.threads)
            if plan.row_space:
                space = RowSpace(features, self.scale)
                rows = FeatureRows(space.rows, plan.device, plan.resident, plan.threads)
                self.model = self._fitted_by(plan, rows, space.rows, targets, settings, scale=False)
                space.to_features(self.model)
            else:
                self.model = self._fitted_by(plan, features, x, targets, settings, self.scale)
            objective = LogisticLoss(features, targets.matrix, self.C, targets.multinomial, self.scale)
            self.report = judge(objective, targets, self.model, settings, plan.row_space)
        mean, std = features.mean.cpu().numpy(), features.std.cpu().numpy()
        self.scaler = scaler_from_numbers(mean, std) if self.scale else None
        self.report |= {
            "fitted_in": "rows" if plan.row_space else "features",
            "device": str(plan.device),
            "memory_bytes": plan.needed,
            "seconds": round(time.perf_counter() - started, 3),
        }
        return self

    def _fitted_by(
        self,
        plan: FitPlan,
        features: FeatureRows,
        x: np.ndarray,
        targets: Targets,
        settings: dict[str, Any],
        scale: bool,
    ) -> LogisticRegression | OneVsRestClassifier:
        """The planned solver's fit on `x`, (N, D), of which `features` is the view in chunks."""
        if plan.solver == PRECONDITIONED:
            objective = LogisticLoss(features, targets.matrix, self.C, targets.multinomial, scale)
            return fit_preconditioned(objective, targets, settings, self.verbose)
        matrix = training_matrix(x, features, scale, plan.solver)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # whether it converged is judged afterwards, label by label
            return fit_scikit_learn(matrix, targets, settings, plan.threads, self.verbose)

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

    @property
    def fitted_model(self) -> LogisticRegression | OneVsRestClassifier:
        """`model`, once there is one.

        Raises:
            UserError: before fitting.
        """
        if self.model is None:
            raise UserError("this probe has not been fitted: call fit, or load a fitted one")
        return self.model

    @property
    def head(self) -> LinearHead:
        """The numbers of the fitted probe.

        Raises:
            UserError: before fitting.
        """
        return linear_head(self.fitted_model, self.scaler)

    @property
    def classes_(self) -> np.ndarray:
        """Class (or label) index of every column of `predict_proba`."""
        return self.head.classes

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        """Logits (N, K) of features (N, D): a column per label or class, a single one for two classes."""
        return self.head.logits(x, per_label=self.multilabel)

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
        if path.suffix not in PROBE_SUFFIXES:
            raise ConfigError(f"{path}: a probe is saved as .joblib or .npz")
        model = self.fitted_model
        if path.suffix == ".npz":
            settings = {name: getattr(self, name) for name in (*_SETTINGS, "report")}
            return write_npz(path, to_arrays(ProbeParts(settings, model, self.scaler)))
        with atomic_path(path) as temporary:
            write_pickle(self, temporary)
        return path

    @classmethod
    def load(cls, path: str | Path, trust_pickle: bool = False) -> "LogisticRegressionModel":
        """Read a probe from `.npz` or `.joblib`, ours or the authors'.

        The `.npz` form holds nothing but numbers and text. A `.joblib` is a pickle: it is read without running
        anything, and refused where it names a class or function that no probe needs.

        Args:
            path: the file.
            trust_pickle: run such a file all the same, with whatever its author put there.

        Raises:
            CheckpointError: naming the file, when it is missing, damaged, not the one on record, something else, or not
                to be trusted.
        """
        path = Path(path)
        if not path.is_file():
            raise CheckpointError(f"{path}: no such probe file")
        require_recorded(path, path.read_bytes())
        try:
            probe = cls._from_parts(read_arrays(path)) if path.suffix == ".npz" else cls._from_pickle(path)
        except ForeignName as foreign:
            if not trust_pickle:
                raise CheckpointError(
                    f"{path}: names {foreign}, which no probe needs, and a pickle runs what it names; take the .npz "
                    f"form, or, if you made this file yourself, --trust-pickle (in Python: trust_pickle=True)"
                ) from None
            probe = run_pickle(path)
        except Exception as error:  # a damaged pickle can raise anything
            raise _unreadable(path, error) from error
        try:
            if not isinstance(probe, cls):
                raise TypeError(f"it holds a {type(probe).__name__}")
            check_head(probe.head)
        except Exception as error:  # attributes can be anything, too
            raise _unreadable(path, error) from error
        return probe

    @classmethod
    def _from_pickle(cls, path: Path) -> "LogisticRegressionModel":
        known = {*_SETTINGS, "scaler", "model", "report"}
        probe = cls()
        probe.__setstate__({name: value for name, value in read_pickle(path).items() if name in known})
        return probe

    @classmethod
    def _from_parts(cls, parts: ProbeParts) -> "LogisticRegressionModel":
        probe = cls()
        probe.__setstate__(parts.settings | {"model": parts.model, "scaler": parts.scaler})
        return probe


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    reason = (str(error).splitlines() or [""])[0][:120]
    return CheckpointError(
        f"{path}: not a readable probe ({type(error).__name__}: {reason}); give a .joblib or .npz written by "
        f"train_logistic_regression.py"
    )
