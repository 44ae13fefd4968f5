"""`embeddings.tif`: one band for every number of an embedding, in half precision or as int8 with a scale and offset.

Half precision is stored as float32 whose lower bits are 0 and compress away: GDAL (3.10) fills the margin of tiles of
16-bit floats with whatever is in memory, so that a file would never come out the same twice.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.windows import Window

from scenes.input.reader import CACHE_BYTES
from scenes.products.geotiffs import Layer, write_cog
from scenes.row_store import RowStore
from scenes.windows import Frame

FINGERPRINT_TAG = "MOEMAE_FINGERPRINT"
WITHOUT_NUMBER = "without_number"
"""Beside it: pixels of each file of the scene that hold NaN or infinity although nothing says so."""
INT8_NODATA, INT8_STEPS = -128, 254
TILE = 64
"""Cells along a tile's side: a tile holds all bands."""


def write_embeddings(
    path: Path, store: RowStore, frame: Frame, crs: CRS | None, dtype: str, tags: dict[str, str], scratch: Path
) -> Path:
    """Write the cells of a finished store.

    Args:
        path: the COG.
        store: block rows of cells of the whole frame.
        frame: which of them hold some of the scene.
        crs: of the scene.
        dtype: "float16", or "int8": number = round((value - offset) / scale), the range of each band in 255 steps.
        tags: provenance.
        scratch: see `write_cog`.
    """
    rows_wanted, columns = frame.output_rows, frame.output_columns
    width = store.shape[-1]
    encoding = _range_of(store) if dtype == "int8" else None

    def stripes() -> Iterator[np.ndarray]:
        for block, record in enumerate(store.records()):
            first = block * len(record)
            inside = slice(max(0, rows_wanted.start - first), max(0, rows_wanted.stop - first))
            cells = record[inside, columns].astype(np.float32).transpose(2, 0, 1)
            yield cells if encoding is None else _quantise(cells, *encoding)

    layer = Layer(
        *frame.output_shape,
        bands=tuple(f"embedding {i}" for i in range(width)),
        dtype="float32" if dtype == "float16" else "int8",
        nodata=np.nan if dtype == "float16" else INT8_NODATA,
        crs=crs,
        transform=frame.output_transform,
        tags=tags,
        tile=TILE,
        scales=None if encoding is None else encoding[0].tolist(),
        offsets=None if encoding is None else encoding[1].tolist(),
    )
    return write_cog(path, layer, stripes(), scratch)


def _range_of(store: RowStore) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset of every band, so that its range takes the numbers from -127 to 127."""
    width = store.shape[-1]
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    for record in store.records():
        cells = record.reshape(-1, width).astype(np.float32)
        cells = cells[np.isfinite(cells[:, 0])]
        if len(cells):
            low, high = np.minimum(low, cells.min(0)), np.maximum(high, cells.max(0))
    low, high = (np.where(np.isfinite(part), part, 0.0) for part in (low, high))
    return np.maximum(high - low, 1e-6) / INT8_STEPS, (low + high) / 2


def _quantise(cells: np.ndarray, scales: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    numbers = np.rint((cells - offsets[:, None, None]) / scales[:, None, None])
    return np.where(np.isfinite(numbers), numbers.clip(-127, 127), INT8_NODATA).astype(np.int8)


class Cells(NamedTuple):
    """Some rows of an embedding map."""

    top: int
    values: np.ndarray  # (rows, width, D) float32; NaN where there is none

    @property
    def valid(self) -> np.ndarray:
        """(rows, width) bool"""
        return np.isfinite(self.values[..., 0])


class EmbeddingMap:
    """An `embeddings.tif`, read in stripes: all that is derived from embeddings is derived from the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with rasterio.open(path) as file:
            self.height, self.width, self.count = file.height, file.width, file.count
            self.crs, self.transform, self.tags = file.crs, file.transform, file.tags()
            self.scales, self.offsets = np.float32(file.scales), np.float32(file.offsets)
            self.dtype = file.dtypes[0]

    def stripes(self) -> Iterator[Cells]:
        """From top to bottom, a tile's height at a time."""
        with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES), rasterio.open(self.path) as file:
            for top in range(0, self.height, TILE):
                window = Window.from_slices((top, min(top + TILE, self.height)), (0, self.width))
                yield Cells(top, self._values(file.read(window=window)))

    def rows(self, start: int, stop: int) -> np.ndarray:
        """(rows, width, D) float32 of some rows; NaN where there is no cell."""
        with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES), rasterio.open(self.path) as file:
            return self._values(file.read(window=Window.from_slices((start, stop), (0, self.width))))

    def cell(self, row: int, column: int) -> np.ndarray:
        """(D,) of one cell."""
        with rasterio.open(self.path) as file:
            return self._values(file.read(window=Window.from_slices((row, row + 1), (column, column + 1))))[0, 0]

    def _values(self, numbers: np.ndarray) -> np.ndarray:
        values = numbers.transpose(1, 2, 0).astype(np.float32)
        if self.dtype == "int8":
            missing = (numbers == INT8_NODATA).all(axis=0)
            values = values * self.scales + self.offsets
            values[missing] = np.nan
        return np.ascontiguousarray(values)

    def layer(
        self, bands: tuple[str, ...], dtype: str, nodata: float, tags: Mapping[str, str] | None = None, **other: Any
    ) -> Layer:
        """A layer on the same grid, with the same provenance and more tags; `other` are fields of `Layer`."""
        tags = {**self.tags, **(tags or {})}
        tags.pop("AREA_OR_POINT", None)
        return Layer(self.height, self.width, bands, dtype, nodata, self.crs, self.transform, tags, **other)


