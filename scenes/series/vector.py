"""One vector a cell for the whole series, by the temporal module (`models.temporal`)."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.pretrained import made_from
from models.temporal import decimal_year
from models.temporal_weights import SHIPPED, read_temporal
from scenes.products.embedding_file import TILE, EmbeddingMap
from scenes.products.geotiffs import write_cog
from scenes.series.dates import Date
from scenes.series.settings import SHIPPED_VECTOR
from utils.errors import ConfigError
from utils.files import sha256

VECTOR_MAP = "vector.tif"
ROWS, CELLS = 16, 4096
"""Rows of all dates in memory at once, and cells that the module computes at once."""


class SeriesVectors:
    """A temporal module, checked against the weights that the cells are of.

    Args:
        path: its weights; `SHIPPED_VECTOR` for those that come with the project.
        checkpoint: the encoder's weights.

    Raises:
        UserError: when they are missing or damaged, or read embeddings of another encoder.
    """

    def __init__(self, path: str, checkpoint: Path) -> None:
        self.path = SHIPPED if path == SHIPPED_VECTOR else Path(path).expanduser()
        self.module = read_temporal(self.path)
        encoder = self.module.config.encoder
        if encoder and encoder not in made_from(checkpoint):
            raise ConfigError(
                f"--vector: {self.path} reads embeddings of another checkpoint than {checkpoint}; give the one that it "
                "was pretrained on"
            )

    def pool_for(self, asked: str | None) -> str:
        """The pooling that the module reads. Raises ConfigError where another is asked for."""
        pool = self.module.config.pool
        if asked not in (None, pool):
            raise ConfigError(f"--pool {asked}: --vector reads embeddings of pool {pool}; leave --pool out")
        return pool

    def record(self) -> dict[str, Any]:
        """For `series.json`."""
        return {"weights": self.path.name, "sha256": sha256(self.path), "width": self.module.vector_width}

    def write(
        self, path: Path, maps: Sequence[EmbeddingMap], dates: Sequence[Date], tags: dict[str, str], scratch: Path
    ) -> Path:
        """Write the vectors as a COG like that of a date, half precision; NaN where a cell is hidden on all dates.

        Args:
            path: the GeoTIFF.
            maps: the dates, on one lattice.
            dates: when they were.
            tags: how they were made.
            scratch: see `write_cog`.
        """
        times = torch.tensor([decimal_year(date.moment.date()) for date in dates], dtype=torch.float64)
        bands = tuple(f"vector {number}" for number in range(self.module.vector_width))
        layer = maps[0].layer(bands, "float32", np.nan, tile=TILE)._replace(tags=tags)
        return write_cog(path, layer, self._stripes(maps, times), scratch)

    def _stripes(self, maps: Sequence[EmbeddingMap], times: Tensor) -> Iterator[np.ndarray]:
        """(numbers, rows, width) float32 that half precision holds."""
        for top in range(0, maps[0].height, ROWS):
            stop = min(top + ROWS, maps[0].height)
            cells = np.stack([one.rows(top, stop) for one in maps], axis=2)  # (rows, width, T, D)
            with torch.inference_mode():
                made = [self.module(part, times) for part in torch.from_numpy(cells).flatten(0, 1).split(CELLS)]
            vectors = torch.cat(made).half().float().unflatten(0, cells.shape[:2])
            yield vectors.permute(2, 0, 1).contiguous().numpy()
