"""How unusual the way from one date to another is for a cell, given the way of most cells.

Season, sun and air change all cells, those of crops otherwise than those of woods. So each date's vectors are predicted
from the other's, linearly over the cells that both dates show, and a cell's distance is what the two predictions leave,
in units of what they leave of other cells (Mahalanobis). Cells with the largest distances are left out when predictions
are fitted, again and again, so that what has changed does not hide itself; compare the iteratively reweighted
multivariate alteration detection of Nielsen 2007, doi:10.1109/TIP.2006.888195. Few components are predicted: the
smallest hold noise, and few cells would be learned by heart.
"""

from collections.abc import Sequence

import numpy as np

from scenes.products.embedding_file import TILE, EmbeddingMap, MapStatistics

COMPONENTS = 16
"""Of the embeddings' variance within a date."""
CELLS_A_COMPONENT = 20
"""At least, so that a prediction is not learned by heart."""
RIDGE = 1e-3
"""Share of the components' mean variance that is added to each of them, where one date predicts the other."""
SHRINKAGE = 0.05
"""Of the residuals' covariance towards equal variances within a date."""
LEFT_OUT, ROUNDS = 0.15, 3
"""Share of the cells that a fit leaves out, and how often it is made."""


def common_components(parts: Sequence[MapStatistics]) -> np.ndarray:
    """(k, D) directions in which the cells of a date differ most, on average over dates.

    Args:
        parts: statistics of the dates; those without a cell do not count.
    """
    known = [part for part in parts if part.count]
    count = sum(part.count for part in known)
    covariance = np.sum([part.covariance * (part.count / count) for part in known], axis=0)
    most = min(COMPONENTS, max(1, min(part.count for part in known) // CELLS_A_COMPONENT), len(covariance))
    return MapStatistics(count, np.zeros(len(covariance)), covariance).components(most)


def project(one: EmbeddingMap, axes: np.ndarray) -> np.ndarray:
    """(rows, width, k) float32 components of a date's cells, (k, D) `axes`; NaN where a cell is hidden."""
    return np.concatenate([cells.values @ axes.T.astype(np.float32) for cells in one.stripes()])


def cell_distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How far each cell's way from one date to the other is from that of most cells.

    Args:
        one, other: (rows, width, k) components of two dates.

    Returns:
        (rows, width) float32; NaN where a cell is hidden on one of the dates.
    """
    kept = seen = np.isfinite(one[..., 0]) & np.isfinite(other[..., 0])
    distances = np.full(seen.shape, np.nan, np.float32)
    if not seen.any():
        return distances
    for _ in range(ROUNDS):
        mean, covariance = _moments(one, other, kept)
        scaled = _scaled_residuals(covariance)
        for rows in _stripes(seen):
            pair = np.concatenate([one[rows], other[rows]], axis=-1)
            distances[rows] = np.linalg.norm((pair - mean) @ scaled, axis=-1)
        kept = seen & (distances <= np.quantile(distances[seen], 1 - LEFT_OUT))
    return distances


def _stripes(cells: np.ndarray) -> list[slice]:
    """Rows that are computed at once."""
    return [slice(top, top + TILE) for top in range(0, len(cells), TILE)]


def _moments(one: np.ndarray, other: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(2 k,) mean and (2 k, 2 k) covariance of both dates' components beside each other, over some cells."""
    size = 2 * one.shape[-1]
    total, products = np.zeros(size), np.zeros((size, size))
    for rows in _stripes(kept):
        pair = np.concatenate([one[rows][kept[rows]], other[rows][kept[rows]]], axis=-1).astype(np.float64)
        total, products = total + pair.sum(0), products + pair.T @ pair
    count = int(kept.sum())
    mean = total / count
    return mean, products / count - np.outer(mean, mean)


def _scaled_residuals(covariance: np.ndarray) -> np.ndarray:
    """(2 k, 2 k) that turns centred components into what the dates do not say of each other, of variance 1 each."""
    size = len(covariance) // 2
    first, second = slice(0, size), slice(size, None)
    residual = np.eye(2 * size)
    for known, wanted in ((first, second), (second, first)):
        within = covariance[known, known]
        ridge = max(RIDGE * np.trace(within) / size, 1e-12)
        residual[known, wanted] = -np.linalg.solve(within + ridge * np.eye(size), covariance[known, wanted])
    left = residual.T @ covariance @ residual
    equal = np.concatenate([np.full(size, max(left.diagonal()[part].mean(), 1e-12)) for part in (first, second)])
    left = (1 - SHRINKAGE) * left + SHRINKAGE * np.diag(equal)
    return residual @ np.linalg.inv(np.linalg.cholesky(left)).T
