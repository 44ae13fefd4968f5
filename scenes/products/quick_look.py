"""A picture of a scene: true colour beside the first three principal components of its embeddings."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from scenes.input.product import Scene
from scenes.products.embedding_file import EmbeddingMap, MapStatistics
from scenes.products.pictures import GREY, LARGEST_SIDE, scene_panels, show_cells

STRETCH = (2, 98)
"""Percentiles of a component that become black and white."""


def plot_quick_look(scene: Scene, embeddings: EmbeddingMap, statistics: MapStatistics) -> Figure:
    """True colour (clouds shown, fill grey) and principal components (cloud, shadow and fill grey)."""
    figure, (_, right) = scene_panels(scene)
    step = -(-max(embeddings.height, embeddings.width) // LARGEST_SIDE)
    show_cells(right, component_colours(embeddings, statistics, step), embeddings.transform, scene.grid, step)
    explained = _explained(statistics)
    right.set_title(f"first three principal components of the embeddings ({explained:.0%} of variance)", fontsize=10)
    return figure


def _explained(statistics: MapStatistics) -> float:
    axes = statistics.components(3)
    total = max(float(np.trace(statistics.covariance)), 1e-12)
    return float(np.einsum("kd,de,ke->", axes, statistics.covariance, axes)) / total


def component_colours(embeddings: EmbeddingMap, statistics: MapStatistics, step: int) -> np.ndarray:
    """(h, w, 3) colours of every `step`-th cell."""
    values = component_values(embeddings, statistics, step)
    return stretched(values, *stretch_of([values]))


def component_values(embeddings: EmbeddingMap, statistics: MapStatistics, step: int) -> np.ndarray:
    """(h, w, 3) first three components of every `step`-th cell; NaN where there is none."""
    axes = statistics.components(3)
    rows = []
    for cells in embeddings.stripes():
        thinned = cells.values[-cells.top % step :: step, ::step]
        rows.append((thinned - statistics.mean.astype(np.float32)) @ axes.T.astype(np.float32))
    return np.concatenate(rows)


def stretch_of(images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """What becomes black and white in images of components, alike in all of them: (3,) each."""
    values = np.concatenate([image.reshape(-1, image.shape[-1]) for image in images])
    if not np.isfinite(values).any():
        return np.zeros(values.shape[1]), np.ones(values.shape[1])
    low, high = np.nanpercentile(values, STRETCH, axis=0)
    return low, high


def stretched(image: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The components of an image as colours; grey where there is no cell."""
    colours = ((image - low) / np.maximum(high - low, 1e-6)).clip(0, 1)
    return np.where(np.isfinite(image), colours, GREY)
