"""How far the cells of two dates lie apart, once what one date says of the other is taken away.

Season, sun and air change all cells, those of crops otherwise than those of woods. So each date's vectors are predicted
from the other's, linearly over all cells that both dates show, and a cell's distance is what the two predictions leave.
Few components are predicted: the smallest hold noise, and few cells would be learned by heart.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from scenes.products.embedding_file import TILE, EmbeddingMap, MapStatistics

COMPONENTS = 32
"""Of the embeddings' variance within a date."""
CELLS_A_COMPONENT = 20
"""At least, so that a prediction is not learned by heart."""
RIDGE = 1e-3
"""Share of the components' mean variance that is added to each of them."""


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


def cell_distances(one: EmbeddingMap, other: EmbeddingMap, axes: np.ndarray) -> np.ndarray:
    """Root of the summed squared residuals of both predictions, that of either date from the other.

    Two passes over both maps, a stripe of each in memory.

    Args:
        one, other: maps with the same cells.
        axes: (k, D) components that are predicted.

    Returns:
        (rows, width) float32; NaN where a cell is hidden on one of the dates.
    """
    size = len(axes)
    count, total, products = 0, np.zeros(2 * size), np.zeros((2 * size, 2 * size))
    for pair in _pairs(one, other, axes):
        seen = pair[np.isfinite(pair[..., 0]) & np.isfinite(pair[..., size])]
        count, total = count + len(seen), total + seen.sum(0)
        products += seen.T @ seen
    mean = total / max(count, 1)
    residuals = _residuals(products / max(count, 1) - np.outer(mean, mean))
    return np.concatenate(
        [np.linalg.norm((pair - mean) @ residuals, axis=-1).astype(np.float32) for pair in _pairs(one, other, axes)]
    )


def _pairs(one: EmbeddingMap, other: EmbeddingMap, axes: np.ndarray) -> Iterator[np.ndarray]:
    """(rows, width, 2 k) components of both dates beside each other, a stripe at a time."""
    for top in range(0, one.height, TILE):
        rows = (top, min(top + TILE, one.height))
        yield np.concatenate([dated.rows(*rows).astype(np.float64) @ axes.T for dated in (one, other)], axis=-1)


def _residuals(covariance: np.ndarray) -> np.ndarray:
    """(2 k, 2 k) that turns centred components of two dates into what the other date leaves of each."""
    size = len(covariance) // 2
    first, second = slice(0, size), slice(size, None)
    matrix = np.eye(2 * size)
    for known, wanted in ((first, second), (second, first)):
        ridge = max(RIDGE * np.trace(covariance[known, known]) / size, 1e-12)
        matrix[known, wanted] = -np.linalg.solve(
            covariance[known, known] + ridge * np.eye(size), covariance[known, wanted]
        )
    return matrix
