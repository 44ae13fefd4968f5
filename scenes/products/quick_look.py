"""A picture of a scene: true colour beside the first three principal components of its embeddings."""

import numpy as np
import rasterio
from matplotlib.figure import Figure

from scenes.input.product import Scene
from scenes.input.reader import hidden_pixels
from scenes.products.embedding_file import EmbeddingMap, MapStatistics
from transformation.landsat_numbers import COLLECTION2, hidden_values, reflectance_as_numbers
from utils.analysis_utils import TRUE_COLOUR, true_colour

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
    shown, masks = [], []
    for band in (scene.bands[index] for index in TRUE_COLOUR):
        with rasterio.open(band.path) as file:
            shown.append(file.read(band.band, out_shape=shape))
            masks.append(file.read_masks(band.band, out_shape=shape) == 0)
    scale = scene.scale or COLLECTION2
    nodata = [scene.bands[index].nodata for index in TRUE_COLOUR]
    fill = hidden_values(np.stack(shown), scale, nodata=nodata, masks=np.stack(masks))
    image = np.full((len(scene.sensor.bands), *shape), np.nan, np.float32)
    for index, values in zip(TRUE_COLOUR, shown, strict=True):
        image[index] = reflectance_as_numbers(values * scale[0] + scale[1])
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
