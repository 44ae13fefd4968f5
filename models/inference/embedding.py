"""Digital numbers (DN), time and place to embeddings in one call: what stands behind `MOEMAE.embed`.

The steps are those of `embed.compute_embed` (crop, z-scores, fill, metadata, tokens before the final norm), and so are
the numbers.
"""

import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from models.inference.digital_numbers import LandsatPatches
from models.inference.embedder import Embedder
from models.inference.patch_input import read_input
from models.inference.protocol import PatchEncoder
from models.inference.sentinel2 import Sentinel2Patches, of_sentinel2
from models.pooling import POOLINGS, vector_width
from transformation.transformer import ZScoreNormalize
from utils.data_config import DATASETS, BandStatistics, SimulatedMSIInfo
from utils.errors import ConfigError
from utils.metadata import encode_metadata
from utils.sensors import MSI, Sensor
from utils.when_where import when_where_columns


def embed(
    model: PatchEncoder,
    pixels: Any,
    *,
    when: Any,
    lat: Any,
    lon: Any,
    metadata: Mapping[str, Any] | None,
    bands: Sequence[str] | None,
    pool: str | None,
    crop: str,
    statistics: str,
    scale: tuple[float, float] | None,
    nodata: float | None,
    batch_size: int,
    backend: str,
    sensor: str | None,
) -> Any:
    """See `MOEMAE.embed`, whose work this is."""
    given = read_input(pixels)
    if of_sentinel2(given, model.config, bands, sensor):
        patches = Sentinel2Patches.of(given, model.config, bands, crop, scale, nodata)
    else:
        patches = LandsatPatches.of(given, model.config, bands, crop, scale, nodata, sensor)
        patches.say_without_number(stacklevel=3)
        if notice := patches.bands.notice(model.config):
            warnings.warn(notice, stacklevel=3)
    columns = when_where_columns(len(patches), given.when if when is None else when, lat, lon, metadata)
    pool = pool or model.config.pool
    return given.restore(embed_patches(model, patches, columns, pool, statistics, batch_size, backend))


def embed_patches(
    model: PatchEncoder,
    patches: LandsatPatches | Sentinel2Patches,
    columns: np.ndarray,
    pool: str,
    statistics: str,
    batch_size: int,
    backend: str = "torch",
) -> np.ndarray:
    """Patches and what is known of them to vectors, on the model's device.

    Args:
        model: left in the mode, training or evaluation, in which it is.
        patches: N of them.
        columns: (N, len(FIELDS)), see `utils.metadata`; NaN where not known.
        pool: a key of `models.pooling.POOLINGS`.
        statistics: the dataset whose mean and spread to normalise with; Sentinel-2's patches have their own.
        batch_size: patches at once.
        backend: see `models.inference.runtimes`; Sentinel-2's patches are computed by PyTorch.

    Returns:
        (N, D) float32; NaN for a patch of nothing but fill (unless the model takes fill for data), with a warning.

    Raises:
        ConfigError: for an unknown pool or statistics, or a batch size below 1.
    """
    require_choice("pool", pool, POOLINGS)
    require_choice("statistics", statistics, DATASETS)
    require_batch_size(batch_size)
    if patches.sensor is MSI:
        backend = _torch_alone(backend)
    published = model.config.published_behaviour
    normalize = ZScoreNormalize(_statistics(patches.sensor, statistics), fill_is_data=published)
    device = next(model.parameters()).device
    given = None if patches.present is None else torch.tensor(patches.present, device=device)
    vectors = np.empty((len(patches), vector_width(model.config, pool)), np.float32)
    was_training, empty = model.training, 0
    try:
        embedder = Embedder(model, pool, backend=backend, patches=len(patches))
        starts = range(0, len(patches), batch_size)
        for start in tqdm(starts, desc="embedding", unit="batch", leave=False, disable=None):
            part = slice(start, min(start + batch_size, len(patches)))
            bits = torch.from_numpy(patches.read(part).view(np.int16)).to(device)
            images, valid = normalize(bits)
            meta = torch.from_numpy(encode_metadata(columns[part], model.config.meta_fields, published)).to(device)
            bands = None if given is None else given.expand(len(images), -1)
            vectors[part] = embedder(images, meta, valid, bands).cpu().numpy()
            hidden = ~valid.flatten(1).any(dim=1).cpu().numpy()
            vectors[part][hidden] = np.nan
            empty += int(hidden.sum())
    finally:
        model.train(was_training)
    if empty:
        warnings.warn(
            f"{empty} of {len(patches)} patches have no valid pixel (nodata only): their embeddings are NaN",
            stacklevel=3,
        )
    return vectors


def _statistics(sensor: Sensor, name: str) -> BandStatistics:
    """Mean and spread by a dataset's name; MSI's are those of its only dataset."""
    return SimulatedMSIInfo.STATISTICS if sensor is MSI else DATASETS[name].STATISTICS


def _torch_alone(backend: str) -> str:
    """The backend for a second sensor. Raises ConfigError for one that knows Landsat's bands only."""
    if backend not in ("torch", "auto"):
        raise ConfigError(f"backend: {backend} knows Landsat's bands only; use torch for {MSI.title}")
    return "torch"


def require_batch_size(batch_size: int) -> None:
    """Raise ConfigError for what is no whole number of 1 or more."""
    if not isinstance(batch_size, Integral) or batch_size < 1:
        raise ConfigError(f"batch_size: {batch_size!r} is no whole number of 1 or more")


def require_choice(name: str, value: str, choices: Sequence[str] | dict[str, Any]) -> None:
    """Raise ConfigError, naming the option, for a value that is none of the choices."""
    if value not in choices:
        raise ConfigError(f"{name}: unknown {value!r}; use {', '.join(choices)}")
