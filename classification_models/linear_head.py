"""A fitted linear classifier as plain numbers, to and from scikit-learn's objects (1.6 or later)."""

from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import LabelBinarizer, StandardScaler

from classification_models.embeddings import row_chunks
from utils.errors import DataError


class LinearHead(NamedTuple):
    """All that prediction needs: logits = coef (x - mean) / scale + intercept."""

    coef: np.ndarray  # (K, D), a row per label or class; one row if there are two classes
    intercept: np.ndarray  # (K,); -inf or +inf for a label that is constant in training
    classes: np.ndarray  # (K,) class index per row, or the two classes
    mean: np.ndarray | None  # (D,), None if the features are not scaled
    scale: np.ndarray | None  # (D,)

    def logits(self, x: np.ndarray, per_label: bool) -> np.ndarray:
        """Logits (N, K) of features (N, D), in the wider precision of features and coefficients.

        Args:
            x: features; visited in chunks of rows, never copied whole.
            per_label: score the labels one at a time, as scikit-learn's one-vs-rest does, and not in one product:
                the two round differently in float32, and a file is to give the same bits as there.

        Raises:
            DataError: when the features are not as wide as those fitted on.
        """
        if x.ndim != 2 or x.shape[1] != self.coef.shape[1]:
            raise DataError(f"features have the shape {x.shape}, this probe was fitted on (N, {self.coef.shape[1]})")
        dtype = np.result_type(x.dtype, self.coef.dtype)
        logits = np.empty((len(x), len(self.coef)), dtype)
        for rows in row_chunks(x):
            chunk = np.require(x[rows], dtype, ["C", "A"])
            if self.mean is not None:
                chunk = ((chunk - self.mean) / self.scale).astype(dtype, copy=False)
            if per_label:
                for label, coef in enumerate(self.coef):
                    logits[rows, label] = chunk @ coef + self.intercept[label]
            else:
                logits[rows] = chunk @ self.coef.T + self.intercept
        return logits


def check_head(head: LinearHead) -> None:
    """Refuse numbers from a file that no fit gives.

    Raises:
        ValueError: for coefficients that are not finite or not (K, D), and for others that do not fit to them.
        TypeError: where they are no arrays of numbers.
    """
    if head.coef.ndim != 2 or not np.isfinite(head.coef).all() or np.isnan(head.intercept).any():
        raise ValueError("its coefficients are not finite numbers")
    rows, width = head.coef.shape
    classes = (2,) if rows == 1 and head.classes.shape == (2,) else (rows,)
    if head.intercept.shape != (rows,) or head.classes.shape != classes or np.isnan(head.classes).any():
        raise ValueError(f"{rows} rows of coefficients do not fit to its intercepts and classes")
    if head.mean is None or head.scale is None:
        return
    if head.mean.shape != (width,) or head.scale.shape != (width,):
        raise ValueError(f"it scales other features than the {width} of its coefficients")
    if not (np.isfinite(head.mean).all() and np.isfinite(head.scale).all() and (head.scale != 0).all()):
        raise ValueError("the means and scales of its features are not finite numbers")


def probabilities(logits: np.ndarray, multilabel: bool) -> np.ndarray:
    """Logits (N, K) to probabilities: of every label on its own, or over the classes (N, 2 columns for one logit)."""
    if multilabel:
        return expit(logits)
    if logits.shape[1] == 1:
        positive = expit(logits)
        return np.concatenate([1 - positive, positive], axis=1)
    return softmax(logits, axis=1)


def fitted(estimator: object, name: str) -> Any:
    """An attribute that scikit-learn sets in `fit`, such as "coef_"; it declares no types for them."""
    return getattr(estimator, name)


def linear_head(model: LogisticRegression | OneVsRestClassifier, scaler: StandardScaler | None) -> LinearHead:
    """The numbers inside fitted scikit-learn objects."""
    mean, scale = (None, None) if scaler is None else (fitted(scaler, "mean_"), fitted(scaler, "scale_"))
    if not isinstance(model, OneVsRestClassifier):
        coef, intercept, classes = (fitted(model, name) for name in ("coef_", "intercept_", "classes_"))
        return LinearHead(coef, intercept, classes, mean, scale)
    members = fitted(model, "estimators_")
    width = next(member.coef_.shape[1] for member in members if hasattr(member, "coef_"))
    coefs, intercepts = [], []
    for member in members:
        if hasattr(member, "coef_"):
            coefs.append(member.coef_)
            intercepts.append(member.intercept_)
        else:  # scikit-learn's constant predictor, for a label that never changed in training
            coefs.append(np.zeros((1, width), np.float32))
            intercepts.append(np.array([np.inf if member.y_[0] else -np.inf], np.float32))
    return LinearHead(np.concatenate(coefs), np.concatenate(intercepts), np.arange(len(coefs)), mean, scale)


def regression_from_numbers(
    coef: np.ndarray, intercept: np.ndarray, classes: np.ndarray, n_iter: int, **settings: Any
) -> LogisticRegression:
    """A scikit-learn regression with the given numbers, (K, D) and (K,), instead of fitted ones."""
    regression = LogisticRegression(**settings)
    vars(regression).update(
        coef_=coef,
        intercept_=intercept,
        classes_=classes,
        n_iter_=np.array([n_iter], np.int32),
        n_features_in_=coef.shape[1],
    )
    return regression


def constant_regression(positive: bool, width: int, **settings: Any) -> LogisticRegression:
    """A regression that always answers 0 or always 1, for a label that never changes in training."""
    intercept = np.array([np.inf if positive else -np.inf])
    return regression_from_numbers(np.zeros((1, width)), intercept, np.array([0, 1]), 0, **settings)


def one_vs_rest(members: list[LogisticRegression], **settings: Any) -> OneVsRestClassifier:
    """scikit-learn's one-vs-rest classifier around regressions that are fitted already, one per label."""
    model = OneVsRestClassifier(LogisticRegression(**settings))
    vars(model).update(
        estimators_=members,
        n_features_in_=fitted(members[0], "n_features_in_"),
        label_binarizer_=LabelBinarizer(sparse_output=True).fit(np.eye(len(members), dtype=np.int64)),
    )
    return model


def scaler_from_numbers(mean: np.ndarray, scale: np.ndarray) -> StandardScaler:
    """A scikit-learn scaler with the given mean and scale, (D,) each."""
    scaler = StandardScaler()
    vars(scaler).update(mean_=mean, scale_=scale, var_=scale**2, n_features_in_=len(mean))
    return scaler
