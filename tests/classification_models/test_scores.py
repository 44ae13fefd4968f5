"""Scores of the probe: against hand values and scikit-learn, and the classes that must be left out."""

import json

import numpy as np
import pytest
from sklearn import metrics as sk

from classification_models.scores import class_table, score_multiclass, score_multilabel, summary_table
from utils.analysis_utils import plot_class_scores

NAMES = ["forest", "water", "snow"]


def multilabel_case(seed: int = 0, samples: int = 200, labels: int = 5) -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(seed)
    truth = (random.random((samples, labels)) < 0.3).astype(np.int8)
    scores = np.round(random.random((samples, labels)) * 0.7 + 0.3 * truth, 2)  # rounded, so that there are ties
    return truth, (scores > 0.5).astype(np.int64), scores


def test_hand_values_multilabel():
    truth = np.array([[1, 0], [0, 1], [1, 1], [0, 0]])
    decisions = np.array([[1, 0], [1, 1], [0, 1], [0, 0]])
    scores = np.array([[0.9, 0.1], [0.8, 0.7], [0.4, 0.6], [0.2, 0.3]])
    result = score_multilabel(truth, decisions, scores, ["a", "b"], truth)
    # Ranking of label a: hit, miss, hit -> (1/1 + 2/3) / 2. Pooled: hit, miss, hit, hit, hit, ...
    assert result["per_class"][0]["ap"] == pytest.approx((1 + 2 / 3) / 2)
    assert result["per_class"][1]["ap"] == pytest.approx(1)
    assert result["map_macro"] == pytest.approx((5 / 6 + 1) / 2)
    assert result["map_micro"] == pytest.approx((1 + 2 / 3 + 3 / 4 + 4 / 5) / 4)
    assert result["f1_micro"] == pytest.approx(2 * 3 / (4 + 4))
    assert result["exact_match"] == pytest.approx(2 / 4)
    assert result["hamming_loss"] == pytest.approx(2 / 8)


def test_hand_values_multiclass():
    truth, decisions = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2])
    probability = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
    result = score_multiclass(truth, decisions, probability, NAMES, truth)
    assert result["accuracy"] == result["f1_micro"] == pytest.approx(3 / 4)
    assert result["f1_macro"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert [row["support"] for row in result["per_class"]] == [2, 1, 1]


def test_agrees_with_scikit_learn():
    truth, decisions, scores = multilabel_case()
    result = score_multilabel(truth, decisions, scores, list("abcde"), truth)
    assert result["map_micro"] == pytest.approx(sk.average_precision_score(truth, scores, average="micro"))
    assert result["map_macro"] == pytest.approx(sk.average_precision_score(truth, scores, average="macro"))
    for average in ("micro", "macro"):
        expected = sk.precision_recall_fscore_support(truth, decisions, average=average)
        found = [result[f"{name}_{average}"] for name in ("precision", "recall", "f1")]
        assert found == pytest.approx(expected[:3])
    assert result["exact_match"] == pytest.approx(sk.accuracy_score(truth, decisions))


def test_classes_that_cannot_be_scored_are_left_out_and_named():
    truth, decisions, scores = multilabel_case()
    truth[:, 1] = 0  # absent from the split
    train = np.array([[1, 1, 0, 1, 1], [0, 0, 0, 1, 0]])  # label 2 never, label 3 always positive
    result = score_multilabel(truth, decisions, scores, list("abcde"), train)
    assert result["left_out"] == {"constant_in_train": ["c", "d"], "absent_from_split": ["b"]}
    kept = [0, 4]
    assert result["map_macro"] == pytest.approx(sk.average_precision_score(truth[:, kept], scores[:, kept]))
    assert result["f1_macro"] == pytest.approx(sk.f1_score(truth[:, kept], decisions[:, kept], average="macro"))
    assert result["per_class"][1]["ap"] is None
    assert "left out of macro" in class_table(result)


def test_a_split_without_positives_has_no_map_and_stays_json():
    empty = np.zeros((3, 2), np.int8)
    result = score_multilabel(empty, empty, np.full((3, 2), 0.5), ["a", "b"], np.eye(2))
    assert result["map_micro"] is None and result["map_macro"] is None and result["f1_micro"] == 0
    json.dumps(result, allow_nan=False)
    assert "–" in summary_table({"val": result})


def test_a_class_without_training_samples_counts_in_accuracy_but_not_in_macro():
    truth, decisions = np.array([0, 1, 2, 2]), np.array([0, 1, 0, 1])
    probability = np.eye(3)[decisions]
    result = score_multiclass(truth, decisions, probability, NAMES, train_labels=np.array([0, 1]))
    assert result["accuracy"] == 0.5 and result["left_out"]["constant_in_train"] == ["snow"]
    assert result["recall_macro"] == 1


def test_tables_are_aligned_and_the_figure_has_a_bar_per_class():
    truth, decisions, scores = multilabel_case()
    names = ["a", "Land principally occupied by agriculture, with significant areas", "c", "d", "e"]
    result = score_multilabel(truth, decisions, scores, names, truth)
    summary = summary_table({"val": result, "test": result}).splitlines()
    assert len({len(line) for line in summary}) == 1
    assert len({len(line) for line in class_table(result).splitlines()}) == 1
    (axes,) = plot_class_scores(result["per_class"], "title").axes
    assert len(axes.patches) == 2 * len(names)
