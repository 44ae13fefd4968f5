"""Whether a probe's probabilities mean what they say: expected calibration error, before and after temperature scaling.

For several labels every (patch, label) pair is one forecast, with its own probability of the label. For classes a patch
is one forecast, with the probability of the class that is predicted (Guo et al. 2017, arXiv:1706.04599).
"""

import numpy as np
from scipy.optimize import fminbound
from scipy.special import expit, log_softmax, logit, softmax

BINS = 15
"""Equally wide bins of probability (Guo et al. 2017)."""

LEAST = 1e-12
"""In a fit probabilities are kept so far from 0 and 1, so that their log-odds are finite."""

TEMPERATURES = (1 / 20, 20.0)
"""Between which a temperature is looked for."""


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean distance between what was forecast and what happened, over bins of probability, weighted by their sizes.

    Args:
        probabilities: (N, L).
        labels: (N, L) multi-hot, or (N,) class indices.
    """
    if labels.ndim == 2:
        forecast, happened = probabilities.ravel(), labels.ravel() > 0
    else:
        forecast, happened = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((forecast * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, forecast - happened, BINS)
    return float(np.abs(gaps).sum() / len(forecast))


def at_temperature(probabilities: np.ndarray, temperature: float, multilabel: bool) -> np.ndarray:
    """The probabilities (N, L) of the same logits divided by a temperature; 0 and 1 stay what they are."""
    if multilabel:
        return expit(logit(probabilities) / temperature)
    with np.errstate(divide="ignore"):  # a class without a training patch has 0
        return softmax(np.log(probabilities) / temperature, axis=1)


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The one temperature under which labels are most likely, within `TEMPERATURES`.

    Args:
        probabilities: (N, L) of patches that the probe was not fitted on.
        labels: (N, L) multi-hot, or (N,) class indices.
    """
    kept = np.clip(probabilities, LEAST, 1 - LEAST)
    logits = logit(kept) if labels.ndim == 2 else np.log(kept)

    def surprise(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        if labels.ndim == 2:
            return float(np.logaddexp(0.0, np.where(labels > 0, -scaled, scaled)).mean())
        return float(-log_softmax(scaled, axis=1)[np.arange(len(labels)), labels].mean())

    low, high = np.log(TEMPERATURES)
    return float(np.exp(fminbound(surprise, low, high)))
