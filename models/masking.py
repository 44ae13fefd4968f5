"""Which patches the encoder sees: random masking, and cutting images into patches and back.

Dimensions: B batch, N patches of an image, n patches kept, C bands, p patch side, H and W image sides.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Masking(NamedTuple):
    """One random choice of patches for each image of a batch."""

    ids_keep: Tensor
    """(B, n) indices of the kept patches, in the shuffled order in which the encoder sees them."""
    ids_restore: Tensor
    """(B, N) position of each patch in [kept, removed]: the inverse of the shuffle."""
    mask: Tensor
    """(B, N) float, 1 = removed."""


def kept_patches(num_patches: int, mask_ratio: float) -> int:
    """How many of `num_patches` stay visible: the nearest whole number, at least one."""
    return max(1, round(num_patches * (1.0 - mask_ratio)))


def random_masking(noise: Tensor, mask_ratio: float) -> Masking:
    """Keep the patches with the smallest noise (He et al. 2021, arXiv:2111.06377, section 3).

    Args:
        noise: (B, N), uniform on [0, 1); the only randomness, so that a caller or a test decides it.
        mask_ratio: share of patches to remove, in [0, 1).
    """
    num_patches = noise.shape[1]
    num_keep = kept_patches(num_patches, mask_ratio)
    ids_shuffle = noise.argsort(dim=1, stable=True)
    ids_restore = ids_shuffle.argsort(dim=1, stable=True)
    mask = (ids_restore >= num_keep).to(torch.float32)
    return Masking(ids_shuffle[:, :num_keep], ids_restore, mask)


def keep_all(batch: int, num_patches: int, device: torch.device | str = "cpu") -> Masking:
    """The masking that removes nothing and keeps the patches in order."""
    order = torch.arange(num_patches, device=device, dtype=torch.float32)
    return random_masking(order.expand(batch, -1), mask_ratio=0.0)


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """(B, C, H, W) to (B, N, C * p * p): row-major patches, values ordered (C, p, p) as `F.unfold` gives them."""
    B, C, H, W = images.shape
    p = patch_size
    grid = images.reshape(B, C, H // p, p, W // p, p)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(B, (H // p) * (W // p), C * p * p)


def unpatchify(patches: Tensor, patch_size: int, channels: int) -> Tensor:
    """(B, N, C * p * p) to (B, C, H, W) for a square grid; the inverse of `patchify`."""
    B, N, _ = patches.shape
    p, side = patch_size, round(N**0.5)
    grid = patches.reshape(B, side, side, channels, p, p)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(B, channels, side * p, side * p)
