"""Expert ablation: the reconstruction without each expert, through the model's own forward pass."""

import copy
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from datasets.loader import BatchLoader
from eval.evaluate_mae import evaluation_masking
from eval.experts.contribution import encoder_blocks, without_expert
from models.losses import SMALLEST_WEIGHT, masked_pass
from models.moe_mae import MOEMAE


class Ablation(NamedTuple):
    """Masked reconstruction losses, all on the same masks; every valid pixel counts once."""

    masked_loss: float
    """Of the whole model."""
    increase: np.ndarray
    """(blocks with experts, experts) how much higher the loss is without an expert; NaN where there is none."""
    removed: tuple[tuple[int, int], ...]
    """(block, expert) of each of the M removals."""
    errors: np.ndarray
    """(1 + M, n) squared error of each image's masked patches: by the whole model, then by each removal."""
    weights: np.ndarray
    """(n,) how many masked patches that are: a loss is a sum of `errors` over that of `weights`."""
    ids: list[str]


def remove_expert(model: MOEMAE, block: int, expert: int) -> MOEMAE:
    """A copy of the model in which one encoder expert is never chosen: its gate's bias is minus infinity.

    Its tokens go to the best of the other experts. Residuals, norms and everything else are the model's own.

    Raises:
        ValueError: as `without_expert`.
    """
    without = copy.deepcopy(model)
    without.encoder.layers[block] = without_expert(encoder_blocks(model.encoder)[block], expert)
    return without


def ablate_experts(model: MOEMAE, loader: BatchLoader, seed: int) -> Ablation:
    """Remove every encoder expert in turn and evaluate the masked reconstruction.

    Args:
        model: in evaluation mode.
        loader: the patches; read once per expert, so hold the dataset in memory.
        seed: of the masks.
    """
    blocks = [block for block, experts in enumerate(model.config.experts) if experts > 1]
    removed = tuple((block, expert) for block in blocks for expert in range(model.config.experts[block]))
    whole, weights, ids = _masked_errors(model, loader, seed)
    errors = [whole]
    for block, expert in tqdm(removed, desc="removing experts", leave=False, disable=None):
        errors.append(_masked_errors(remove_expert(model, block, expert), loader, seed)[0])
    losses = np.sum(errors, axis=1) / max(weights.sum(), SMALLEST_WEIGHT)
    increase = np.full((len(blocks), max(model.config.experts)), np.nan)
    for (block, expert), loss in zip(removed, losses[1:], strict=True):
        increase[blocks.index(block), expert] = loss - losses[0]
    return Ablation(float(losses[0]), increase, removed, np.array(errors), weights, ids)


@torch.no_grad()
def _masked_errors(model: MOEMAE, loader: BatchLoader, seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Error and weight of the masked patches of every image, (n,) each, and the images' ids."""
    parts, ids = [np.zeros((2, 0))], []
    for batch in loader.batches():
        if batch.ids:
            masking = evaluation_masking(batch, model, seed)
            found = masked_pass(model, batch.images, batch.meta, masking, batch.valid, bands=batch.bands).errors
            sums = [(values * masking.mask).sum(dim=1) for values in (found.error, found.weight)]
            parts.append(torch.stack(sums).double().cpu().numpy())
            ids += batch.ids
    errors, weights = np.concatenate(parts, axis=1)
    return errors, weights, ids
