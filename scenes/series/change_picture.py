"""A picture of what has changed: both dates in true colour, the distances, and the cells to believe."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from rasterio.transform import array_bounds

from scenes.products.embedding_file import EmbeddingMap
from scenes.products.pictures import edges_of, scene_colours
from scenes.products.styles import RAMP
from scenes.series.change import Change
from scenes.series.dates import Date
from scenes.series.strip import show_picture

SIDE = 3.2
"""Inches of a panel's longer side."""
STRETCH = (2, 99)
"""Percentiles of the distances that are the ends of the ramp."""
FOUND = (0.84, 0.15, 0.10, 1.0)
"""Colour of cells that have changed."""


def plot_change(dates: Sequence[Date], change: Change, like: EmbeddingMap, fdr: float) -> Figure:
    """Draw the change between two dates.

    Args:
        dates: the two.
        change: what is found.
        like: a map with the same cells.
        fdr: the false discovery rate, for the title.
    """
    left, bottom, right, top = array_bounds(like.height, like.width, like.transform)
    ground = (left, right, bottom, top)
    count = 3 if change.significant is None else 4
    wide, high = (SIDE * cells / max(like.width, like.height) for cells in (like.width, like.height))
    figure = Figure(figsize=(count * (wide + 0.15) + 0.7, high + 0.6), layout="constrained")
    panels = figure.subplots(1, count, squeeze=False)[0]
    for axes, date in zip(panels, dates, strict=False):
        edges = edges_of(date.scene.grid)
        show_picture(axes, scene_colours(date.scene), (edges[0], edges[2], edges[1], edges[3]))
        axes.set_title(f"{date.moment:%Y-%m-%d}", fontsize=9)
    ramp = LinearSegmentedColormap.from_list("ramp", RAMP)
    low, high_end = np.nanpercentile(change.distance, STRETCH)
    show_picture(panels[2], change.distance, ground, cmap=ramp, vmin=low, vmax=max(high_end, low + 1e-6))
    panels[2].set_title("distance", fontsize=9)
    figure.colorbar(panels[2].images[0], ax=panels[2], shrink=0.8).ax.tick_params(labelsize=7)
    if change.significant is not None:
        grey = colormaps["gray"]((change.distance - low) / max(high_end - low, 1e-6) * 0.5 + 0.4)
        grey[change.significant] = FOUND
        grey[~np.isfinite(change.distance), 3] = 0
        show_picture(panels[3], grey, ground)
        panels[3].set_title(f"changed, false discovery rate {fdr:.0%}", fontsize=9)
    for axes in panels:
        axes.set(xlim=(left, right), ylim=(bottom, top))
    return figure
