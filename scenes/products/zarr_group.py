"""The cells of a map as a Zarr group that xarray opens: `embedding` by y, x and feature, with CF's grid mapping."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from scenes.input.grids import GRID_MAPPING, cell_centres, grid_mapping
from scenes.products.embedding_file import TILE, EmbeddingMap
from utils.errors import ConfigError, UserError, describe_os_error

ZARR_GROUP = "embeddings.zarr"


def require_zarr() -> None:
    """Raise ConfigError where the optional package is missing."""
    if importlib.util.find_spec("zarr") is None:
        raise ConfigError("--zarr: needs the package zarr (pip install 'zarr>=3'), or leave the option out")


def write_zarr(path: Path, embeddings: EmbeddingMap) -> Path:
    """Write a map's cells, a stripe at a time; NaN where there is none.

    Args:
        path: the group's folder, which is not there yet.
        embeddings: the map.

    Raises:
        UserError: when it cannot be written.
    """
    # Optional: `require_zarr` has been called, but a type checker may run where it is not installed.
    import zarr  # pyright: ignore[reportMissingImports]

    height, width, count = embeddings.height, embeddings.width, embeddings.count
    try:
        group = zarr.open_group(path, mode="w-", zarr_format=3, attributes={"title": "embeddings", **embeddings.tags})
        cells = group.create_array(
            "embedding",
            shape=(height, width, count),
            chunks=(min(TILE, height), min(TILE, width), count),
            dtype="float32",
            fill_value=np.nan,
            dimension_names=("y", "x", "feature"),
            attributes={"grid_mapping": GRID_MAPPING, "coordinates": GRID_MAPPING},
        )
        for stripe in embeddings.stripes():
            cells[stripe.top : stripe.top + len(stripe.values)] = stripe.values
        for name, (values, about) in _coordinates(embeddings).items():
            axis = group.create_array(
                name, shape=values.shape, dtype=values.dtype, dimension_names=(name,), attributes=about
            )
            axis[:] = values
        about = grid_mapping(embeddings.crs, embeddings.transform)
        group.create_array(GRID_MAPPING, shape=(), dtype="int64", attributes=about)
    except OSError as error:
        raise UserError(f"cannot write {describe_os_error(error, path)}") from error
    return path


def _coordinates(embeddings: EmbeddingMap) -> dict[str, tuple[np.ndarray, dict[str, Any]]]:
    """Centres of the cells on the map projection."""
    metres = {"units": "m"} if embeddings.crs else {}
    y, x = cell_centres(embeddings.transform, embeddings.height, embeddings.width)
    return {
        name: (values, {"standard_name": f"projection_{name}_coordinate", **metres})
        for name, values in (("y", y), ("x", x))
    }
