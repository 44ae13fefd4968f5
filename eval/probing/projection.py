"""Visual inspection of embeddings: two-dimensional projections and nearest neighbours."""

from typing import Literal, NamedTuple

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

MOST_COMPONENTS = 50
"""Principal components that t-SNE starts from (van der Maaten and Hinton 2008, section 4)."""


class Projection(NamedTuple):
    """Embeddings on a plane."""

    points: np.ndarray
    """(N, 2)"""
    method: str
    """PCA or t-SNE with its setting, for a title."""


def project(x: np.ndarray, method: Literal["pca", "tsne"], seed: int, perplexity: float = 30.0) -> Projection:
    """Project standardised embeddings (N, D) onto a plane; the same points for the same seed.

    Args:
        x: the embeddings, N at least 4.
        method: "pca" keeps the two directions of largest variance; "tsne" keeps neighbourhoods, and its distances
            between groups mean nothing.
        seed: of both.
        perplexity: of t-SNE, lowered to (N - 1) / 3 for few patches.
    """
    scaled = StandardScaler().fit_transform(np.asarray(x, dtype=np.float64))
    pca = PCA(min(MOST_COMPONENTS, *scaled.shape), svd_solver="full", random_state=seed)
    components = pca.fit_transform(scaled)
    if method == "pca":
        return Projection(components[:, :2], f"PCA, {pca.explained_variance_ratio_[:2].sum():.0%} of the variance")
    perplexity = min(perplexity, (len(x) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=seed, n_jobs=1)
    return Projection(tsne.fit_transform(components), f"t-SNE, perplexity {perplexity:.0f}")


def nearest_neighbours(queries: np.ndarray, base: np.ndarray, k: int) -> np.ndarray:
    """The rows of (M, D) `base` nearest to each of (Q, D) `queries`, (Q, k), nearest first.

    Euclidean distance between embeddings standardised by `base`.
    """
    scaler = StandardScaler().fit(np.asarray(base, dtype=np.float64))
    index = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(scaler.transform(base))
    return index.kneighbors(scaler.transform(queries), return_distance=False)
