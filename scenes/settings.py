"""What a run on a scene is asked for, without what answers it: the command line is read before that is imported."""

from pathlib import Path
from typing import NamedTuple

DTYPES = ("float16", "int8")
"""How embeddings are stored."""


class SceneSettings(NamedTuple):
    """The options of `embed_scene.py` that are not about finding the scene."""

    checkpoint: Path
    out: Path
    stride: int = 40
    cell: int | None = None
    pool: str | None = None
    dtype: str = "float16"
    batch_size: int = 64
    min_clear: float = 0.5
    probe: Path | None = None
    trust_pickle: bool = False
    truth: Path | None = None
    labels: Path | None = None
    column: str | None = None
    similar_to: tuple[float, float] | None = None
    reconstruct: bool = False
    geoparquet: bool = False
    zarr: bool = False
    stac: bool = False
    statistics: str | None = None
    metadata: str = "auto"
    device: str = "auto"
    amp: str = "false"
    compile: str = "auto"
    backend: str = "torch"
