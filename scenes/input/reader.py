"""Rectangles of a scene as Collection-2 digital numbers, 0 wherever the ground is not seen."""

from contextlib import ExitStack
from types import TracebackType

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.windows import Window

from scenes.input.grids import RasterFile
from scenes.input.product import Scene
from scenes.input.virtual_files import GDAL_NETWORK, shown
from utils.data_config import REFLECTANCE_OFFSET, REFLECTANCE_SCALE
from utils.errors import DataError
from utils.sensors import OLI, Sensor

CACHE_BYTES = 192 << 20
"""GDAL keeps so many decoded tiles: rows of windows cut the same tiles several times."""
LARGEST_NUMBER = 65535


def hidden_pixels(qa: np.ndarray, sensor: Sensor = OLI) -> np.ndarray:
    """Where fill, cloud or cloud shadow hide the ground: numbers of a sensor's quality band, of any shape, to bool.

    In a stack of floats that band is one of floats; no number there is fill.
    """
    bits = sum(1 << bit for bit in sensor.hiding_bits)
    if qa.dtype.kind == "f":
        known = np.isfinite(qa) & (qa >= 0) & (qa <= LARGEST_NUMBER)
        return ~known | ((np.where(known, qa, 0).astype(np.uint16) & bits) != 0)
    return (qa & bits) != 0


class SceneReader:
    """The files of a scene, held open: a context manager.

    Fill in any band, and fill, cloud (dilated, cirrus) and shadow of QA_PIXEL, become 0 in all bands: what the model
    takes for fill. Values of another scale are turned into Collection-2 numbers first.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
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
        """(7, height, width) uint16 from row `top` and column `left` of the scene; 0 outside it."""
        pixels = np.zeros((len(self.scene.bands), height, width), np.uint16)
        rows = slice(max(top, 0), min(top + height, self.scene.grid.height))
        columns = slice(max(left, 0), min(left + width, self.scene.grid.width))
        if rows.start < rows.stop and columns.start < columns.stop:
            inside = self._read_inside(Window.from_slices(rows, columns))
            pixels[:, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = inside
        return pixels

    def read_values(self, window: Window) -> np.ndarray:
        """(7, h, w) as they stand in the files, in their common type."""
        bands = self.scene.bands
        if len({band.path for band in bands}) == 1:
            return self._band(bands[0], window, [band.band for band in bands])
        return np.stack([self._band(band, window, band.band) for band in bands])

    def hidden(self, values: np.ndarray, window: Window) -> np.ndarray:
        """(h, w) bool: fill in any band, no number, or hidden by QA_PIXEL."""
        hidden = np.zeros(values.shape[1:], bool)
        for band, numbers in zip(self.scene.bands, values, strict=True):
            if band.dtype == "uint16" and self.scene.scale is None:
                hidden |= numbers == 0
            if band.nodata is not None:
                hidden |= numbers == band.nodata
            if numbers.dtype.kind == "f":
                hidden |= ~np.isfinite(numbers)
        if self.scene.scale is not None:  # no ground is equally dark in all bands: 0 or -9999 that no tag declares
            hidden |= (values[0] <= 0) & (values == values[0]).all(axis=0)
        if self.scene.qa is not None:
            hidden |= hidden_pixels(self._band(self.scene.qa, window, self.scene.qa.band), self.scene.sensor)
        return hidden

    def _read_inside(self, window: Window) -> np.ndarray:
        values = self.read_values(window)
        hidden = self.hidden(values, window)
        if self.scene.scale is not None:
            factor, offset = self.scene.scale
            with np.errstate(invalid="ignore"):
                reflectance = values.astype(np.float64) * factor + offset
                numbers = np.rint((reflectance - REFLECTANCE_OFFSET) / REFLECTANCE_SCALE)
            values = np.where(hidden, 0, numbers).clip(1, LARGEST_NUMBER).astype(np.uint16)
        values[:, hidden] = 0
        return values

    def _band(self, file: RasterFile, window: Window, bands: int | list[int]) -> np.ndarray:
        try:
            return self._files[file.path].read(bands, window=window)
        except (RasterioError, OSError) as error:
            raise DataError(f"{shown(file.path)}: cannot be read (damaged or truncated); fetch it again") from error
