"""Square crops of digital numbers (DN), and z-scores with a mask of valid pixels."""

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from utils.data_config import BandStatistics
from utils.errors import ConfigError


class Normalized(NamedTuple):
    """A batch as the model takes it."""

    images: Tensor
    """(B, C, H, W) float32 z-scores; on fill pixels see `fill_hidden`."""
    valid: Tensor
    """(B, H, W) bool; False on fill pixels."""


CELL = 4
"""Side, in pixels, of the squares within which hidden pixels are replaced: a patch of the published models."""

SMALLEST_SHARE = 1e-6
"""In place of a share of 0."""

MIN_RESIZED = 8
"""Least side that `crop="resize"` accepts, pixels."""


def center_crop(pixels: np.ndarray, size: int) -> np.ndarray:
    """The middle `size` x `size` of (C, H, W); an odd remainder leaves one more row or column at the end."""
    top, left = (pixels.shape[1] - size) // 2, (pixels.shape[2] - size) // 2
    return pixels[:, top : top + size, left : left + size]


def resize(pixels: np.ndarray, size: int, published_behaviour: bool = False) -> np.ndarray:
    """(C, H, W) uint16 to (C, size, size) uint16, bilinear with antialiasing.

    Values are rounded, and a pixel that any fill pixel contributes to becomes fill (0 in every band).
    `published_behaviour` truncates and lets fill bleed into its neighbours, as the published code does.
    """
    values = torch.from_numpy(pixels.astype(np.float32))[None]
    resized = _bilinear(values, size)
    if published_behaviour:
        return resized[0].numpy().astype(np.uint16)
    whole = _bilinear((values != 0).all(dim=1, keepdim=True).float(), size) > 1 - 1e-4
    return (resized.round() * whole)[0].numpy().astype(np.uint16)


def _bilinear(values: Tensor, size: int) -> Tensor:
    return F.interpolate(values, size=(size, size), mode="bilinear", antialias=True, align_corners=False)


def least_side(image_size: int, crop: str) -> int:
    """Least height and width of a file, pixels, for patches of `image_size`."""
    return image_size if crop == "center" else MIN_RESIZED


def squared(pixels: np.ndarray, image_size: int, crop: str, published_behaviour: bool) -> np.ndarray:
    """(C, H, W) digital numbers of a file to (C, S, S), S = `image_size`; see `resize` for `published_behaviour`."""
    if crop == "center":
        return center_crop(pixels, image_size)
    return resize(pixels, image_size, published_behaviour)


class ZScoreNormalize:
    """Digital numbers to z-scores per band, and back, on whatever device the numbers are.

    Fill pixels (0 in any band) are replaced by what is around them (`fill_hidden`) and marked invalid; with
    `fill_is_data` they are treated like any other pixel, as the published code does.
    """

    def __init__(self, statistics: BandStatistics, fill_is_data: bool = False) -> None:
        if not isinstance(statistics, BandStatistics):
            raise ConfigError(
                "ZScoreNormalize: takes mean and standard deviation as one value, as BigEarthNetInfo.STATISTICS is, or "
                "BandStatistics(mean, std)"
            )
        self.mean = torch.tensor(statistics.mean, dtype=torch.float32)[:, None, None]
        self.std = torch.tensor(statistics.std, dtype=torch.float32)[:, None, None]
        self.fill_is_data = fill_is_data
        self._moved: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __call__(self, pixels: Tensor) -> Normalized:
        """(B, C, H, W) digital numbers to z-scores and the valid mask.

        Args:
            pixels: uint16, or int16 with the same bits (CUDA has few operations for uint16).
        """
        bits = pixels.view(torch.int16)
        values = _from_bits(bits) if pixels.dtype == torch.int16 else pixels.to(torch.float32)
        mean, std = self._on(pixels.device)
        images = values.sub_(mean).div_(std)
        if self.fill_is_data:
            return Normalized(images, images.new_ones(images[:, 0].shape, dtype=torch.bool))
        valid = bits[:, 0] != 0
        for band in bits.unbind(1)[1:]:  # a reduction over a middle axis is ten times slower
            valid &= band != 0
        if pixels.device.type != "cpu":  # asking which patches have any would wait for the device
            return Normalized(fill_hidden(images, valid), valid)
        rows = (~valid.flatten(1).all(dim=1)).nonzero().flatten()
        if len(rows):
            images[rows] = fill_hidden(images[rows], valid[rows])
        return Normalized(images, valid)

    def __getstate__(self) -> dict[str, Any]:
        """Without the copies on devices, which a reader process has no use for."""
        return {**self.__dict__, "_moved": {}}

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._moved:
            self._moved[device] = self.mean.to(device), self.std.to(device)
        return self._moved[device]

    def invert(self, images: Tensor) -> Tensor:
        """(..., C, H, W) z-scores to digital numbers (float32)."""
        return images * self.std + self.mean


def fill_hidden(images: Tensor, valid: Tensor) -> Tensor:
    """The images with every hidden pixel replaced by its band's mean over the valid pixels of its square of `CELL`
    pixels, and by 0, the dataset's mean, where there is none.

    Args:
        images: (B, C, H, W) z-scores; hidden pixels may be anything, NaN too.
        valid: (B, H, W) bool, False on hidden pixels.
    """
    seen = valid.unsqueeze(1)
    images = torch.where(seen, images, 0.0)
    sums, counts = (F.avg_pool2d(values, CELL, ceil_mode=True) for values in (images, seen.to(images.dtype)))
    means = (sums / counts.clamp_min(SMALLEST_SHARE)).repeat_interleave(CELL, 2).repeat_interleave(CELL, 3)
    return torch.where(seen, images, means[..., : images.shape[2], : images.shape[3]])


def _from_bits(bits: Tensor) -> Tensor:
    """int16 bits of unsigned numbers to float32."""
    return (bits.to(torch.int32) & 0xFFFF).to(torch.float32)
