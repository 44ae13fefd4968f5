"""What each expert is worth: the reconstruction without it, through the model's own forward pass."""

import copy
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from datasets.loader import BatchLoader
from eval.evaluate_mae import validation_losses
from models.losses import LossWeights
from models.moe_mae import MOEMAE


class Ablation(NamedTuple):
    """Masked reconstruction losses, all on the same masks."""

    masked_loss: float
    """Of the whole model."""
    increase: np.ndarray
    """(blocks with experts, experts) how much higher the loss is without an expert; NaN where there is none."""


def remove_expert(model: MOEMAE, block: int, expert: int) -> MOEMAE:
    """A copy of the model in which one encoder expert is never chosen: its gate's bias is minus infinity.

    Its tokens go to the best of the other experts. Residuals, norms and everything else are the model's own.

    Raises:
        ValueError: when the block has no such expert, or no other one.
    """
    experts = model.config.experts[block]
    if experts == 1 or not 0 <= expert < experts:
        raise ValueError(f"cannot remove expert {expert} of the {experts} in block {block}")
    without = copy.deepcopy(model)
    with torch.no_grad():
        without.encoder.layers[block].moe.gate.Wg.bias[expert] = -torch.inf
    return without


def ablate_experts(model: MOEMAE, loader: BatchLoader, seed: int) -> Ablation:
    """Remove every encoder expert in turn and evaluate the masked reconstruction.

    Args:
        model: in evaluation mode.
        loader: the patches; read once per expert, so hold the dataset in memory.
        seed: of the masks.
    """
    blocks = [(block, experts) for block, experts in enumerate(model.config.experts) if experts > 1]
    increase = np.full((len(blocks), max(model.config.experts)), np.nan)
    whole = _masked_loss(model, loader, seed)
    removals = [(row, block, expert) for row, (block, count) in enumerate(blocks) for expert in range(count)]
    for row, block, expert in tqdm(removals, desc="removing experts", leave=False, disable=None):
        increase[row, expert] = _masked_loss(remove_expert(model, block, expert), loader, seed) - whole
    return Ablation(whole, increase)


def _masked_loss(model: MOEMAE, loader: BatchLoader, seed: int) -> float:
    return validation_losses(model, loader, seed, LossWeights())["val_m_loss"]