def stored_fingerprint(path: Path) -> str | None:
    """The fingerprint of an embedding file that is there already."""
    try:
        with rasterio.open(path) as file:
            return file.tags().get(FINGERPRINT_TAG)
    except (RasterioError, OSError):
        return None


class MapStatistics(NamedTuple):
    """Mean and covariance of all cells of a map."""

    count: int
    mean: np.ndarray  # (D,)
    covariance: np.ndarray  # (D, D)

    @property
    def std(self) -> np.ndarray:
        """(D,), 1 where a number never changes."""
        variance = self.covariance.diagonal()
        return np.sqrt(np.where(variance > 0, variance, 1))

    def components(self, count: int) -> np.ndarray:
        """(count, D) directions of largest variance, longest first; their signs are fixed."""
        _, vectors = np.linalg.eigh(self.covariance)
        axes = vectors.T[::-1][:count]
        strongest = np.abs(axes).argmax(axis=1)
        return axes * np.sign(axes[np.arange(len(axes)), strongest])[:, None]


def map_statistics(embeddings: EmbeddingMap) -> MapStatistics:
    """One pass over a map, in float64."""
    count, total = 0, np.zeros(embeddings.count)
    products = np.zeros((embeddings.count, embeddings.count))
    for cells in embeddings.stripes():
        values = cells.values[cells.valid].astype(np.float64)
        count, total = count + len(values), total + values.sum(0)
        products += values.T @ values
    mean = total / max(count, 1)
    return MapStatistics(count, mean, products / max(count, 1) - np.outer(mean, mean))


def joined_statistics(parts: Sequence[MapStatistics]) -> MapStatistics:
    """Those of all cells of several maps of one width, one map at least."""
    count = sum(part.count for part in parts)
    shares = [part.count / max(count, 1) for part in parts]
    mean = sum(share * part.mean for share, part in zip(shares, parts, strict=True))
    second = sum(
        share * (part.covariance + np.outer(part.mean, part.mean)) for share, part in zip(shares, parts, strict=True)
    )
    return MapStatistics(count, np.asarray(mean), np.asarray(second) - np.outer(mean, mean))


def without_number_in(embeddings: EmbeddingMap) -> dict[str, int]:
    """Name of each file of the scene that has pixels without a number to how many; see `WITHOUT_NUMBER`."""
    return json.loads(embeddings.tags.get(tag_name(WITHOUT_NUMBER), "{}"))


def tag_name(key: str) -> str:
    """What a value of the record is called among a GeoTIFF's tags."""
    return f"MOEMAE_{key.upper()}"


def provenance_tags(values: dict[str, Any]) -> dict[str, str]:
    """Plain values as GeoTIFF tags."""
    return {tag_name(name): v if isinstance(v, str) else json.dumps(v) for name, v in values.items()}
