"""Metrics of a test set in which every patch counts a given number of times, as a bootstrap needs them.

Everything that does not depend on the weights (sorting above all) is done once, so that an evaluation costs two passes
over the (patch, label) pairs. With all weights 1 the values are those of `classification_models.scores`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

Statistic = Callable[[np.ndarray], float]
"""Weights (N,), how often each patch counts, to a figure; NaN where it is not defined for them."""


def mean_of(values: np.ndarray) -> Statistic:
    """The mean of one number a patch, (N,), such as a loss."""
    values = np.asarray(values, np.float64)
    return lambda weights: float(weights @ values / weights.sum())


class RankedPairs:
    """Average precision of one or several rankings, each of pairs of a patch and a label, under any weights.

    As scikit-learn defines it: the sum over thresholds of the gain in recall times the precision there, tied scores
    being one threshold.

    Args:
        truth: (N, R) booleans, a column per ranking.
        scores: (N, R) anything that ranks.
        pooled: rank all columns together instead of each on its own.
    """

    def __init__(self, truth: np.ndarray, scores: np.ndarray, pooled: bool) -> None:
        truth, scores = np.asarray(truth) > 0, np.asarray(scores)
        rows = np.arange(len(truth))
        if pooled:
            columns = [(np.repeat(rows, truth.shape[1]), truth.ravel(), scores.ravel())]
        else:
            columns = [(rows, truth[:, column], scores[:, column]) for column in range(truth.shape[1])]
        self.count = len(columns)
        ranked = [_rank(*column) for column in columns]
        starts = np.cumsum([0, *(len(rows) for rows, _, _ in ranked)])
        self._rows = np.concatenate([rows for rows, _, _ in ranked])
        """Patch of every pair, best first, one ranking after the other."""
        self._positives = np.concatenate([at + start for (_, at, _), start in zip(ranked, starts, strict=False)])
        """Where in `_rows` the positive pairs are."""
        self._ends = np.concatenate([ends + start for (_, _, ends), start in zip(ranked, starts, strict=False)])
        """For every positive pair, the last place with its score."""
        self._ranking = np.repeat(np.arange(self.count), [len(at) for _, at, _ in ranked])
        """For every positive pair, which ranking it is in."""
        self._first = starts[:-1]
        self._positive_rows = self._rows[self._positives]
        # The last positive among those that are tied with each positive.
        self._last_tied = np.searchsorted(self._positives, self._ends, side="right") - 1
        self._seen = np.zeros(len(self._rows) + 1)  # kept, so that an evaluation allocates little

    def average_precision(self, weights: np.ndarray) -> np.ndarray:
        """(R,) average precision of every ranking; NaN where no positive pair has weight."""
        weights = np.asarray(weights, np.float64)
        seen, gains = self._seen, weights[self._positive_rows]
        np.take(weights, self._rows, out=seen[1:], mode="clip")  # "clip" does without a copy; all are inside
        np.cumsum(seen, out=seen)
        hits = np.cumsum(gains)
        before = np.concatenate([[0.0], np.bincount(self._ranking, gains, self.count).cumsum()])[:-1]
        hits_at = hits[self._last_tied] - before[self._ranking]
        seen_at = seen[self._ends + 1] - seen[self._first][self._ranking]
        precision = np.divide(hits_at, seen_at, out=np.zeros(len(gains)), where=seen_at > 0)
        total = np.bincount(self._ranking, gains, self.count)
        found = np.bincount(self._ranking, gains * precision, self.count)
        return np.divide(found, total, out=np.full(self.count, np.nan), where=total > 0)


def _rank(rows: np.ndarray, truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows in the order of falling scores, places of the positives in it, and for each the last place of its score."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    positives = np.flatnonzero(truth[order])
    return rows[order], positives, last[np.searchsorted(last, positives)]


def micro_map(labels: np.ndarray, scores: np.ndarray) -> Statistic:
    """Micro mAP of labels (N, L) and scores (N, L): one ranking over all pairs."""
    ranked = RankedPairs(labels, scores, pooled=True)
    return lambda weights: float(ranked.average_precision(weights)[0])


def macro_map(labels: np.ndarray, scores: np.ndarray, counted: np.ndarray) -> Statistic:
    """Macro mAP: the mean over the labels `counted` (L,) that have a positive with weight."""
    ranked = RankedPairs(np.asarray(labels)[:, counted], np.asarray(scores)[:, counted], pooled=False)
    return lambda weights: _mean_where_defined(ranked.average_precision(weights))


def share_right(labels: np.ndarray, decisions: np.ndarray) -> Statistic:
    """Share of the patches whose class, or whole set of labels, is right: accuracy, or exact match."""
    right = np.asarray(labels) == np.asarray(decisions)
    return mean_of(right if right.ndim == 1 else right.all(axis=1))


def macro_f1(truth: np.ndarray, chosen: np.ndarray, counted: np.ndarray) -> Statistic:
    """Macro F1 of booleans (N, L): the mean over the labels `counted` (L,) that have a positive with weight."""
    sums = _counts(truth, chosen, counted)

    def statistic(weights: np.ndarray) -> float:
        support, predicted, hits = sums(weights)
        f1 = np.divide(2 * hits, support + predicted, out=np.full(len(hits), np.nan), where=support > 0)
        return _mean_where_defined(f1)

    return statistic


def micro_f1(truth: np.ndarray, chosen: np.ndarray) -> Statistic:
    """Micro F1 of booleans (N, L): all pairs pooled; 0 where there is nothing to find and nothing is found."""
    sums = _counts(truth, chosen, np.ones(np.shape(truth)[1], bool))

    def statistic(weights: np.ndarray) -> float:
        support, predicted, hits = sums(weights).sum(axis=1)
        return float(2 * hits / (support + predicted)) if support + predicted else 0.0

    return statistic


def _counts(truth: np.ndarray, chosen: np.ndarray, counted: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Weights (N,) to (3, L): how often a label is there, is predicted, and both."""
    truth, chosen = (np.asarray(given)[:, counted] > 0 for given in (truth, chosen))
    table = np.hstack([truth, chosen, truth & chosen]).astype(np.float32)
    # A patch's weight is a small whole number, so float32 products are exact up to 2^24 patches.
    return lambda weights: (np.asarray(weights, np.float32) @ table).astype(np.float64).reshape(3, -1)


