"""How alike every cell of a map is to the one at a place."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio
import rasterio.warp
from rasterio.crs import CRS

from scenes.products.embedding_file import EmbeddingMap, MapStatistics
from scenes.products.geotiffs import write_cog
from utils.errors import ConfigError


def write_similarity(
    path: Path, embeddings: EmbeddingMap, statistics: MapStatistics, lon: float, lat: float, scratch: Path
) -> Path:
    """Write the cosine between each cell and the cell at a place, both standardised by the scene's mean and spread.

    Tokens share a large common part, so the plain cosine is near 1 everywhere.

    Raises:
        ConfigError: when the place is outside the scene, hidden, or the scene has no place.
    """
    shape = (embeddings.height, embeddings.width)
    row, column = cell_at(embeddings.crs, embeddings.transform, shape, lon, lat)
    reference = (embeddings.cell(row, column) - statistics.mean) / statistics.std
    if not np.isfinite(reference).all():
        raise ConfigError(f"--similar-to {lon:g},{lat:g}: fill, cloud or shadow there; choose another place")
    reference /= max(np.linalg.norm(reference), 1e-12)

    def stripes() -> Iterator[np.ndarray]:
        for cells in embeddings.stripes():
            standardised = (cells.values - statistics.mean) / statistics.std
            length = np.linalg.norm(standardised, axis=-1)
            yield (standardised @ reference / np.maximum(length, 1e-12))[None].astype(np.float32)

    tags = {"MOEMAE_SIMILAR_TO": f"{lon:g},{lat:g} (row {row}, column {column})",
            "MOEMAE_MEASURE": "cosine of embeddings standardised over the scene"}  # fmt: skip
    return write_cog(path, embeddings.layer(("cosine similarity",), "float32", np.nan, tags=tags), stripes(), scratch)


def cell_at(
    crs: CRS | None, transform: rasterio.Affine, shape: tuple[int, int], lon: float, lat: float
) -> tuple[int, int]:
    """Row and column of the cell at a place, in a map of the given grid.

    Raises:
        ConfigError: when there is none.
    """
    if crs is None:
        raise ConfigError("--similar-to: the scene has no coordinate reference system, so no place can be found in it")
    outside = ConfigError(f"--similar-to {lon:g},{lat:g}: outside the scene; give longitude, then latitude, in degrees")
    if not (abs(lon) <= 360 and abs(lat) <= 90):  # NaN is neither
        raise outside
    try:
        (x,), (y,) = rasterio.warp.transform(CRS.from_epsg(4326), crs, [lon], [lat])[:2]
    except Exception as error:  # GDAL's errors have no public class: no such place in this projection
        raise outside from error
    column, row = (x - transform.c) / transform.a, (y - transform.f) / transform.e
    if not (0 <= row < shape[0] and 0 <= column < shape[1]):
        raise outside
    return int(row), int(column)
