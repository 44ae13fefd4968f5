"""Where the windows of a scene lie, and how their tokens become one value a cell.

The frame is the scene, widened to whole windows whose corners lie on multiples of a window's side (1,200 m) from the
origin of the map projection. So the same ground is cut the same way whatever is around it: scenes of other dates,
padded by fill or cropped, give cells on one grid.

Windows start every `stride` pixels, also above and left of the scene, so that every cell is seen by the same number of
windows. A window's say in a cell falls off towards its border (a tent along both axes) and with the share of it that
is hidden, so that no seam shows where one window ends.
"""

from typing import NamedTuple

import numpy as np
import rasterio
import rasterio.warp
from rasterio.crs import CRS

from scenes.input.grids import SPACING, SceneGrid
from utils.errors import ConfigError, DataError


class Frame(NamedTuple):
    """A scene cut into blocks of the size of a window."""

    grid: SceneGrid
    window: int
    """Pixels along a window's side, and a block's."""
    patch: int
    """Pixels along a patch's side."""
    stride: int
    cell: int
    """Pixels along the side of an output cell."""
    above: int
    """Pixels of the frame above the scene's first row."""
    left: int

    @property
    def blocks_down(self) -> int:
        return -(-(self.above + self.grid.height) // self.window)

    @property
    def blocks_across(self) -> int:
        return -(-(self.left + self.grid.width) // self.window)

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of cells in the whole frame."""
        per_block = self.window // self.cell
        return self.blocks_down * per_block, self.blocks_across * per_block

    @property
    def output_rows(self) -> slice:
        """The frame's rows of cells that hold some of the scene."""
        return slice(self.above // self.cell, -(-(self.above + self.grid.height) // self.cell))

    @property
    def output_columns(self) -> slice:
        return slice(self.left // self.cell, -(-(self.left + self.grid.width) // self.cell))

    @property
    def output_transform(self) -> rasterio.Affine:
        """Of the cells in `output_rows` and `output_columns`."""
        column = self.output_columns.start * self.cell - self.left
        row = self.output_rows.start * self.cell - self.above
        grid = self.grid.transform
        corner = (grid.c + grid.a * column, grid.f + grid.e * row)
        return rasterio.Affine(grid.a * self.cell, 0.0, corner[0], 0.0, grid.e * self.cell, corner[1])

    def windows_of(self, stripe: int, end: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Tops and lefts (in the frame, some negative) of the windows that end a stripe, within a block of rows.

        Stripe b holds the tops above row 40 b, down to and with it; its windows lie in the blocks b - 1 and b. Those
        that begin in the block row `end` or below are left out (None: those below the frame).
        """
        reach = self.window - self.stride
        tops = np.arange(stripe * self.window - reach, stripe * self.window + 1, self.stride)
        lefts = np.arange(-reach, self.blocks_across * self.window, self.stride)
        end = self.blocks_down if end is None else end
        return tops[tops < end * self.window], lefts

    @property
    def window_count(self) -> int:
        """Windows of the whole frame, those without a visible pixel among them."""
        counts = ([len(part) for part in self.windows_of(b)] for b in range(self.blocks_down + 1))
        return sum(rows * columns for rows, columns in counts)

    @property
    def output_shape(self) -> tuple[int, int]:
        """Rows and columns of cells that hold some of the scene."""
        rows, columns = self.output_rows, self.output_columns
        return rows.stop - rows.start, columns.stop - columns.start

    def global_index(self, top: int, left: int) -> tuple[int, int]:
        """Number of a window's first row and column from the origin of the map projection."""
        if not self.grid.georeferenced:
            return top, left
        row, column = global_pixel(self.grid)
        return row - self.above + top, column - self.left + left

    def centres(self, tops: np.ndarray, lefts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Latitude and longitude (degrees, EPSG:4326) of n windows' centres.

        Raises:
            DataError: where the map projection gives none.
        """
        columns, rows = lefts - self.left + self.window / 2, tops - self.above + self.window / 2
        grid = self.grid.transform
        xs, ys = grid.c + grid.a * columns, grid.f + grid.e * rows
        outside = DataError("parts of the scene lie outside its map projection; reproject it to its UTM zone")
        try:
            lon, lat = rasterio.warp.transform(self.grid.crs, CRS.from_epsg(4326), xs, ys)[:2]
        except Exception as error:  # GDAL's errors have no public class
            raise outside from error
        if not (np.isfinite(lat).all() and np.isfinite(lon).all()):
            raise outside
        return np.array(lat), np.array(lon)


def make_frame(grid: SceneGrid, window: int, patch: int, stride: int, cell: int | None = None) -> Frame:
    """The frame of a scene.

    Args:
        grid: of the scene.
        window, patch: of the model, pixels.
        stride: between windows; a multiple of the patch that divides the window.
        cell: side of an output cell, likewise; None: a whole window where windows do not overlap, else a patch.

    Raises:
        ConfigError: for another stride or cell, with those that fit.
    """
    fitting = [side for side in range(patch, window + 1, patch) if window % side == 0]
    cell = cell if cell is not None else (window if stride == window else patch)
    for name, value in (("stride", stride), ("cell", cell)):
        if value not in fitting:
            raise ConfigError(f"--{name} {value}: choose one of {', '.join(map(str, fitting))} pixels")
    above = left = 0
    if grid.georeferenced:
        above, left = (number % window for number in global_pixel(grid))
    return Frame(grid, window, patch, stride, cell, above, left)


def global_pixel(grid: SceneGrid) -> tuple[int, int]:
    """Row and column of a scene's first pixel, counted from the origin of the map projection.

    Landsat's corners lie half a pixel off whole multiples of 30 m: they are rounded down.
    """
    return int(np.floor(-grid.transform.f / SPACING + 1e-6)), int(np.floor(grid.transform.c / SPACING + 1e-6))


def tent(side: int) -> np.ndarray:
    """(side, side) float32 weights that fall from the middle to the border: the product of two tents."""
    line = np.minimum(np.arange(1, side + 1), np.arange(side, 0, -1)).astype(np.float32)
    return np.outer(line, line)


def patch_shares(clear: np.ndarray, patch: int) -> np.ndarray:
    """(h, w) bool to the clear share of every patch, (h / patch, w / patch) float32."""
    height, width = clear.shape
    return clear.reshape(height // patch, patch, width // patch, patch).mean((1, 3), dtype=np.float32)


class BlendedRows:
    """Two block rows of units, to which windows add their vectors.

    Args:
        frame: of the scene.
        width: numbers of a token.
        unit: pixels along the side of what has a vector of its own: a patch, or a whole window where that is a cell.
    """

    def __init__(self, frame: Frame, width: int, unit: int) -> None:
        self.frame, self.unit = frame, unit
        self.side = frame.window // unit
        shape = (2 * self.side, frame.blocks_across * self.side)
        self._sum = np.zeros((*shape, width), np.float32)
        self._weight = np.zeros(shape, np.float32)
        self._tent = tent(self.side)

    def add(self, row: int, column: int, field: np.ndarray, clear: float) -> None:
        """Add a window.

        Args:
            row, column: of its first unit, counted from the upper block row; may lie outside.
            field: (side, side, width), a vector for every unit.
            clear: share of the window that is visible.
        """
        height, width = self._weight.shape
        rows = slice(max(0, row), min(height, row + self.side))
        columns = slice(max(0, column), min(width, column + self.side))
        inner = (slice(rows.start - row, rows.stop - row), slice(columns.start - column, columns.stop - column))
        weight = self._tent[inner] * np.float32(clear)
        self._sum[rows, columns] += field[inner] * weight[..., None]
        self._weight[rows, columns] += weight

    def finish(self, shares: np.ndarray, min_clear: float) -> np.ndarray:
        """Cells of the upper block row, which then makes room for the next.

        Args:
            shares: (patches down, patches across) clear share of its patches.
            min_clear: share of a cell that must be visible.

        Returns:
            (cells down, cells across, width) float32; NaN where too little is visible.
        """
        upper = slice(0, self.side)
        shares_of_units = _summed(shares, self.unit // self.frame.patch)
        weight = np.where(self._weight[upper] > 0, self._weight[upper], 1)[..., None]
        cells = _summed(self._sum[upper] / weight * shares_of_units[..., None], self.frame.cell // self.unit)
        n = self.frame.cell // self.frame.patch
        seen = _summed(shares, n)
        cells /= np.where(seen > 0, seen, 1)[..., None]
        cells[(seen < min_clear * n * n) | (seen == 0)] = np.nan
        self._sum = np.concatenate([self._sum[self.side :], np.zeros_like(self._sum[upper])])
        self._weight = np.concatenate([self._weight[self.side :], np.zeros_like(self._weight[upper])])
        return cells


def _summed(values: np.ndarray, n: int) -> np.ndarray:
    """(h, w, …) to the sums of its blocks of n x n, (h / n, w / n, …)."""
    down, across = values.shape[0] // n, values.shape[1] // n
    return values.reshape(down, n, across, n, *values.shape[2:]).sum((1, 3))
