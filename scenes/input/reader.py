"""Rectangles of a scene as Collection-2 digital numbers, 0 wherever the ground is not seen."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import PurePath
from types import TracebackType

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.windows import Window

from scenes.input.grids import RasterFile
from scenes.input.product import Scene
from scenes.input.virtual_files import GDAL_NETWORK, shown
from transformation.cross_sensor import ETM_TO_OLI, along
from transformation.landsat_numbers import (
    COLLECTION2,
    LARGEST,
    Scale,
    hidden_values,
    landsat_numbers,
    without_number,
)
from transformation.present_bands import PresentBands
from utils.errors import DataError
from utils.sensors import OLI, Sensor

CACHE_BYTES = 192 << 20
"""GDAL keeps so many decoded tiles: rows of windows cut the same tiles several times."""


def hidden_pixels(qa: np.ndarray, sensor: Sensor = OLI) -> np.ndarray:
    """Where fill, cloud or cloud shadow hide the ground: numbers of a sensor's quality band, of any shape, to bool.

    In a stack of floats that band is one of floats; no number there is fill.
    """
    bits = sum(1 << bit for bit in sensor.hiding_bits)
    if qa.dtype.kind == "f":
        known = np.isfinite(qa) & (qa >= 0) & (qa <= LARGEST)
        return ~known | ((np.where(known, qa, 0).astype(np.uint16) & bits) != 0)
    return (qa & bits) != 0


def padded(
    read: Callable[[slice, slice], np.ndarray],
    shape: tuple[int, ...],
    top: int,
    left: int,
    height: int,
    width: int,
) -> np.ndarray:
    """A rectangle that may reach over the border, where it is 0.

    Args:
        read: rows and columns inside to their numbers, (bands, h, w).
        shape: bands, rows and columns of the whole.
        top, left, height, width: of the rectangle.

    Returns:
        (bands, height, width) uint16.
    """
    bands, all_rows, all_columns = shape
    pixels = np.zeros((bands, height, width), np.uint16)
    rows = slice(max(top, 0), min(top + height, all_rows))
    columns = slice(max(left, 0), min(left + width, all_columns))
    if rows.start < rows.stop and columns.start < columns.stop:
        numbers = read(rows, columns)
        pixels[:, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = numbers
    return pixels


class WithoutNumber:
    """Pixels of each file that hold no number although nothing says so; rows that are read again count once.

    Args:
        bands: of the scene.
        shape: rows and columns of the scene.
        scale: of its numbers.
    """

    def __init__(self, bands: Sequence[RasterFile], shape: tuple[int, int], scale: Scale | None) -> None:
        self.bands, self.width, self.scale = bands, shape[1], scale
        self.earlier: dict[str, int] = {}
        """Of rows that an interrupted run has read and this one does not."""
        self._rows = {band.path: np.zeros(shape[0], np.int64) for band in bands}

    def look(self, values: np.ndarray, window: Window) -> None:
        """Count in (bands, h, w) values of whole rows; parts of rows are looked at elsewhere as well."""
        if values.dtype.kind != "f" or window.width != self.width:
            return
        lost = without_number(values, [band.nodata for band in self.bands], self.scale)
        rows = slice(round(window.row_off), round(window.row_off) + values.shape[1])
        for path, counts in self._rows.items():
            of_file = [at for at, band in enumerate(self.bands) if band.path == path]
            counts[rows] = lost[of_file].any(axis=0).sum(axis=1)

    def counts(self, above: int | None = None) -> dict[str, int]:
        """Name of each file that has any to their number, in all rows, or in those above one of the scene."""
        part = slice(None if above is None else max(0, above))
        found = {PurePath(shown(path)).name: int(rows[part].sum()) for path, rows in self._rows.items()}
        total = {name: count + self.earlier.get(name, 0) for name, count in found.items()}
        return {name: count for name, count in total.items() if count}


class SceneReader:
    """The files of a scene, held open: a context manager.

    What any band hides (masks, nodata, fill, no number), and fill, cloud (dilated, cirrus) and shadow of QA_PIXEL,
    become 0 in all bands: what the model takes for fill. Values of another scale are turned into Collection-2 numbers,
    and those of ETM+ and TM into what OLI would have seen where that is asked for.

    Attributes:
        where: the scene's path, for messages.
        given: which of the model's bands it has.
        without_number: pixels that hold no number among the rows read so far.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene, self.where = scene, shown(scene.path)
        self.without_number = WithoutNumber(scene.bands, (scene.grid.height, scene.grid.width), scene.scale)
        self.given = PresentBands.of(scene.sensor)
        self._lines = ETM_TO_OLI[scene.adjusted].only(scene.sensor.common) if scene.adjusted else None
        self._stack = ExitStack()

    def __enter__(self) -> "SceneReader":
        self._stack.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES, **GDAL_NETWORK))
        self._files = {}
        for file in (*self.scene.bands, self.scene.qa):
            if file is not None and file.path not in self._files:
                self._files[file.path] = self._stack.enter_context(rasterio.open(file.path))
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """(bands, height, width) uint16 from row `top` and column `left` of the scene; 0 outside it."""
        grid = self.scene.grid

        def inside(rows: slice, columns: slice) -> np.ndarray:
            return self._read_inside(Window.from_slices(rows, columns))

        return padded(inside, (len(self.scene.bands), grid.height, grid.width), top, left, height, width)

    def read_values(self, window: Window) -> np.ndarray:
        """(bands, h, w) as they stand in the files, in their common type."""
        bands = self.scene.bands
        if len({band.path for band in bands}) == 1:
            return self._band(bands[0], window, [band.band for band in bands])
        return np.stack([self._band(band, window, band.band) for band in bands])

    def hidden(self, values: np.ndarray, window: Window) -> np.ndarray:
        """(h, w) bool: hidden in any band, or by QA_PIXEL."""
        scale = self.scene.scale
        if scale is None and values.dtype == np.uint16:
            scale = COLLECTION2
        return self._hidden(values, window, scale)

    def declared_hidden(self, values: np.ndarray, window: Window) -> np.ndarray:
        """(h, w) bool: the same without what only follows from the scale of the numbers."""
        return self._hidden(values, window, None)

    def _hidden(self, values: np.ndarray, window: Window, scale: Scale | None) -> np.ndarray:
        bands = self.scene.bands
        masks = [self._mask(band, window) for band in bands if band.masked]
        hidden = hidden_values(
            values, scale, nodata=[band.nodata for band in bands], masks=np.stack(masks) if masks else None
        )
        if self.scene.qa is not None:
            hidden |= hidden_pixels(self._band(self.scene.qa, window, self.scene.qa.band), self.scene.sensor)
        return hidden

    def _read_inside(self, window: Window) -> np.ndarray:
        values = self.read_values(window)
        self.without_number.look(values, window)
        hidden = self.hidden(values, window)
        if self.scene.scale is not None:
            values = landsat_numbers(values, hidden, self.scene.scale)
        else:
            values[:, hidden] = 0
        return values if self._lines is None else along(values, self._lines)

    def _mask(self, file: RasterFile, window: Window) -> np.ndarray:
        """(h, w) bool: what a file's own mask hides of a band."""
        try:
            return self._files[file.path].read_masks(file.band, window=window) == 0
        except (RasterioError, OSError) as error:
            raise DataError(f"{shown(file.path)}: cannot be read (damaged or truncated); fetch it again") from error

    def _band(self, file: RasterFile, window: Window, bands: int | list[int]) -> np.ndarray:
        try:
            return self._files[file.path].read(bands, window=window)
        except (RasterioError, OSError) as error:
            raise DataError(f"{shown(file.path)}: cannot be read (damaged or truncated); fetch it again") from error
