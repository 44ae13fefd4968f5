"""Random convolutional features: what pixels give without any training, the strongest of the simple baselines.

Patches of 3 x 3 pixels, drawn at random from images and whitened, are the filters; their responses, in both directions
and above a threshold, are averaged over the image. It is the featurisation of MOSAIKS (Rolf et al. 2021,
doi:10.1038/s41467-021-24638-z), on z-scored pixels of all bands. Coates and Ng (2011) whiten the pixels under a filter
as well, which gives more.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from datasets.loader import BatchLoader
from utils.errors import DataError
from utils.randomness import generator

FILTERS = 256
"""Filters; an image has twice as many features, one for each direction."""

SIDE = 3
"""Of a filter, pixels."""

THRESHOLD = 0.5
"""That a filter's response has to exceed, in standard deviations of the whitened pixels."""

RIDGE = 1e-2
"""Added to the variance of every direction of the pixels before whitening: of neighbouring z-scored pixels the last
directions are noise, which whitening would raise to the level of all others."""

FIT_IMAGES, DRAWN = 2048, 32768
"""Images that patches are drawn from, evenly spread over the split, and patches drawn in all."""

CHUNK = 64
"""Images convolved at a time: their responses stay in the cache."""


class RandomFeatures(NamedTuple):
    """Filters that were drawn once."""

    filters: np.ndarray
    """(F, C, 3, 3) float32"""
    offsets: np.ndarray
    """(F,) float32, added to the responses."""

    def transform(self, images: Tensor) -> Tensor:
        """(B, C, H, W) z-scored pixels (0 where there is no data) to (B, 2 F) float32."""
        weight, offset = (torch.from_numpy(part).to(images.device) for part in self)
        found = []
        for chunk in images.split(CHUNK):
            response = functional.conv2d(chunk, weight, offset)
            sides = [functional.relu(sign * response - THRESHOLD).mean(dim=(2, 3)) for sign in (1, -1)]
            found.append(torch.cat(sides, dim=1))
        return torch.cat(found)


def fit_random_features(
    loader: BatchLoader, seed: int, whiten_pixels: bool = False, count: int = FILTERS
) -> RandomFeatures:
    """Draw and whiten filters (ZCA).

    Args:
        loader: of the split to draw from; labels are not used.
        seed: the filters are a function of it and of the images.
        whiten_pixels: a response is the inner product with the whitened pixels, of a filter of length 1.
        count: F.

    Raises:
        DataError: when the images have too few valid pixels to draw from.
    """
    patches = _drawn(loader, seed).double()
    if len(patches) < count:
        raise DataError(
            f"{loader.dataset.root}: {len(patches)} patches of {SIDE} x {SIDE} valid pixels, {count} needed"
        )
    mean = patches.mean(dim=0)
    variance, directions = torch.linalg.eigh(torch.cov(patches.T))
    whitening = directions * (variance.clamp_min(0.0) + RIDGE).rsqrt() @ directions.T
    order = torch.randperm(len(patches), generator=generator(seed, "random features", "filters"))
    filters, offsets = (patches[order[:count]] - mean) @ whitening, torch.zeros(count)
    if whiten_pixels:
        filters = functional.normalize(filters, dim=1) @ whitening
        offsets = -filters @ mean
    shape = (count, patches.shape[1] // SIDE**2, SIDE, SIDE)
    return RandomFeatures(filters.reshape(shape).float().numpy(), offsets.float().numpy())


def random_vectors(features: RandomFeatures, loader: BatchLoader) -> tuple[np.ndarray, list[str]]:
    """(N, 2 F) features of every patch that the loader gives, and the patches' ids."""
    found, ids = [], []
    for batch in tqdm(loader.batches(), total=len(loader), desc="random features", leave=False, disable=None):
        if batch.ids:
            found.append(features.transform(batch.images).cpu().numpy())
            ids += batch.ids
    return np.concatenate(found), ids


def _drawn(loader: BatchLoader, seed: int) -> Tensor:
    """(M, C * 3 * 3) patches at random places, those without fill pixels."""
    count = len(loader.dataset)
    order = np.unique(np.linspace(0, count - 1, min(count, FIT_IMAGES)).astype(int)).tolist()
    random, each = generator(seed, "random features", "patches"), -(-DRAWN // len(order))
    found = []
    for batch in loader.batches(order):
        height, width = (side - SIDE + 1 for side in batch.images.shape[-2:])
        places = torch.randint(height * width, (len(batch.ids), each), generator=random).to(batch.images.device)
        values = functional.unfold(batch.images, SIDE).gather(2, _spread(places, batch.images.shape[1] * SIDE**2))
        whole = functional.unfold(batch.valid.unsqueeze(1).float(), SIDE).amin(dim=1).gather(1, places) > 0
        found.append(values.transpose(1, 2)[whole].cpu())
    return torch.cat(found)


def _spread(places: Tensor, values: int) -> Tensor:
    """(B, K) places as an index of all the values there, (B, values, K)."""
    return places.unsqueeze(1).expand(-1, values, -1)
