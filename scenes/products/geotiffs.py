"""Cloud-Optimised GeoTIFFs, written in stripes and renamed when whole."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
import rasterio.shutil
import torch
from rasterio.crs import CRS
from rasterio.windows import Window

from scenes.input.reader import CACHE_BYTES
from utils.errors import UserError, describe_os_error
from utils.files import make_folder, sync


class Layer(NamedTuple):
    """What a GeoTIFF is to be, but for its numbers."""

    height: int
    width: int
    bands: tuple[str, ...]
    """Names."""
    dtype: str
    nodata: float
    crs: CRS | None
    transform: rasterio.Affine
    tags: dict[str, str]
    tile: int = 256
    resampling: str = "average"
    """Of the overviews; "mode" for classes."""
    scales: Sequence[float] | None = None
    """value = number * scale + offset, a pair for every band."""
    offsets: Sequence[float] | None = None
    colours: dict[int, tuple[int, int, int, int]] | None = None


def write_cog(path: Path, layer: Layer, stripes: Iterable[np.ndarray], scratch: Path) -> Path:
    """Write a layer, on as many threads as PyTorch has: the same bytes for the same numbers, whatever their number.

    Args:
        path: the target, replaced when the new file is whole.
        layer: its form.
        stripes: (bands, rows, width) pieces from top to bottom.
        scratch: folder on the same disk for what is not finished.

    Raises:
        UserError: when it cannot be written.
    """
    make_folder(scratch)
    plain, whole = scratch / f"{path.stem}.tiles.tif", scratch / f"{path.stem}.cog.tif"
    profile = {"driver": "GTiff", "dtype": layer.dtype, "count": len(layer.bands), "height": layer.height,
               "width": layer.width, "crs": layer.crs, "transform": layer.transform, "nodata": layer.nodata,
               "tiled": True, "blockxsize": layer.tile, "blockysize": layer.tile, "interleave": "pixel",
               "bigtiff": "if_safer"}  # fmt: skip
    cog = {"driver": "COG", "compress": "DEFLATE", "predictor": "YES", "blocksize": layer.tile,
           "overview_resampling": layer.resampling, "bigtiff": "if_safer",
           "num_threads": torch.get_num_threads()}  # fmt: skip
    try:
        with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
            with rasterio.open(plain, "w", **profile) as file:
                _describe(file, layer)
                top = 0
                for stripe in _tile_rows(stripes, layer.tile):
                    file.write(stripe, window=Window.from_slices((top, top + stripe.shape[1]), (0, layer.width)))
                    top += stripe.shape[1]
            rasterio.shutil.copy(plain, whole, **cog)
        sync(whole)
        whole.replace(path)
        sync(path.parent)
    except OSError as error:  # rasterio's errors are among them
        raise UserError(f"cannot write {describe_os_error(error, path)}") from error
    finally:
        for leftover in (plain, whole):
            leftover.unlink(missing_ok=True)
    return path


def _describe(file: Any, layer: Layer) -> None:
    file.descriptions = layer.bands
    file.update_tags(**layer.tags)
    if layer.scales is not None:
        file.scales, file.offsets = layer.scales, layer.offsets
    if layer.colours is not None:
        file.write_colormap(1, layer.colours)


def _tile_rows(stripes: Iterable[np.ndarray], tile: int) -> Iterable[np.ndarray]:
    """The same rows in pieces of a tile's height, so that no tile is written twice."""
    held: list[np.ndarray] = []
    count = 0
    for stripe in stripes:
        held.append(stripe)
        count += stripe.shape[1]
        if count >= tile:
            rows = np.concatenate(held, axis=1)
            whole = count - count % tile
            for start in range(0, whole, tile):
                yield rows[:, start : start + tile]
            held, count = [rows[:, whole:]], count - whole
    if count:
        yield np.concatenate(held, axis=1)
