"""The two file forms of a probe: `.npz`, plain arrays, and `.joblib`, a pickle as published."""

import json
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import sklearn
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from classification_models.linear_head import linear_head, one_vs_rest, regression_from_numbers, scaler_from_numbers
from classification_models.probe_pickles import MOST_BYTES, read_probe_pickle
from utils.parsing import parse_json, read_npz

logger = logging.getLogger(__name__)

_NPZ_FORMAT = "moemae-linear-probe-1"
_PICKLED_MODULE = "classification_models.logistic_regression"
"""Where the pickles of all probes, also the authors', look for their class."""


class ProbeParts(NamedTuple):
    """What a fitted probe is made of."""

    settings: dict[str, Any]  # JSON-ready, among them C, seed and multilabel
    model: LogisticRegression | OneVsRestClassifier
    scaler: StandardScaler | None


def to_arrays(parts: ProbeParts) -> dict[str, np.ndarray]:
    """The `.npz` form: numbers, and the settings as JSON text."""
    head = linear_head(parts.model, parts.scaler)
    members = getattr(parts.model, "estimators_", [parts.model])
    arrays = {
        "format": np.array(_NPZ_FORMAT),
        "coef": head.coef,
        "intercept": head.intercept,
        "classes": head.classes,
        "multilabel": np.array(parts.settings["multilabel"]),
        "n_iter": np.array([np.max(getattr(member, "n_iter_", 0)) for member in members]),
        "settings": np.array(json.dumps(parts.settings)),
    }
    return arrays if head.mean is None else arrays | {"scaler_mean": head.mean, "scaler_scale": head.scale}


def read_arrays(path: Path) -> ProbeParts:
    """Read the `.npz` form.

    Raises:
        ValueError: for another format; and whatever numpy raises for a damaged file.
    """
    arrays = read_npz(path, MOST_BYTES)
    if "format" not in arrays or arrays["format"].item() != _NPZ_FORMAT:
        raise ValueError(f"its format is not {_NPZ_FORMAT}")
    settings = parse_json(arrays["settings"].item())
    kept = {"C": settings["C"], "random_state": settings["seed"]}
    if settings["multilabel"]:
        rows = zip(arrays["coef"], arrays["intercept"], arrays["n_iter"], strict=True)
        members = [regression_from_numbers(w[None], b[None], np.array([0, 1]), n, **kept) for w, b, n in rows]
        model = one_vs_rest(members, **kept)
    else:
        coef, intercept, classes = (arrays[name] for name in ("coef", "intercept", "classes"))
        model = regression_from_numbers(coef, intercept, classes, arrays["n_iter"][0], **kept)
    scaled = "scaler_mean" in arrays
    scaler = scaler_from_numbers(arrays["scaler_mean"], arrays["scaler_scale"]) if scaled else None
    return ProbeParts(settings, model, scaler)


@contextmanager
def _as_pickled() -> Iterator[None]:
    """The class of probes is found where pickles look for it, also where it is installed below another package."""
    package = __name__.rpartition(".")[0]
    own = f"{package}.{_PICKLED_MODULE.rpartition('.')[2]}"
    if own == _PICKLED_MODULE:
        yield
        return
    probe = sys.modules[own].LogisticRegressionModel
    names = {_PICKLED_MODULE: own, _PICKLED_MODULE.partition(".")[0]: package}
    before = {name: sys.modules[name] for name in names if name in sys.modules}
    sys.modules.update({name: sys.modules[module] for name, module in names.items()})
    probe.__module__ = _PICKLED_MODULE
    try:
        yield
    finally:
        probe.__module__ = own
        for name in names:
            del sys.modules[name]
        sys.modules.update(before)


def write_pickle(probe: Any, path: Path) -> None:
    """Write a probe as published."""
    with _as_pickled():
        joblib.dump(probe, path)


def read_pickle(path: Path) -> dict[str, Any]:
    """The attributes of a probe's `.joblib`, read without running what it says.

    Raises:
        ForeignName: with the first class or function that no probe needs.
        ValueError, TypeError, and others: for a damaged file, or one that holds something else.
    """
    attributes, versions = read_probe_pickle(path)
    _say_versions(path, versions - {sklearn.__version__})
    return attributes


def run_pickle(path: Path) -> Any:
    """Whatever a `.joblib` makes: this runs what its author put there."""
    with warnings.catch_warnings(record=True) as caught, _as_pickled():
        warnings.simplefilter("always")
        value = joblib.load(path)
    found = [warning.message for warning in caught]
    _say_versions(path, {one.original_sklearn_version for one in found if isinstance(one, InconsistentVersionWarning)})
    return value


def _say_versions(path: Path, versions: set[str]) -> None:
    if versions:
        logger.warning(f"{path}: written with scikit-learn {', '.join(sorted(versions))}; only its numbers are used")
