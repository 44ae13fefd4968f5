"""Which patches the encoder sees: masking by a strategy, and cutting images into patches and back.

Dimensions: B batch, N patches of an image, n patches kept, C bands, p patch side, H and W image sides.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from utils.randomness import generator

LEAST_VISIBLE = 0.25
"""Share of a token's pixels that must be valid for the encoder to see it (measured: docs/guide/embeddings.md)."""


class Masking(NamedTuple):
    """One random choice of patches for each image of a batch."""

    ids_keep: Tensor
    """(B, n) indices of the kept patches, in the shuffled order in which the encoder sees them."""
    ids_restore: Tensor
    """(B, N) position of each patch in [kept, removed]: the inverse of the shuffle. All of the removed are alike: one
    that fills up `ids_keep` has the place of any."""
    mask: Tensor
    """(B, N) float, 1 = removed or hidden: not seen by the encoder."""
    full: bool = True
    """Whether the encoder sees all of `ids_keep`. If not, those whose `mask` is 1 only fill up the shape."""

    @property
    def visible(self) -> Tensor | None:
        """(B, N) bool, the patches that the encoder sees; None where these are all of `ids_keep`."""
        return None if self.full else self.mask == 0


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


STRATEGIES: dict[str, Callable[[Tensor, float], Masking]] = {"random": random_masking}
"""Name of a strategy to what makes a masking of (B, N) uniform noise and a mask ratio. Every strategy keeps
`kept_patches` patches of an image, so that shapes do not depend on it."""


@dataclass(frozen=True)
class MaskingConfig:
    """How images are masked: no part of the weights, but a checkpoint says how they were trained."""

    ratio: float = 0.75
    strategy: str = "random"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "MaskingConfig":
        """From the keys `mask_ratio` and `mask_strategy` of a mapping, which may hold others; None is the default."""
        given = {"ratio": values.get("mask_ratio"), "strategy": values.get("mask_strategy")}
        return cls(**{key: value for key, value in given.items() if value is not None})

    def to_dict(self) -> dict[str, Any]:
        """Plain values. The strategy goes without saying where it is random, as it was before there were others."""
        return {"mask_ratio": self.ratio} | ({} if self.strategy == "random" else {"mask_strategy": self.strategy})

    def problems(self, num_patches: int) -> list[tuple[str, str]]:
        """What is impossible for images of so many patches, as (key, sentence)."""
        found = []
        if self.strategy not in STRATEGIES:
            found.append(("mask_strategy", f"{self.strategy!r} is none of {', '.join(STRATEGIES)}"))
        if self.ratio > 0 and kept_patches(num_patches, self.ratio) == num_patches:
            found.append(("mask_ratio", f"{self.ratio} removes none of the {num_patches} patches"))
        return found


MASKING_KEYS = ("mask_ratio", "mask_strategy")
"""Keys of a config or a file that say how images are masked."""


def visible_patches(valid: Tensor, patch_size: int, least_share: float = LEAST_VISIBLE) -> Tensor:
    """Which patches the encoder can see: (B, H, W) valid pixels to (B, N) bool.

    Where no patch of an image has the share, those with its greatest are seen: none only where no pixel is valid.

    Args:
        valid: False on hidden pixels (fill, cloud, shadow).
        patch_size: p.
        least_share: of a patch's pixels that must be valid.
    """
    shares = patchify(valid.unsqueeze(1).float(), patch_size).mean(dim=-1)
    return (shares >= shares.amax(dim=1, keepdim=True).clamp(max=least_share)) & (shares > 0)


def visible_unless_all(valid: Tensor, patch_size: int) -> Tensor | None:
    """`visible_patches`, but None, which costs nothing, where every pixel is valid. Waits for the device."""
    return None if bool(valid.all()) else visible_patches(valid, patch_size)


def make_masking(noise: Tensor, how: MaskingConfig, visible: Tensor | None = None) -> Masking:
    """The masking of a batch: in training, evaluation and scenes alike.

    Args:
        noise: (B, N) uniform on [0, 1).
        how: strategy and ratio.
        visible: (B, N) bool; only these are kept, as large a share of an image's as of a whole one's. None means all.
    """
    if visible is None:
        return STRATEGIES[how.strategy](noise, how.ratio)
    drawn = STRATEGIES[how.strategy](noise.masked_fill(~visible, torch.inf), how.ratio)
    return _of_visible(drawn, visible, how.ratio)


def _of_visible(drawn: Masking, visible: Tensor, mask_ratio: float) -> Masking:
    """The masking in which the first visible ones of the kept patches are kept, in every image its number."""
    num_patches, num_keep = visible.shape[1], drawn.ids_keep.shape[1]
    count = visible.sum(dim=1, keepdim=True)
    share = (count * (1.0 - mask_ratio)).round().clamp(min=1)
    keep = torch.where(count == num_patches, num_keep, share)
    seen = visible.gather(1, drawn.ids_keep)
    seen = seen & (seen.cumsum(dim=1) <= keep)
    mask = torch.ones_like(drawn.mask).scatter(1, drawn.ids_keep, (~seen).to(drawn.mask.dtype))
    restore = torch.where(mask == 1, drawn.ids_restore.clamp(min=num_keep), drawn.ids_restore)
    return Masking(drawn.ids_keep, restore, mask, full=False)


def seeded_masking(
    keys: Iterable[tuple[Any, ...]],
    num_patches: int,
    how: MaskingConfig,
    device: torch.device,
    visible: Tensor | None = None,
) -> Masking:
    """The masking of images that each have a key: the same mask for the same key, in whatever batch and order.

    Args:
        keys: of each image, the arguments of `utils.randomness.generator`.
        num_patches: N.
        how: strategy and ratio.
        device: where the masking goes.
        visible: see `make_masking`.
    """
    noise = [torch.rand(num_patches, generator=generator(*key)) for key in keys]
    return make_masking(torch.stack(noise).to(device), how, visible)


def keep_all(
    batch: int, num_patches: int, device: torch.device | str = "cpu", visible: Tensor | None = None
) -> Masking:
    """The masking that removes nothing of what is `visible` and keeps the patches in order."""
    order = torch.arange(num_patches, device=device, dtype=torch.float32)
    everything = random_masking(order.expand(batch, -1), mask_ratio=0.0)
    return everything if visible is None else _of_visible(everything, visible, mask_ratio=0.0)


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
