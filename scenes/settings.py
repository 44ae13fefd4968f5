"""What a run on a scene is asked for, without what answers it: the command line is read before that is imported."""

from argparse import Namespace
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

DTYPES = ("float16", "int8")
"""How embeddings are stored."""


@dataclass(frozen=True, kw_only=True)
class CellSettings:
    """What decides the cells of a scene, and where results go."""

    checkpoint: Path
    out: Path
    stride: int = 40
    cell: int | None = None
    pool: str | None = None
    batch_size: int = 64
    min_clear: float = 0.5
    statistics: str | None = None
    metadata: str = "auto"
    device: str = "auto"
    amp: str = "false"
    compile: str = "auto"
    backend: str = "torch"

    @classmethod
    def of(cls, arguments: Namespace) -> Self:
        """The settings among the options of a command line."""
        return cls(**{field.name: getattr(arguments, field.name) for field in fields(cls)})


@dataclass(frozen=True, kw_only=True)
class SceneSettings(CellSettings):
    """The options of `embed_scene.py` that are not about finding the scene."""

    dtype: str = "float16"
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
