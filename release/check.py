"""Whether an exported program computes what the model computes: synthetic patches through both, at export."""

from typing import NamedTuple

import numpy as np
import torch

from models.api import DEFAULT_BATCH, DEFAULT_CROP
from models.inference.digital_numbers import LandsatPatches
from models.inference.embedding import embed_patches
from models.inference.patch_input import read_input
from models.masking import visible_unless_all
from models.moe import routing_margins
from models.moe_mae import MOEMAE
from release.formats import Run
from transformation.transformer import ZScoreNormalize
from utils.data_config import DATASETS
from utils.errors import UserError
from utils.metadata import FIELDS, encode_metadata, select_fields, with_fields

TOLERANCE = 1e-4
"""Greatest difference of any number of an embedding."""
KINDS, OF_EACH, CANDIDATES = 4, 2, 6
"""Patches: so many kinds, so many of each, chosen from so many candidates."""
SEED = 0
PATCH_SPREAD, PIXEL_SPREAD, BAND_SPREAD = 0.8, 0.5, 0.2
"""Of the synthetic pixels, in standard deviations of the data: between patches, within one, and between the bands of a
pixel, which are alike as those of any ground."""


class CheckPatches(NamedTuple):
    """Patches and what the model makes of them."""

    pixels: np.ndarray  # (N, 7, S, S) uint16
    columns: np.ndarray  # (N, len(FIELDS)) float64; NaN where not known
    metadata: np.ndarray  # (N, F) float32: those of the model's fields, as programs take them
    expected: np.ndarray  # (N, D)


def check_patches(model: MOEMAE, pool: str, statistics: str) -> CheckPatches:
    """Synthetic patches with and without fill, with and without time and place, and their embeddings.

    An embedding is not continuous where two experts of a token come out equal: rounding may choose either. Of every
    kind of patch, those farthest from any such tie are taken.
    """
    pixels, columns = _candidates(model, statistics)
    margins = _routing_margins(model, pixels, columns, statistics).reshape(KINDS, CANDIDATES)
    rows = (np.argsort(-margins, axis=1)[:, :OF_EACH] + CANDIDATES * np.arange(KINDS)[:, None]).ravel()
    pixels, columns = pixels[rows], columns[rows]
    patches = LandsatPatches.of(read_input(pixels), model.config, None, DEFAULT_CROP, None)
    expected = embed_patches(model, patches, columns, pool, statistics, DEFAULT_BATCH)
    metadata = select_fields(columns, model.config.meta_fields).astype(np.float32)
    return CheckPatches(pixels, columns, metadata, expected)


def largest_difference(run: Run, patches: CheckPatches) -> float:
    """The greatest absolute difference, over a single patch and over the others at once.

    Raises:
        UserError: above `TOLERANCE`, or for another shape.
    """
    pixels = patches.pixels.astype(np.int32)
    parts = [run(pixels[part], patches.metadata[part]) for part in (slice(1), slice(1, None))]
    found = np.concatenate(parts)
    if found.shape != patches.expected.shape:
        raise UserError(f"export: the program gives {found.shape}, the model {patches.expected.shape}; not written")
    difference = float(np.abs(found - patches.expected).max())
    if not difference <= TOLERANCE:
        raise UserError(f"export: the program is {difference:.1e} away from the model (> {TOLERANCE:g}); not written")
    return difference


def _candidates(model: MOEMAE, statistics: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(SEED)
    config, count = model.config, KINDS * CANDIDATES
    numbers = DATASETS[statistics].STATISTICS
    mean, std = (np.array(values)[:, None, None] for values in numbers)
    shape = (count, config.in_channels, config.img_size, config.img_size)
    brightness = PATCH_SPREAD * rng.standard_normal((count, 1, 1, 1)) + PIXEL_SPREAD * rng.standard_normal(
        (count, 1, *shape[2:])
    )
    scores = brightness + BAND_SPREAD * rng.standard_normal(shape)
    pixels = (mean + std * scores).clip(1, np.iinfo(np.uint16).max).astype(np.uint16)
    columns = np.stack([np.floor(rng.uniform(*field.limits, count)) for field in FIELDS.values()], axis=1)
    fill, timeless, unknown = (slice(CANDIDATES * kind, CANDIDATES * (kind + 1)) for kind in (1, 2, 3))
    pixels[fill, :, : config.img_size // 4] = 0
    columns[timeless] = with_fields(columns[timeless], ("week", "hour"), np.nan)
    columns[unknown] = np.nan
    return pixels, columns


def _routing_margins(model: MOEMAE, pixels: np.ndarray, columns: np.ndarray, statistics: str) -> np.ndarray:
    """How far the closest choice between two experts is from a tie, in every patch: (N,)."""
    published = model.config.published_behaviour
    normalize = ZScoreNormalize(DATASETS[statistics].STATISTICS, fill_is_data=published)
    images, valid = normalize(torch.from_numpy(pixels.view(np.int16)))
    with torch.no_grad():
        meta = torch.from_numpy(encode_metadata(columns, model.config.meta_fields, published))
        visible = visible_unless_all(valid, model.config.patch_size)
        routing = model.eval().encode(images, meta, visible=visible, noise=False, to_read=True).routing
    return routing_margins(routing, len(pixels)).numpy()
