"""One split of patches in one representation, and what a protocol says of it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from classification_models.scores import score_multiclass, score_multilabel
from eval.statistics.weighted_metrics import Statistic, decisions_of, statistics_of


class Vectors(NamedTuple):
    """One split of patches in one representation."""

    x: np.ndarray
    """(N, D) real numbers."""
    y: np.ndarray
    """(N,) class indices or (N, L) multi-hot."""
    ids: Sequence[str]

    def rows(self, chosen: np.ndarray) -> "Vectors":
        """Some of the patches: (M,) indices, or (N,) booleans."""
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        indices: list[int] = chosen.tolist()
        return Vectors(self.x[chosen], self.y[chosen], [self.ids[index] for index in indices])


class Scores(NamedTuple):
    """One protocol on one test split."""

    metrics: dict[str, Any]
    """As `score_multilabel` and `score_multiclass` give them."""
    scores: np.ndarray
    """(N, L) probabilities on the test split."""
    labels: np.ndarray
    """(N, L) or (N,)"""
    details: dict[str, Any]
    """What was fitted and how; JSON-ready."""

    def statistics(self) -> dict[str, Statistic]:
        """The headline figures for a bootstrap; see `eval.statistics.weighted_metrics.statistics_of`."""
        return statistics_of(self.metrics, self.labels, self.scores)

    @property
    def headline(self) -> str:
        """Landsat-Bench's figure: "map_micro" for several labels, "accuracy" for classes."""
        return "map_micro" if self.labels.ndim == 2 else "accuracy"


def score_probabilities(
    probabilities: np.ndarray, labels: np.ndarray, train_labels: np.ndarray, names: Sequence[str]
) -> dict[str, Any]:
    """All metrics of probabilities (N, L); decisions are `decisions_of` them. Labels (N, L) or (N,)."""
    decisions = decisions_of(probabilities, labels.ndim == 2)
    score = score_multilabel if labels.ndim == 2 else score_multiclass
    return score(labels, decisions, probabilities, names, train_labels)
