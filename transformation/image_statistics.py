"""What simple numbers say of an image: the baseline that every embedding has to beat."""

import torch
from torch import Tensor


def image_statistics(images: Tensor, valid: Tensor) -> Tensor:
    """Mean, standard deviation, minimum and maximum of each band over the valid pixels.

    Args:
        images: (B, C, H, W), digital numbers or z-scores.
        valid: (B, H, W), False on fill; every image has a valid pixel.

    Returns:
        (B, 4 C) float32: all means, then all standard deviations, and so on.
    """
    values, valid = images.to(torch.float32).flatten(2), valid.flatten(1).unsqueeze(1)
    count = valid.sum(2)
    mean = (values * valid).sum(2) / count
    std = (((values - mean[..., None]) * valid).square().sum(2) / count).sqrt()
    low, high = values.masked_fill(~valid, torch.inf).amin(2), values.masked_fill(~valid, -torch.inf).amax(2)
    return torch.cat([mean, std, low, high], dim=1)
