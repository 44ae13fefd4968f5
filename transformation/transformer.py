"""Square crops of stored numbers, and z-scores with fill pixels kept apart."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from utils.data_config import BandStatistics


class Normalized(NamedTuple):
    """A batch as the model takes it."""

    images: Tensor
    """(B, C, H, W) float32 z-scores; 0 on fill pixels."""
    valid: Tensor
    """(B, H, W) bool; False on fill pixels."""


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
    whole = _bilinear((values != 0).any(dim=1, keepdim=True).float(), size) > 1 - 1e-4
    return (resized.round() * whole)[0].numpy().astype(np.uint16)


def _bilinear(values: Tensor, size: int) -> Tensor:
    return F.interpolate(values, size=(size, size), mode="bilinear", antialias=True, align_corners=False)


class ZScoreNormalize:
    """Stored numbers to z-scores per band, and back.

    Fill pixels (0 in every band) are set to 0 after normalisation and marked invalid; with `fill_is_data` they are
    treated like any other pixel, as the published code does.
    """

    def __init__(self, statistics: BandStatistics, fill_is_data: bool = False) -> None:
        self.mean = torch.tensor(statistics.mean, dtype=torch.float32)[:, None, None]
        self.std = torch.tensor(statistics.std, dtype=torch.float32)[:, None, None]
        self.fill_is_data = fill_is_data

    def __call__(self, pixels: Tensor) -> Normalized:
        """(B, C, H, W) stored numbers to z-scores and the valid mask."""
        values = pixels.to(torch.float32)
        images = (values - self.mean) / self.std
        valid = (values != 0).any(dim=1)
        if self.fill_is_data:
            return Normalized(images, torch.ones_like(valid))
        return Normalized(images * valid.unsqueeze(1), valid)

    def invert(self, images: Tensor) -> Tensor:
        """(..., C, H, W) z-scores to stored numbers (float32)."""
        return images * self.std + self.mean
