"""What may be done at random to the images of a training batch: one row of `AUGMENTATIONS` each."""

from collections.abc import Callable

import torch
from torch import Tensor

from transformation.transformer import Normalized


def symmetries(images: Tensor, valid: Tensor, draw: Tensor) -> Normalized:
    """One of the eight symmetries of the square for every image: Landsat looks down, so none of them is special.

    Args:
        images: (B, C, S, S), square.
        valid: (B, S, S).
        draw: (B,) uniform numbers in [0, 1) that decide which.
    """
    which = (draw * 8).to(torch.int64)
    stacked = torch.cat([images, valid.unsqueeze(1).to(images.dtype)], dim=1)
    for bit, moved in enumerate((lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: x.transpose(-1, -2))):
        chosen = (which >> bit & 1).bool()[:, None, None, None]
        stacked = torch.where(chosen, moved(stacked), stacked)
    return Normalized(stacked[:, :-1].contiguous(), stacked[:, -1] > 0)


AUGMENTATIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Normalized]] = {"symmetries": symmetries}
"""Every augmentation by the name that configs give it: from images (B, C, S, S), valid pixels (B, S, S) and one uniform
number an image, (B,), to other images and their valid pixels."""
