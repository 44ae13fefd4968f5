"""InfoNCE: which of a batch's other views is of the same image (van den Oord et al. 2018, arXiv:1807.03748)."""

import torch
import torch.nn.functional as F
from torch import Tensor

EXCLUDED = -1e4
"""Logit of an image that does not count. Finite, so that a batch without any that count has a gradient of 0."""


def info_nce(first: Tensor, second: Tensor, counted: Tensor, temperature: float) -> Tensor:
    """(2,) float32: the cross entropies of both directions averaged, added up over the images; how many count.

    Args:
        first: (B, W) one view of every image.
        second: (B, W) the other.
        counted: (B,) bool; other images are neither asked for nor to choose from.
        temperature: divides the cosines.
    """
    with torch.autocast(first.device.type, enabled=False):
        first, second = (F.normalize(view.float(), dim=1) for view in (first, second))
        cosines = first @ second.T / temperature
        own = torch.arange(len(cosines), device=cosines.device)
        entropies = [
            F.cross_entropy(logits.masked_fill(~counted, EXCLUDED), own, reduction="none")
            for logits in (cosines, cosines.T)
        ]
    return torch.stack([((entropies[0] + entropies[1]) / 2 * counted).sum(), counted.float().sum()])
