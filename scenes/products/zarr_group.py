"""The cells of a map as a Zarr group that xarray opens: `embedding` by y, x and feature, with CF's grid mapping.

A series has a first axis more, CF's time.
"""

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from scenes.input.grids import GRID_MAPPING, cell_centres, grid_mapping
from scenes.products.embedding_file import TILE, EmbeddingMap
from utils.errors import ConfigError, UserError, describe_os_error

ZARR_GROUP = "embeddings.zarr"
CF_TIME = {"units": "seconds since 1970-01-01T00:00:00", "calendar": "standard"}
"""How the conventions of CF write times."""


def require_zarr(option: str = "--zarr") -> None:
    """Raise ConfigError where the optional package is missing."""
    if importlib.util.find_spec("zarr") is None:
        raise ConfigError(f"{option}: needs the package zarr (pip install 'zarr>=3'), or leave the option out")


def write_zarr(path: Path, embeddings: EmbeddingMap) -> Path:
    """Write a map's cells, a stripe at a time; NaN where there is none.

    Args:
        path: the group's folder, which is not there yet.
        embeddings: the map.

    Raises:
        UserError: when it cannot be written.
    """
    with new_group(path, embeddings, embeddings.tags) as (_, cells):
        for stripe in embeddings.stripes():
            cells[stripe.top : stripe.top + len(stripe.values)] = stripe.values
    return path


def write_zarr_series(
    path: Path, maps: Sequence[EmbeddingMap], moments: Sequence[datetime], about: Mapping[str, Any]
) -> Path:
    """Write several dates on one lattice, date by date and stripe by stripe, as `embedding` by time, y, x and feature.

    Args:
        path: the group's folder, which is not there yet.
        maps: the dates, all with the same cells.
        moments: when each was taken, UTC.
        about: attributes of the group.

    Raises:
        UserError: when it cannot be written.
    """
    with new_group(path, maps[0], about, len(maps)) as (group, cells):
        for number, one in enumerate(maps):
            for stripe in one.stripes():
                cells[number, stripe.top : stripe.top + len(stripe.values)] = stripe.values
        seconds = np.array([round(moment.timestamp()) for moment in moments], np.int64)
        _add_axis(group, "time", seconds, {"standard_name": "time", **CF_TIME})
    return path


@contextmanager
def new_group(
    path: Path, like: EmbeddingMap, about: Mapping[str, Any], dates: int | None = None
) -> Iterator[tuple[Any, Any]]:
    """Yield a group with the coordinates of a map's cells, and its array of them, which is to be filled.

    Args:
        path: the group's folder, which is not there yet.
        like: a map with those cells.
        about: attributes of the group.
        dates: how many there are along a first axis, time; None: no such axis.

    Raises:
        UserError: when it cannot be written.
    """
    # Optional: `require_zarr` has been called, but a type checker may run where it is not installed.
    import zarr  # pyright: ignore[reportMissingImports]

    height, width, count = like.height, like.width, like.count
    first = () if dates is None else (dates,)
    try:
        group = zarr.open_group(path, mode="w-", zarr_format=3, attributes={"title": "embeddings", **about})
        cells = group.create_array(
            "embedding",
            shape=(*first, height, width, count),
            chunks=(*(1 for _ in first), min(TILE, height), min(TILE, width), count),
            dtype="float32",
            fill_value=np.nan,
            dimension_names=(*("time" for _ in first), "y", "x", "feature"),
            attributes={"grid_mapping": GRID_MAPPING, "coordinates": GRID_MAPPING},
        )
        yield group, cells
        for name, (values, attributes) in _coordinates(like).items():
            _add_axis(group, name, values, attributes)
        mapping = grid_mapping(like.crs, like.transform)
        group.create_array(GRID_MAPPING, shape=(), dtype="int64", attributes=mapping)
    except OSError as error:
        raise UserError(f"cannot write {describe_os_error(error, path)}") from error


def _add_axis(group: Any, name: str, values: np.ndarray, about: Mapping[str, Any]) -> None:
    axis = group.create_array(
        name, shape=values.shape, dtype=values.dtype, dimension_names=(name,), attributes=dict(about)
    )
    axis[:] = values


def _coordinates(embeddings: EmbeddingMap) -> dict[str, tuple[np.ndarray, dict[str, Any]]]:
    """Centres of the cells on the map projection."""
    metres = {"units": "m"} if embeddings.crs else {}
    y, x = cell_centres(embeddings.transform, embeddings.height, embeddings.width)
    return {
        name: (values, {"standard_name": f"projection_{name}_coordinate", **metres})
        for name, values in (("y", y), ("x", x))
    }
