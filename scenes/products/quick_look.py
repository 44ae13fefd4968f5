"""A picture of a scene: true colour beside the first three principal components of its embeddings."""

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
    axes = statistics.components(3)
    rows = []
    for cells in embeddings.stripes():
        thinned = cells.values[-cells.top % step :: step, ::step]
        rows.append((thinned - statistics.mean.astype(np.float32)) @ axes.T.astype(np.float32))
    image = np.concatenate(rows)
    if not np.isfinite(image).any():
        return np.full_like(image, GREY)
    low, high = np.nanpercentile(image, STRETCH, axis=(0, 1))
    image = ((image - low) / np.maximum(high - low, 1e-6)).clip(0, 1)
    return np.where(np.isfinite(image), image, GREY)
