"""Random convolutional features (RCF): frozen filters that are whitened pieces of the images themselves.

As in MOSAIKS (Rolf et al. 2021, doi:10.1038/s41467-021-24638-z): each filter is a random 3 x 3 piece of an image,
whitened (ZCA), and its response is kept in two halves, relu(response - 0.5) and relu(-response - 0.5). With the
whitening of Coates and Ng (2011) the filter has unit length and responds to whitened pieces.

Pretraining predicts their maps (`models.targets`); their means over an image are baselines
(`eval.probing.random_features`, which draws the filters from a whole split).
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.randomness import generator

SIDE = 3
"""Pixels along a filter's side."""

PIECES_PER_FILTER = 200
"""Pieces from which means and covariance are estimated, for each filter."""

THRESHOLD = 0.5
"""Standard deviations of a response, or of the whitened pixels, that count as none."""

CHUNK = 64
"""Images whose means are taken at a time: their responses stay in the cache."""

RIDGE = 0.1
"""Added to the variances before whitening, as a share of their mean: noise must not become texture."""


class RandomFeatures(nn.Module):
    """`filters` filters, each with two rectified responses.

    Args:
        bands: C of the images.
        filters: how many.

    Attributes:
        weight: (K, C, 3, 3), whitening included.
        bias: (K,).
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, bands: int, filters: int) -> None:
        super().__init__()
        self.width = 2 * filters
        self.register_buffer("weight", torch.zeros(filters, bands, SIDE, SIDE))
        self.register_buffer("bias", torch.zeros(filters))

    @classmethod
    def of(cls, weight: Tensor | np.ndarray, bias: Tensor | np.ndarray) -> "RandomFeatures":
        """From filters, (K, C, 3, 3), and what is added to their responses, (K,)."""
        filters, bands, *_ = weight.shape
        features = cls(bands, filters)
        features.weight.copy_(torch.as_tensor(weight))
        features.bias.copy_(torch.as_tensor(bias))
        return features

    @torch.no_grad()
    def fit(self, images: Tensor, valid: Tensor, seed: int) -> None:
        """Draw the filters from images.

        Args:
            images: (N, C, H, W) z-scores.
            valid: (N, H, W), False on fill; pieces that touch fill are left out where there are others.
            seed: of the pieces.
        """
        filters = len(self.bias)
        pieces = _pieces(images, valid, PIECES_PER_FILTER * filters, seed)
        mean = pieces.mean(dim=0)
        centred = (pieces - mean).double()
        to_white = whitening(centred.T @ centred / len(centred), RIDGE, of_mean=True)
        drawn = centred[torch.arange(filters) % len(centred)] @ to_white
        unit = drawn / drawn.norm(dim=1, keepdim=True).clamp_min(1e-6)
        weight = (unit @ to_white).float()
        # A whitened piece has variance below 1 because of the ridge: the threshold is in units of the response.
        weight /= (centred.float() @ weight.T).std(dim=0).clamp_min(1e-6)[:, None]
        self.weight.copy_(weight.view_as(self.weight))
        self.bias.copy_(-weight @ mean)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 2 K, H, W): the positive halves, then the negative ones."""
        return self._responses(F.pad(images, (1, 1, 1, 1), mode="replicate"))

    def image_means(self, images: Tensor) -> Tensor:
        """(B, C, H, W), 0 where there is no data, to (B, 2 K): means over all places where a whole filter fits."""
        return torch.cat([self._responses(chunk).mean(dim=(2, 3)) for chunk in images.split(CHUNK)])

    def _responses(self, images: Tensor) -> Tensor:
        response = F.conv2d(images, self.weight, self.bias)
        return torch.cat([(response - THRESHOLD).relu(), (-response - THRESHOLD).relu()], dim=1)


def whitening(covariance: Tensor, ridge: float, of_mean: bool = False) -> Tensor:
    """The ZCA matrix (D, D) of numbers with a (D, D) float64 covariance.

    Args:
        covariance: of the numbers.
        ridge: added to the variance of every direction: the last ones are noise, which whitening would raise to the
            level of all others.
        of_mean: whether the ridge is a share of the mean variance.
    """
    values, vectors = torch.linalg.eigh(covariance)
    added = ridge * values.mean() if of_mean else ridge
    return (vectors / (values.clamp_min(0) + added).sqrt()) @ vectors.T


def image_mean(maps: Tensor, valid: Tensor) -> Tensor:
    """(B, K, H, W) maps to their means over the valid pixels (B, H, W), (B, K); 0 where there is none."""
    weight = valid.flatten(1).to(maps.dtype)
    return torch.einsum("bkp,bp->bk", maps.flatten(2), weight) / weight.sum(dim=1, keepdim=True).clamp_min(1.0)


def _pieces(images: Tensor, valid: Tensor, count: int, seed: int) -> Tensor:
    """`count` pieces of 3 x 3 pixels in random order, (count, C * 9); fewer where the images have no more."""
    source = generator(seed, "random features")
    side = images.shape[-1] - SIDE + 1
    free = -F.max_pool2d(-valid.unsqueeze(1).float(), SIDE, stride=1).flatten()  # 1 where all nine pixels are valid
    places = free.nonzero().flatten()
    if not len(places):
        places = torch.arange(len(free))
    places = places[torch.randperm(len(places), generator=source)[:count]]
    patch, at = places // side**2, places % side**2
    rows, columns = at // side, at % side
    offsets = torch.arange(SIDE)
    pieces = images[
        patch[:, None, None], :, (rows[:, None] + offsets)[:, :, None], (columns[:, None] + offsets)[:, None, :]
    ]
    return pieces.permute(0, 3, 1, 2).reshape(len(places), -1)