def _mean_where_defined(values: np.ndarray) -> float:
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def decisions_of(scores: np.ndarray, multilabel: bool) -> np.ndarray:
    """What probabilities (N, L) decide: (N, L) zeros and ones above a half, or (N,) the most likely class.

    Among equally likely classes the first one, as in scikit-learn.
    """
    return (scores > 0.5).astype(np.int64) if multilabel else scores.argmax(axis=1)


def statistics_of(metrics: dict[str, Any], labels: np.ndarray, scores: np.ndarray) -> dict[str, Statistic]:
    """The headline figures of one protocol as statistics, under the keys that `classification_models.scores` uses.

    Args:
        metrics: of the same scores: `per_class` says which labels count in macro figures.
        labels: (N, L) multi-hot, or (N,) class indices.
        scores: (N, L) probabilities.

    Returns:
        "map_micro", "map_macro", "f1_micro", "f1_macro" and "exact_match" or, for classes, "accuracy".
    """
    counted = np.array([row["in_macro"] for row in metrics["per_class"]])
    multilabel = labels.ndim == 2
    truth = labels > 0 if multilabel else labels[:, None] == np.arange(scores.shape[1])
    decided = decisions_of(scores, multilabel)
    chosen = decided > 0 if multilabel else decided[:, None] == np.arange(scores.shape[1])
    return {
        "map_micro": micro_map(truth, scores),
        "map_macro": macro_map(truth, scores, counted),
        "f1_micro": micro_f1(truth, chosen),
        "f1_macro": macro_f1(truth, chosen, counted),
        "exact_match" if multilabel else "accuracy": share_right(labels, decided),
    }
