"""Random convolutional features as a baseline: what pixels give without any training, the strongest of the simple ones.

The featurisation of MOSAIKS on z-scored pixels of all bands, see `transformation.random_features`. Coates and Ng (2011)
whiten the pixels under a filter as well, which gives more.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from datasets.loader import BatchLoader
from transformation.random_features import SIDE, RandomFeatures, whitening
from utils.errors import DataError
from utils.randomness import generator

FILTERS = 256
"""Filters; an image has twice as many features, one for each direction."""

RIDGE = 1e-2
"""Added to the variance of every direction of neighbouring z-scored pixels before whitening."""

FIT_IMAGES, DRAWN = 2048, 32768
"""Images that patches are drawn from, evenly spread over the split, and patches drawn in all."""


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
    to_white = whitening(torch.cov(patches.T), RIDGE)
    order = torch.randperm(len(patches), generator=generator(seed, "random features", "filters"))
    filters, offsets = (patches[order[:count]] - mean) @ to_white, torch.zeros(count)
    if whiten_pixels:
        filters = functional.normalize(filters, dim=1) @ to_white
        offsets = -filters @ mean
    shape = (count, patches.shape[1] // SIDE**2, SIDE, SIDE)
    return RandomFeatures.of(filters.reshape(shape).float(), offsets.float())


def random_vectors(features: RandomFeatures, loader: BatchLoader) -> tuple[np.ndarray, list[str]]:
    """(N, 2 F) features of every patch that the loader gives, and the patches' ids."""
    found, ids = [], []
    features = features.to(loader.device)
    for batch in tqdm(loader.batches(), total=len(loader), desc="random features", leave=False, disable=None):
        if batch.ids:
            found.append(features.image_means(batch.images).cpu().numpy())
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
