"""Scores of a probe: mean average precision, F1, precision, recall, exact match or accuracy, and a table per class.

The headline figures are those of Landsat-Bench (arXiv:2506.08780): micro mAP, that is the average precision of one
ranking over all (patch, label) pairs, for BigEarthNet-Landsat; accuracy for EuroSAT-Landsat.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score

from classification_models.logistic_regression import LogisticRegressionModel

SUMMARY_LABELS = {
    "map_micro": "mAP micro",
    "map_macro": "mAP macro",
    "f1_micro": "F1 micro",
    "f1_macro": "F1 macro",
    "precision_micro": "prec. micro",
    "precision_macro": "prec. macro",
    "recall_micro": "recall micro",
    "recall_macro": "recall macro",
    "exact_match": "exact match",
    "hamming_loss": "Hamming loss",
    "accuracy": "accuracy",
}
"""Key in the scores to heading in a table, in the order of the columns."""

_NAME_WIDTH = 40


def score_multilabel(
    labels: np.ndarray,
    decisions: np.ndarray,
    scores: np.ndarray,
    names: Sequence[str],
    train_labels: np.ndarray,
) -> dict[str, Any]:
    """Score one split of a multilabel problem; every array (N, L), but `train_labels` (M, L).

    Micro figures pool all pairs of patch and label. Macro figures are means over the labels that have a positive in
    this split and both a positive and a negative in training; the others are named in `left_out`. A precision, recall
    or F1 without anything to divide by is 0.

    Args:
        labels: zeros and ones.
        decisions: zeros and ones.
        scores: anything that ranks, such as probabilities.
        names: L label names.
        train_labels: the labels fitted on.

    Returns:
        JSON-ready: the keys of `SUMMARY_LABELS` that apply, as fractions (None where no label can be scored);
        `samples`, `left_out`, `per_class`.
    """
    truth, chosen = np.asarray(labels) > 0, np.asarray(decisions) > 0
    train_positives = (np.asarray(train_labels) > 0).sum(axis=0)
    constant = (train_positives == 0) | (train_positives == len(train_labels))
    result = _pairwise(truth, chosen, scores, names, train_positives, constant)
    exact = {
        "exact_match": float((truth == chosen).all(axis=1).mean()),
        "hamming_loss": float((truth != chosen).mean()),
    }
    return _assemble(result, exact, len(truth))


def score_multiclass(
    labels: np.ndarray,
    decisions: np.ndarray,
    probabilities: np.ndarray,
    names: Sequence[str],
    train_labels: np.ndarray,
) -> dict[str, Any]:
    """Score one split of a multiclass problem; see `score_multilabel`.

    Micro precision, recall and F1 are all the accuracy here. Macro figures leave out classes without a sample in this
    split or in training.

    Args:
        labels: (N,) class indices.
        decisions: (N,) class indices.
        probabilities: (N, K), a column per class index.
        names: K class names.
        train_labels: (M,) class indices fitted on.
    """
    classes = np.arange(len(names))
    truth, chosen = np.asarray(labels)[:, None] == classes, np.asarray(decisions)[:, None] == classes
    train_samples = (np.asarray(train_labels)[:, None] == classes).sum(axis=0)
    result = _pairwise(truth, chosen, probabilities, names, train_samples, train_samples == 0)
    return _assemble(result, {"accuracy": float((truth & chosen).any(axis=1).mean())}, len(truth))


def score_probe(
    probe: LogisticRegressionModel, x: np.ndarray, labels: np.ndarray, names: Sequence[str], train_labels: np.ndarray
) -> dict[str, Any]:
    """Scores of a fitted probe on features (N, D); see `score_multilabel` and `score_multiclass`."""
    decisions, probability = probe.predict(x), probe.predict_proba(x)
    if probe.multilabel:
        return score_multilabel(labels, decisions, probability, names, train_labels)
    # Classes without a training sample have no column: their probability is 0.
    full = np.zeros((len(probability), len(names)), probability.dtype)
    full[:, probe.classes_] = probability
    return score_multiclass(labels, decisions, full, names, train_labels)


def map_micro(truth: np.ndarray, scores: np.ndarray) -> float | None:
    """Average precision of all pairs (N, L) of patch and label together; None without a positive."""
    return float(average_precision_score(truth.ravel(), scores.ravel())) if truth.any() else None


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros(np.shape(numerator)), where=denominator != 0)


def _pairwise(
    truth: np.ndarray,
    chosen: np.ndarray,
    scores: np.ndarray,
    names: Sequence[str],
    train_positives: np.ndarray,
    unlearned: np.ndarray,
) -> dict[str, Any]:
    """What multilabel and one-hot multiclass have in common; every matrix (N, L)."""
    support, predicted, hits = truth.sum(axis=0), chosen.sum(axis=0), (truth & chosen).sum(axis=0)
    present = support > 0
    scored = present & ~unlearned
    columns = {
        "ap": [
            float(average_precision_score(truth[:, label], scores[:, label])) if present[label] else None
            for label in range(len(names))
        ],
        "f1": _ratio(2 * hits, support + predicted).tolist(),
        "precision": _ratio(hits, predicted).tolist(),
        "recall": _ratio(hits, support).tolist(),
        "support": support.tolist(),
        "train_positives": train_positives.tolist(),
        "in_macro": scored.tolist(),
    }
    per_class = [
        {"index": label, "name": str(names[label])} | {key: values[label] for key, values in columns.items()}
        for label in range(len(names))
    ]

    def macro(key: str) -> float | None:
        values = [row[key] for row in per_class if row["in_macro"]]
        return float(np.mean(values)) if values else None

    return {
        "map_micro": map_micro(truth, scores),
        "map_macro": macro("ap"),
        "f1_micro": float(_ratio(2 * hits.sum(), support.sum() + predicted.sum())),
        "f1_macro": macro("f1"),
        "precision_micro": float(_ratio(hits.sum(), predicted.sum())),
        "precision_macro": macro("precision"),
        "recall_micro": float(_ratio(hits.sum(), support.sum())),
        "recall_macro": macro("recall"),
        "left_out": {
            "constant_in_train": [str(names[label]) for label in np.flatnonzero(unlearned).tolist()],
            "absent_from_split": [str(names[label]) for label in np.flatnonzero(~present).tolist()],
        },
        "per_class": per_class,
    }


def _assemble(result: dict[str, Any], extra: dict[str, float], samples: int) -> dict[str, Any]:
    summary = {key: (result | extra)[key] for key in SUMMARY_LABELS if key in result or key in extra}
    return {"samples": samples, **summary, "left_out": result["left_out"], "per_class": result["per_class"]}


def summary_table(metrics: dict[str, dict[str, Any]]) -> str:
    """One aligned line per score and a column per split; fractions as percentages."""
    splits = list(metrics)
    lines = [f"{'':<14}" + "".join(f"{split:>10}" for split in splits)]
    for key, heading in SUMMARY_LABELS.items():
        if key in metrics[splits[0]]:
            lines.append(f"{heading:<14}" + "".join(f"{_percent(metrics[split][key]):>10}" for split in splits))
    lines.append(f"{'samples':<14}" + "".join(f"{metrics[split]['samples']:>10,}" for split in splits))
    return "\n".join(lines)


def class_table(scores: dict[str, Any]) -> str:
    """One aligned line per class: AP, F1, precision, recall as percentages, counts in this split and in training."""
    width = min(_NAME_WIDTH, max(len(row["name"]) for row in scores["per_class"]))
    lines = [f"{'class':<{width}}{'AP':>8}{'F1':>8}{'prec.':>8}{'recall':>8}{'support':>9}{'in train':>10}"]
    for row in scores["per_class"]:
        name = row["name"] if len(row["name"]) <= width else row["name"][: width - 1] + "…"
        figures = "".join(f"{_percent(row[key]):>8}" for key in ("ap", "f1", "precision", "recall"))
        note = "" if row["in_macro"] else "  left out of macro"
        lines.append(f"{name:<{width}}{figures}{row['support']:>9,}{row['train_positives']:>10,}{note}")
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"
