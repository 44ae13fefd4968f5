"""A picture of a series: true colour above the components of the embeddings, a column for each date."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rasterio.transform import array_bounds

from scenes.products.embedding_file import EmbeddingMap, MapStatistics
from scenes.products.pictures import GREY, edges_of, scene_colours
from scenes.products.quick_look import component_values, stretch_of, stretched
from scenes.series.dates import Date

ACROSS = 12
"""Dates beside each other; more go on below."""
SIDE = 1.7
"""Inches of a picture's longer side."""
LARGEST_SIDE = 400
"""Cells of a picture; larger maps are thinned out."""


def plot_strip(dates: Sequence[Date], maps: Sequence[EmbeddingMap], statistics: MapStatistics) -> Figure:
    """Draw all dates on the same ground, with the same colours.

    Args:
        dates: the scenes.
        maps: their cells, on one lattice.
        statistics: of all cells of all dates, whose first three components are shown.
    """
    first = maps[0]
    step = -(-max(first.height, first.width) // LARGEST_SIDE)
    values = [component_values(one, statistics, step) for one in maps]
    limits = stretch_of(values)
    left, bottom, right, top = array_bounds(first.height, first.width, first.transform)
    across, rows = min(len(dates), ACROSS), -(-len(dates) // ACROSS)
    wide, high = (SIDE * cells / max(first.width, first.height) for cells in (first.width, first.height))
    figure = Figure(figsize=(across * (wide + 0.12) + 0.2, rows * (2 * high + 0.55) + 0.15), layout="constrained")
    panels = figure.subplots(2 * rows, across, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    for number, (date, image) in enumerate(zip(dates, values, strict=True)):
        upper, lower = panels[2 * (number // ACROSS) : 2 * (number // ACROSS) + 2, number % ACROSS]
        upper.set_title(f"{date.moment:%Y-%m-%d}", fontsize=8)
        scene_left, scene_bottom, scene_right, scene_top = edges_of(date.scene.grid)
        show_picture(upper, scene_colours(date.scene), (scene_left, scene_right, scene_bottom, scene_top))
        # A thinned map ends a part of a step beyond the last cell.
        reach = array_bounds(image.shape[0] * step, image.shape[1] * step, first.transform)
        show_picture(lower, stretched(image, *limits), (reach[0], reach[2], reach[1], reach[3]))
        for axes in (upper, lower):
            axes.set(xlim=(left, right), ylim=(bottom, top))
    return figure


def show_picture(axes: Axes, image: np.ndarray, extent: tuple[float, float, float, float], **colours: Any) -> None:
    """Draw an image on its ground (left, right, bottom, top), with `colours` as `imshow` takes them."""
    axes.set_axis_on()
    axes.imshow(image, extent=extent, interpolation="nearest", aspect="equal", **colours)
    axes.set(xticks=(), yticks=(), facecolor=(GREY, GREY, GREY))
