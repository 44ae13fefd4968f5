"""A picture of a scene: true colour beside the first three principal components of its embeddings."""

import numpy as np
import rasterio
from matplotlib.figure import Figure

from scenes.input.product import Scene
from scenes.input.reader import hidden_pixels
from scenes.products.embedding_file import EmbeddingMap, MapStatistics
from utils.analysis_utils import TRUE_COLOUR, true_colour
from utils.data_config import REFLECTANCE_OFFSET, REFLECTANCE_SCALE

LARGEST_SIDE = 1000
"""Pixels of each picture; larger scenes are thinned out."""
GREY = 0.6
"""Where there is no embedding."""
STRETCH = (2, 98)
"""Percentiles of a component that become black and white."""


def plot_quick_look(scene: Scene, embeddings: EmbeddingMap, statistics: MapStatistics) -> Figure:
    """True colour (clouds shown, fill grey) and principal components (cloud, shadow and fill grey)."""
    figure = Figure(figsize=(13, 6.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(_true_colour(scene), interpolation="nearest")
    left.set_title(f"{scene.name}{' (simulated)' if scene.simulated else ''}, true colour", fontsize=9)
    right.imshow(_components(embeddings, statistics), interpolation="nearest")
    explained = _explained(statistics)
    right.set_title(
        f"first three principal components of the embeddings ({explained:.0%} of their variance)", fontsize=9
    )
    for axes in (left, right):
        axes.set(xticks=[], yticks=[])
    return figure


def _explained(statistics: MapStatistics) -> float:
    axes = statistics.components(3)
    total = max(float(np.trace(statistics.covariance)), 1e-12)
    return float(np.einsum("kd,de,ke->", axes, statistics.covariance, axes)) / total


def _true_colour(scene: Scene) -> np.ndarray:
    """(h, w, 3) colours, stretched over the pixels that are neither cloud nor fill."""
    shape = _thinned(scene.grid.height, scene.grid.width)
    image = np.full((len(scene.sensor.bands), *shape), np.nan, np.float32)
    for index in TRUE_COLOUR:
        band = scene.bands[index]
        with rasterio.open(band.path) as file:
            image[index] = file.read(band.band, out_shape=shape)
    shown = image[list(TRUE_COLOUR)]
    fill = ~np.isfinite(shown).all(axis=0)
    fill |= (shown == (0 if scene.bands[0].nodata is None else scene.bands[0].nodata)).any(axis=0)
    if scene.scale is not None:
        reflectance = image * scene.scale[0] + scene.scale[1]
        image = (reflectance - REFLECTANCE_OFFSET) / REFLECTANCE_SCALE
    hidden = fill.copy()
    if scene.qa is not None:
        with rasterio.open(scene.qa.path) as file:
            hidden |= hidden_pixels(file.read(scene.qa.band, out_shape=shape))
    clear = np.where(hidden, np.nan, image)
    return true_colour(np.where(fill, np.nan, image), like=clear)


def _components(embeddings: EmbeddingMap, statistics: MapStatistics) -> np.ndarray:
    """(h, w, 3) colours."""
    step = -(-max(embeddings.height, embeddings.width) // LARGEST_SIDE)
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


def _thinned(height: int, width: int) -> tuple[int, int]:
    step = max(1.0, max(height, width) / LARGEST_SIDE)
    return max(1, round(height / step)), max(1, round(width / step))
