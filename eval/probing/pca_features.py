"""PCA baseline: principal components of whole patches, as many as an encoder's embedding has features."""

from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh
from tqdm import tqdm

from datasets.loader import BatchLoader
from utils.errors import DataError

FIT_PATCHES = 4096
"""Training patches that the components are found on, evenly spread over the split. More change little: they are many
times as many as the components."""

RANK_TOLERANCE = 1e-10
"""Directions with less than this share of the first one's variance are rounding."""


class PrincipalComponents(NamedTuple):
    """A projection of patches."""

    mean: np.ndarray
    """(P,) float32, P = C·S·S"""
    directions: np.ndarray
    """(D, P) float32, orthonormal, largest variance first."""

    @property
    def n_components_(self) -> int:
        """How many there are, by scikit-learn's name."""
        return len(self.directions)

    def transform(self, images: np.ndarray) -> np.ndarray:
        """(N, P) z-scored pixels to (N, D)."""
        return (images - self.mean) @ self.directions.T


class PatchComponents(NamedTuple):
    """Patches by their principal components."""

    x: np.ndarray
    """(N, D) float32"""
    ids: list[str]


def fit_pca(loader: BatchLoader, width: int) -> PrincipalComponents:
    """Principal components of the z-scored pixels (nodata is 0) of a training split.

    Exact for the patches used, from their Gram matrix: there are fewer patches than pixels.

    Args:
        loader: of the training split; at most `FIT_PATCHES` of its patches are used.
        width: how many components, as many as the embedding has features; fewer where there are too few patches.

    Raises:
        DataError: when there are fewer than two different patches.
    """
    count = len(loader.dataset)
    order = np.unique(np.linspace(0, count - 1, min(count, FIT_PATCHES)).astype(int)).tolist()
    total = -(-len(order) // loader.batch_size)
    batches = tqdm(loader.batches(order), total=total, desc="patches for PCA", leave=False, disable=None)
    images = np.concatenate([batch.images.flatten(1).cpu().numpy() for batch in batches])
    mean = images.mean(axis=0, dtype=np.float64)
    centred = images - mean  # (n, P) float64
    most = min(width, len(images) - 1)
    if most > 0:
        variances, vectors = eigh(centred @ centred.T, subset_by_index=[len(images) - most, len(images) - 1])
    if most <= 0 or not variances[-1] > 0:
        raise DataError("principal components need at least two different training patches with a valid pixel")
    kept = np.flatnonzero(variances > RANK_TOLERANCE * variances[-1])[::-1]
    directions = (vectors[:, kept] / np.sqrt(variances[kept])).T @ centred
    largest = np.abs(directions).argmax(axis=1)
    directions *= np.sign(directions[np.arange(len(kept)), largest])[:, None]  # the sign is free: settle it
    return PrincipalComponents(mean.astype(np.float32), directions.astype(np.float32))


def pca_vectors(pca: PrincipalComponents, loader: BatchLoader) -> PatchComponents:
    """The components of every patch that the loader gives."""
    found, ids = [], []
    for batch in tqdm(loader.batches(), total=len(loader), desc="PCA", leave=False, disable=None):
        if batch.ids:
            found.append(pca.transform(batch.images.flatten(1).cpu().numpy()))
            ids += batch.ids
    return PatchComponents(np.concatenate(found), ids)
