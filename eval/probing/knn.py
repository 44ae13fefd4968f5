"""Landsat-Bench's other protocol (arXiv:2506.08780): the five nearest training patches vote.

As scikit-learn's `KNeighborsClassifier(5, algorithm="brute")` does it, one label at a time for multi-hot labels, but
in chunks of the test set, so that memory grows with neither of the two sets.
"""

import numpy as np
from sklearn.neighbors import NearestNeighbors
from tqdm import tqdm

NEIGHBOURS = 5
"""Of Landsat-Bench."""

CHUNK = 4096
"""Test patches looked up at a time."""


def neighbour_votes(
    train_x: np.ndarray, train_y: np.ndarray, x: np.ndarray, classes: int, neighbours: int = NEIGHBOURS
) -> np.ndarray:
    """Share of the nearest training patches (Euclidean) that have each label: (N, L) float64.

    Args:
        train_x: (M, D) features.
        train_y: (M,) class indices or (M, L) multi-hot.
        x: (N, D) features to look up.
        classes: L.
        neighbours: how many vote; all, where there are fewer training patches.
    """
    index = NearestNeighbors(n_neighbors=min(neighbours, len(train_x)), algorithm="brute").fit(train_x)
    members = train_y > 0 if train_y.ndim == 2 else train_y[:, None] == np.arange(classes)
    votes = np.empty((len(x), classes))
    starts = range(0, len(x), CHUNK)
    for start in tqdm(starts, desc="nearest neighbours", leave=False, disable=None):
        nearest = index.kneighbors(np.asarray(x[start : start + CHUNK]), return_distance=False)
        votes[start : start + CHUNK] = members[nearest].mean(axis=1)
    return votes
