"""A scene in memory, or in pieces that are read when they are needed: an xarray DataArray or Dataset as a reader."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.errors import CRSError

from models.config import ModelConfig
from models.inference.digital_numbers import LandsatPatches
from models.inference.patch_input import BAND_DIMENSIONS, PatchInput, north_up, place_dimensions, read_input
from scenes.input.grids import SceneGrid, checked_grid
from scenes.input.reader import WithoutNumber, hidden_pixels, padded
from scenes.input.stacks import QA_PIXEL
from transformation.present_bands import PresentBands
from utils.errors import DataError

LOOKED_AT = 4
"""Squares along each axis by whose numbers a scene is judged before anything is computed."""
SQUARE = 64
"""Pixels along their sides."""
UNEVEN = 1e-3
"""Share of a pixel by which coordinates may lie off an even spacing."""
CRS_ATTRIBUTES = ("crs_wkt", "spatial_ref", "proj4text", "crs")
CRS_COORDINATES = ("epsg", "proj:epsg", "proj:code")


class _Placed(NamedTuple):
    """A grid of coordinates, as `scenes.input.grids.Gridded`."""

    crs: CRS | None
    transform: rasterio.Affine
    height: int
    width: int


class ArrayReader:
    """Digital numbers of an xarray object, read piece by piece.

    Args:
        array: a DataArray (band, y, x), or a Dataset with a variable a band; in memory or of dask. A band or variable
            named QA_PIXEL hides fill, cloud and shadow.
        config: of the model.
        bands, scale, nodata, sensor: as `MOEMAE.embed` takes them.

    Attributes:
        grid: where its pixels lie, north up.
        said: one square of it: what its attributes say.
        given: which of the model's bands it has.

    Raises:
        DataError: for what the model does not know: bands, numbers, grid, more than one time.
    """

    where = "pixels"

    def __init__(
        self,
        array: Any,
        config: ModelConfig,
        bands: Sequence[str] | None = None,
        scale: tuple[float, float] | None = None,
        nodata: float | None = None,
        sensor: str | None = None,
    ) -> None:
        array, self.place = _one_date(array)
        self.array = north_up(array, self.place)
        self.grid = grid_of(self.array, self.place)
        self.without_number = WithoutNumber((), (self.grid.height, self.grid.width), None)
        squares = [read_input(self._part(*square)) for square in self._squares()]
        self.said = squares[0]
        everywhere = self.said._replace(patches=[square.patches[0] for square in squares])
        self._patches = LandsatPatches.of(everywhere, config, bands, None, scale, nodata, sensor)
        self.given = PresentBands(tuple(self._patches.bands.present))

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """(bands given, height, width) uint16 from row `top`, column `left`; 0 outside, and where nothing is seen."""
        shape = (len(self.given.places), self.grid.height, self.grid.width)
        return padded(self._numbers, shape, top, left, height, width)

    def _numbers(self, rows: slice, columns: slice) -> np.ndarray:
        given = read_input(self._part(rows, columns))
        numbers = self._patches.alike(given).numbers(given.patches[0])[list(self.given.places)]
        numbers[:, _hidden_by_quality(given)] = 0
        return numbers

    def notice(self, config: ModelConfig) -> str | None:
        """What to say of weights that have not learned what to do without the missing bands."""
        return self._patches.bands.notice(config)

    def loaded(self, top: int, height: int) -> "LoadedRows":
        """Whole rows, read at once: what dask would compute anew for every rectangle."""
        return LoadedRows(self.read(top, 0, height, self.grid.width), top, self.without_number, self.given)

    def _part(self, rows: slice, columns: slice) -> Any:
        return self.array.isel(dict(zip(self.place, (rows, columns), strict=True)))

    def _squares(self) -> list[tuple[slice, slice]]:
        """Pieces that are evenly spread."""
        starts = [np.unique(np.linspace(0, max(0, size - SQUARE), LOOKED_AT).astype(int))
                  for size in (self.grid.height, self.grid.width)]  # fmt: skip
        return [(slice(y, y + SQUARE), slice(x, x + SQUARE)) for y in starts[0] for x in starts[1]]


class LoadedRows(NamedTuple):
    """Some rows of a scene in memory, as a reader; 0 elsewhere."""

    numbers: np.ndarray  # (bands given, rows, columns of the scene) uint16
    top: int
    without_number: WithoutNumber
    given: PresentBands
    where: str = ArrayReader.where

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """As `ArrayReader.read`."""
        return padded(
            lambda rows, columns: self.numbers[:, rows, columns],
            self.numbers.shape,
            top - self.top,
            left,
            height,
            width,
        )


def _one_date(array: Any) -> tuple[Any, tuple[Any, ...]]:
    """The array without dimensions of length 1, and those of its rows and columns."""
    dims = [name for name in array.dims if name not in BAND_DIMENSIONS]
    place = place_dimensions(dims)
    if len(place) != 2:
        raise DataError(f"pixels: dimensions {tuple(array.dims)}; needed are those of bands, rows and columns")
    for name in dims:
        if name not in place:
            if array.sizes[name] != 1:
                raise DataError(
                    f"pixels: {array.sizes[name]} along {name!r}, a map is of one; use embed_series, or choose one: "
                    f".isel({name}=0)"
                )
            array = array.squeeze(name)
    if not all(array.sizes[name] for name in place):
        raise DataError("pixels: no rows or no columns; give a scene")
    return array, place


def _hidden_by_quality(given: PatchInput) -> np.ndarray:
    """(h, w) bool: what a band called QA_PIXEL hides; nothing without one."""
    patch = given.patches[0]
    for number, name in enumerate(given.bands or ()):
        if name.upper() == QA_PIXEL:
            quality = np.ma.getdata(patch[number])
            return hidden_pixels(quality if quality.dtype.kind == "f" else quality.astype(np.int64))
    return np.zeros(patch.shape[1:], bool)


def grid_of(array: Any, place: tuple[Any, ...]) -> SceneGrid:
    """The grid that the coordinates of rows and columns state, rows from north to south.

    Raises:
        DataError: for an uneven one, or one that is not of 30 m.
    """
    height, width = (array.sizes[name] for name in place)
    down_the_rows, along_a_row = (_line(array, name) for name in place)
    crs = crs_of(array)
    if down_the_rows is None or along_a_row is None:
        return SceneGrid(None, rasterio.Affine.identity(), height, width)
    (y, down), (x, across) = down_the_rows, along_a_row
    if crs is None and (abs(across), abs(down)) == (1.0, 1.0):  # rows and columns are only counted
        return SceneGrid(None, rasterio.Affine.identity(), height, width)
    transform = rasterio.Affine(across, 0.0, x - across / 2, 0.0, down, y - down / 2)
    fix = "reproject it first, for instance by rioxarray: .rio.reproject(crs, resolution=30), with crs of its UTM zone"
    return checked_grid(_Placed(crs, transform, height, width), "pixels", fix)


def _line(array: Any, name: Any) -> tuple[float, float] | None:
    """First coordinate along a dimension, and the step; None where nothing tells them."""
    if name not in array.coords or array[name].ndim != 1 or array.sizes[name] < 2:
        return None
    values = array[name].values.astype(np.float64)
    step = (values[-1] - values[0]) / (len(values) - 1)
    if not np.allclose(np.diff(values), step, rtol=0, atol=UNEVEN * abs(step)):
        raise DataError(f"pixels: their coordinate {name!r} is not evenly spaced; resample them to one grid of 30 m")
    return float(values[0]), float(step)


def crs_of(array: Any) -> CRS | None:
    """The coordinate reference system that an array states, as rioxarray, odc-stac and stackstac write it."""
    stated = [array.encoding.get("grid_mapping"), array.attrs.get("grid_mapping"), "spatial_ref", "crs"]
    said = [array[name].attrs.get(key) for name in stated if name in array.coords for key in CRS_ATTRIBUTES]
    said += [array.attrs.get(key) for key in ("crs", "crs_wkt")]
    said += [array[name].values for name in CRS_COORDINATES if name in array.coords and array[name].ndim == 0]
    for text in said:
        if text is None or (isinstance(text, float) and math.isnan(text)):
            continue
        text = str(text)
        try:
            return CRS.from_user_input(f"EPSG:{text}" if text.isdigit() else text)
        except CRSError:
            raise DataError(f"pixels: state the CRS {text[:60]!r}, which is none; correct it") from None
    return None
