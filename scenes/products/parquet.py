"""The cells of a map as a GeoParquet table: one row per visible cell with geometry, date, source and embedding."""

import importlib.util
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from scenes.input.product import Scene
from scenes.products.embedding_file import Cells, EmbeddingMap
from utils.errors import ConfigError
from utils.files import atomic_path

GEOPARQUET_VERSION = "1.1.0"
_WKB_POLYGON = 3


def require_pyarrow() -> None:
    """Raise ConfigError where the optional package is missing."""
    if importlib.util.find_spec("pyarrow") is None:
        raise ConfigError("--geoparquet: needs the package pyarrow (pip install pyarrow), or leave the option out")


def write_cells(path: Path, embeddings: EmbeddingMap, scene: Scene) -> Path:
    """Write a map's visible cells, a stripe at a time.

    Args:
        path: the table.
        embeddings: the map.
        scene: for date and source.
    """
    # Optional: `require_pyarrow` has been called, but a type checker may run where it is not installed.
    import pyarrow as pa  # pyright: ignore[reportMissingImports]
    import pyarrow.parquet as pq  # pyright: ignore[reportMissingImports]

    crs = embeddings.crs.to_dict(projjson=True) if embeddings.crs else None
    column: dict[str, Any] = {"encoding": "WKB", "geometry_types": ["Polygon"], "crs": crs}
    about = {"version": GEOPARQUET_VERSION, "primary_column": "geometry", "columns": {"geometry": column}}
    schema = pa.schema(
        [
            ("geometry", pa.binary()),
            ("date", pa.date32()),
            ("source", pa.string()),
            ("embedding", pa.list_(pa.float32(), embeddings.count)),
        ],
        metadata={"geo": json.dumps(about), **embeddings.tags},
    )
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for cells in embeddings.stripes():
            rows, columns = np.nonzero(cells.valid)
            values = pa.array(cells.values[rows, columns].ravel(), pa.float32())
            table = {
                "geometry": [
                    _square(embeddings, cells, r, c) for r, c in zip(rows.tolist(), columns.tolist(), strict=True)
                ],
                "date": [scene.time.day] * len(rows),
                "source": [scene.name] * len(rows),
                "embedding": pa.FixedSizeListArray.from_arrays(values, embeddings.count),
            }
            writer.write_table(pa.table(table, schema=schema))
    return path


def _square(embeddings: EmbeddingMap, cells: Cells, row: int, column: int) -> bytes:
    """A cell's outline as well-known binary, counter-clockwise."""
    corners = [(0, 0), (0, 1), (1, 1), (1, 0), (0, 0)]
    grid = embeddings.transform
    points = [(grid.c + grid.a * (column + x), grid.f + grid.e * (cells.top + row + y)) for x, y in corners]
    return struct.pack("<BIII10d", 1, _WKB_POLYGON, 1, len(points), *(value for point in points for value in point))
