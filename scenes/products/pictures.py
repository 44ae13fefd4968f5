"""What pictures of a scene have in common: true colour, coordinates, a scale bar, all panels on the same ground."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import rasterio
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from rasterio.crs import CRS
from rasterio.transform import array_bounds

from scenes.input.grids import SPACING, SceneGrid
from scenes.input.product import Scene
from scenes.input.reader import hidden_pixels
from scenes.input.virtual_files import GDAL_NETWORK
from transformation.landsat_numbers import COLLECTION2, hidden_values, reflectance_as_numbers
from utils.analysis_utils import TRUE_COLOUR, true_colour
from utils.sensors import OLI, Sensor

LARGEST_SIDE = 1000
"""Pixels of each picture; larger scenes are thinned out."""
GREY = 0.75
"""Where there is nothing to show."""
PANEL, LEAST_PANEL = 6.2, 2.5
"""Inches of a panel's longer side, and of its shorter one at least."""
MARGINS = {"left": 0.75, "right": 0.2, "bottom": 0.55, "top": 0.7, "between": 0.25}
"""Inches around and between panels, for ticks and titles."""
_STEPS = (1, 2, 5)


def scene_panels(
    scene: Scene, count: int = 2, beside: float = 0.0, side: float = PANEL
) -> tuple[Figure, Sequence[Axes]]:
    """Panels of the scene's shape side by side, the first a picture of it, on the same ground to the pixel.

    Args:
        scene: what is shown.
        count: of panels.
        beside: inches to the right for what explains the picture.
        side: inches of a panel's longer side.
    """
    grid = scene.grid
    width, height = (
        max(side * pixels / max(grid.width, grid.height), LEAST_PANEL) for pixels in (grid.width, grid.height)
    )
    step = width + MARGINS["between"]
    across = MARGINS["left"] + count * step - MARGINS["between"] + MARGINS["right"] + beside
    down = MARGINS["bottom"] + height + MARGINS["top"]
    figure = Figure(figsize=(across, down))
    starts = [MARGINS["left"] + number * step for number in range(count)]
    boxes = [(start / across, MARGINS["bottom"] / down, width / across, height / down) for start in starts]
    first = figure.add_axes(boxes[0])
    panels = (first, *(figure.add_axes(box, sharex=first, sharey=first) for box in boxes[1:]))
    left, bottom, right, top = edges_of(grid)
    panels[0].imshow(scene_colours(scene), extent=(left, right, bottom, top), interpolation="nearest")
    panels[0].set_title(_shown_as(scene.sensor), fontsize=10)
    title = scene.name + (" (simulated)" if scene.simulated else "")
    figure.text(starts[0] / across, 1 - 0.12 / down, title, fontsize=11, va="top", weight="bold")
    for axes in panels:
        axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
        _label_ground(axes, grid)
    for axes in panels[1:]:
        axes.tick_params(labelleft=False)
        axes.set_ylabel("")
    add_scale_bar(panels[0], grid)
    return figure, panels


def _shown_as(sensor: Sensor) -> str:
    """The title of a scene's picture."""
    return "true colour" if sensor.shown == sensor.rgb else f"{', '.join(sensor.shown)} as red, green, blue"


def edges_of(grid: SceneGrid) -> tuple[float, float, float, float]:
    """Left, bottom, right and top on the map projection; pixels counted downwards where there is none."""
    if not grid.georeferenced:
        return 0.0, float(grid.height), float(grid.width), 0.0
    return array_bounds(grid.height, grid.width, grid.transform)


def show_cells(axes: Axes, image: np.ndarray, transform: rasterio.Affine, grid: SceneGrid, step: int = 1) -> None:
    """Draw (h, w, …) colours of cells, each `step`-th of them, where they lie on the ground.

    Cells reach over the scene's border; what lies outside it is cut off.
    """
    height, width = image.shape[:2]
    left, bottom, right, top = array_bounds(height * step, width * step, transform)
    limits = axes.get_xlim(), axes.get_ylim()
    axes.imshow(image, extent=(left, right, bottom, top), interpolation="nearest", aspect="equal")
    axes.set(xlim=limits[0], ylim=limits[1])
    axes.set_facecolor((GREY, GREY, GREY))


def scene_colours(scene: Scene) -> np.ndarray:
    """(h, w, 3) colours, stretched over the pixels that are neither cloud nor fill; clouds are shown, fill is grey."""
    shape = thinned_shape(scene.grid.height, scene.grid.width)
    shown, masks, hidden = [], [], np.zeros(shape, bool)
    bands = [scene.bands[scene.sensor.common.index(name)] for name in scene.sensor.shown]
    with rasterio.Env(**GDAL_NETWORK):
        for band in bands:
            with rasterio.open(band.path) as file:
                shown.append(file.read(band.band, out_shape=shape))
                masks.append(file.read_masks(band.band, out_shape=shape) == 0)
        if scene.qa is not None:
            with rasterio.open(scene.qa.path) as file:
                hidden = hidden_pixels(file.read(scene.qa.band, out_shape=shape), scene.sensor)
    scale = scene.scale or COLLECTION2
    nodata = [band.nodata for band in bands]
    fill = hidden_values(np.stack(shown), scale, nodata=nodata, masks=np.stack(masks))
    hidden |= fill
    image = np.full((len(OLI.bands), *shape), np.nan, np.float32)
    for index, values in zip(TRUE_COLOUR, shown, strict=True):
        image[index] = reflectance_as_numbers(values * scale[0] + scale[1])
    clear = np.where(hidden, np.nan, image)
    return true_colour(np.where(fill, np.nan, image), like=clear)


def thinned_shape(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of a picture of so many pixels."""
    step = max(1.0, max(height, width) / LARGEST_SIDE)
    return max(1, round(height / step)), max(1, round(width / step))


def add_scale_bar(axes: Axes, grid: SceneGrid) -> None:
    """A bar of a round length, about a fifth of the picture, at its lower left."""
    left, bottom, right, top = edges_of(grid)
    metres = grid.width * SPACING
    length = _round_length(metres / 5)
    across = length / metres * (right - left)
    x, y = left + 0.04 * (right - left), bottom + 0.05 * (top - bottom)
    ends: dict[str, Any] = {"solid_capstyle": "butt", "clip_on": True}
    axes.plot((x, x + across), (y, y), color="black", lw=5, **ends)
    axes.plot((x, x + across), (y, y), color="white", lw=3, **ends)
    text = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    around = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.5}
    axes.text(x + across / 2, y + 0.02 * (top - bottom), text, ha="center", va="bottom", fontsize=8, bbox=around)


def _round_length(metres: float) -> float:
    power = 10.0 ** np.floor(np.log10(metres))
    return float(max(step for step in _STEPS if step * power <= metres) * power)


def _label_ground(axes: Axes, grid: SceneGrid) -> None:
    axes.tick_params(labelsize=8)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    if not grid.georeferenced:
        axes.set_xlabel("column", fontsize=8)
        axes.set_ylabel("row", fontsize=8)
        return
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda metres, _: f"{metres / 1000:,g}"))
    axes.set_xlabel(f"easting, km{_name_of(grid.crs)}", fontsize=8)
    axes.set_ylabel("northing, km", fontsize=8)


def _name_of(crs: CRS | None) -> str:
    code = crs.to_epsg() if crs is not None else None
    return f" (EPSG:{code})" if code else ""
