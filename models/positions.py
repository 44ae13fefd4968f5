"""What position embeddings are before training."""

import math

import torch
from torch import Tensor, nn

from models.config import ModelConfig

FASTEST, SLOWEST = 0.5, 0.02
"""Turns per patch of the fastest wave, and of the slowest: from two patches to five images of ten patches."""


def truncated_normal(tensor: Tensor, std: float) -> None:
    """Draw a parameter in place; one on the meta device, whose values will be read, is left alone.

    There these operations, and the powers below, would import PyTorch's compiler, which takes 2 s.
    """
    if not tensor.is_meta:
        nn.init.trunc_normal_(tensor, std=std)


@torch.no_grad()
def start_positions(embedding: Tensor, config: ModelConfig) -> None:
    """Set (1, P + N, D) position embeddings, in place, to what `config.position_start` says.

    "random": normal numbers of deviation `position_std`, cut off at 2. "sincos": the same, but of the patches' rows a
    quarter of the numbers each are sines of the row, cosines of the row, sines and cosines of the column, times sqrt(2)
    `position_std`, at frequencies in geometric steps; numbers that four does not divide stay random.
    """
    truncated_normal(embedding, config.position_std)
    if config.position_start == "random" or embedding.is_meta:
        return
    quarter, side = embedding.shape[-1] // 4, config.grid
    where = embedding.device  # stated, since tools that build on the meta device keep some functions on the CPU
    steps = torch.linspace(0.0, 1.0, quarter, device=where)
    turns = FASTEST * (SLOWEST / FASTEST) ** steps
    angles = 2 * math.pi * torch.arange(side, device=where)[:, None] * turns
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, 2 quarters)
    rows, columns = waves[:, None].expand(-1, side, -1), waves[None].expand(side, -1, -1)
    both = torch.cat([rows, columns], dim=-1).flatten(0, 1)
    embedding[0, -config.num_patches :, : both.shape[1]] = both * math.sqrt(2) * config.position_std
