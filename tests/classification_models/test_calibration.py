"""Calibration error by arithmetic, and the temperature that repairs logits of the wrong size."""

import numpy as np
import pytest
from scipy.special import expit, softmax

from classification_models.calibration import at_temperature, expected_calibration_error, fit_temperature


def test_the_error_is_the_mean_gap_of_the_bins() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.9, 0.1]])
    labels = np.array([[1, 0], [1, 0], [1, 0], [0, 1]])
    # 0.9 happened 3 times of 4, 0.1 once of 4: gaps of 0.15 in both bins.
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.15)
    certain = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert expected_calibration_error(certain, certain.astype(int)) == 0


def test_of_classes_the_predicted_one_counts() -> None:
    probabilities = np.array([[0.8, 0.2], [0.3, 0.7]])
    assert expected_calibration_error(probabilities, np.array([0, 0])) == pytest.approx((0.2 + 0.7) / 2)


@pytest.mark.parametrize("size", [0.25, 1.0, 4.0])
@pytest.mark.parametrize("multilabel", [True, False])
def test_the_temperature_undoes_the_size_of_logits(size: float, multilabel: bool) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(20_000, 3))
    if multilabel:
        labels = (random.random(logits.shape) < expit(logits)).astype(int)
        given = expit(size * logits)
    else:
        labels = (softmax(logits, axis=1).cumsum(axis=1) < random.random((len(logits), 1))).sum(axis=1)
        given = softmax(size * logits, axis=1)
    found = fit_temperature(given, labels)
    assert found == pytest.approx(size, rel=0.05)
    scaled = at_temperature(given, found, multilabel)
    assert expected_calibration_error(scaled, labels) <= expected_calibration_error(given, labels) + 0.01
    axis = 0 if multilabel else 1
    assert (given.argsort(axis) == scaled.argsort(axis)).all(), "no ranking changes"


@pytest.mark.parametrize("labels", [np.array([[1, 0], [0, 1]]), np.array([0, 1])])
def test_what_is_certain_stays_certain(labels: np.ndarray) -> None:
    certain = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert (at_temperature(certain, fit_temperature(certain, labels), labels.ndim == 2) == certain).all()
