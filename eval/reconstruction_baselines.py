"""Reconstruction baselines without a model, which a masked autoencoder has to beat.

Each takes (B, C, H, W) normalised images, the (B, H, W) valid mask and the (B, N) patch mask (1 = removed), looks at
visible valid pixels only, and returns predicted patches (B, N, C * p * p).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from models.masking import patchify

Baseline = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def dataset_mean(images: Tensor, valid: Tensor, mask: Tensor, patch_size: int) -> Tensor:
    """The mean of the dataset, which is 0 after normalisation."""
    return torch.zeros_like(patchify(images, patch_size))


def visible_mean(images: Tensor, valid: Tensor, mask: Tensor, patch_size: int) -> Tensor:
    """Each image's mean per band over its visible pixels, everywhere."""
    sums, counts = _visible_sums(images, valid, mask, patch_size)
    mean = sums.sum(dim=1, keepdim=True) / counts.sum(dim=1, keepdim=True).clamp_min(1.0)
    return _fill_patches(mean.expand(-1, mask.shape[1], -1), patch_size)


def inverse_distance(images: Tensor, valid: Tensor, mask: Tensor, patch_size: int) -> Tensor:
    """The visible patches' band means, interpolated with weights 1 / distance^2 (Shepard 1968).

    Distances are between patch centres, in patches; a partly valid patch weighs by its valid share. A visible patch
    is predicted by its own mean.
    """
    sums, counts = _visible_sums(images, valid, mask, patch_size)
    means = sums / counts.clamp_min(1.0)
    side = round(mask.shape[1] ** 0.5)
    places = torch.cartesian_prod(torch.arange(side), torch.arange(side)).to(images)
    squared = torch.cdist(places, places).square()
    weights = 1.0 / squared.clamp_min(1e-6)  # (N, N); a patch's own mean outweighs all others by far
    share = counts.squeeze(-1) / patch_size**2  # (B, N)
    weights = weights * share.unsqueeze(1)  # (B, N, N)
    mean = weights @ means / weights.sum(dim=-1, keepdim=True).clamp_min(1e-12)
    return _fill_patches(mean, patch_size)


BASELINES: dict[str, Baseline] = {
    "dataset_mean": dataset_mean,
    "visible_mean": visible_mean,
    "interpolation": inverse_distance,
}


def _visible_sums(images: Tensor, valid: Tensor, mask: Tensor, patch_size: int) -> tuple[Tensor, Tensor]:
    """Per patch: (B, N, C) sums over visible valid pixels and (B, N, 1) how many there are."""
    B, C = images.shape[:2]
    usable = patchify(valid.unsqueeze(1).to(images.dtype), patch_size) * (1.0 - mask).unsqueeze(-1)  # (B, N, p * p)
    values = patchify(images, patch_size).view(B, mask.shape[1], C, -1)
    return (values * usable.unsqueeze(2)).sum(dim=-1), usable.sum(dim=-1, keepdim=True)


def _fill_patches(band_values: Tensor, patch_size: int) -> Tensor:
    """(B, N, C) one value a band to (B, N, C * p * p)."""
    return band_values.repeat_interleave(patch_size**2, dim=-1)
