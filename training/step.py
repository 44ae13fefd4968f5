"""One optimizer step: a pure function of the weights, the batch, the seed and the step's number."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from datasets.patches import Batch
from models.losses import Losses, LossWeights, mae_loss
from models.masking import random_masking
from models.moe import Routing
from models.moe_mae import MOEMAE
from utils.errors import TrainingDiverged
from utils.randomness import generator

SMALLEST_SCALE = 1e-4
"""A loss scale that has sunk below this no longer explains a gradient that is not finite."""


class StepOptions(NamedTuple):
    """What stays the same from step to step."""

    seed: int
    weights: LossWeights
    grad_clip: float
    """Greatest gradient norm."""
    metadata_dropout: float
    """Chance that a patch's metadata are replaced by the missing pair (0, 0), so that the model has seen it."""
    autocast: torch.dtype | None
    """Type of mixed precision; None computes in float32."""


class StepResult(NamedTuple):
    """Measurements of one step."""

    losses: Losses
    grad_norm: Tensor
    """Before clipping."""
    routing: tuple[Routing | None, ...]


def train_step(
    model: MOEMAE,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    batch: Batch,
    step: int,
    options: StepOptions,
) -> StepResult:
    """Forward, backward, clip, update.

    The mask, the dropped metadata, the routing noise and the dropout are functions of (seed, role, step).

    Raises:
        TrainingDiverged: naming the loss term, or the gradient norm, that is not finite, and the step. The weights
            are then unchanged.
    """
    device = batch.images.device
    size, patches = len(batch.ids), model.config.num_patches
    noise = torch.rand(size, patches, generator=generator(options.seed, "mask", step))
    masking = random_masking(noise.to(device), model.config.mask_ratio)
    meta = drop_metadata(batch.meta, options.metadata_dropout, options.seed, step)

    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(device.type, dtype=options.autocast, enabled=options.autocast is not None):
        losses, encoded = mae_loss(
            model,
            batch.images,
            meta,
            masking,
            batch.valid,
            options.weights,
            generator=generator(options.seed, "routing noise and dropout", step, device=device),
        )
    scaler.scale(losses.total).backward()
    scaler.unscale_(optimizer)
    grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), options.grad_clip)
    require_finite(losses, grad_norm, step, scaled=scaler.is_enabled() and scaler.get_scale() > SMALLEST_SCALE)
    scaler.step(optimizer)
    scaler.update()
    return StepResult(Losses(*(value.detach() for value in losses)), grad_norm, encoded.routing)


def drop_metadata(meta: Tensor | None, share: float, seed: int, step: int) -> Tensor | None:
    """Metadata (B, 4, 2) with a random share of the patches' rows set to the missing pair (0, 0)."""
    if meta is None or share == 0.0:
        return meta
    keep = torch.rand(meta.shape[0], 1, 1, generator=generator(seed, "metadata dropout", step)) >= share
    return meta * keep.to(meta.device)


def require_finite(losses: Losses, grad_norm: Tensor, step: int, scaled: bool) -> None:
    """Raise `TrainingDiverged` for the first measurement that is not finite.

    With a loss scaler (`scaled`) an infinite gradient norm is ordinary: the scaler leaves that step out.
    """
    terms = [losses.masked, losses.visible, losses.balance, losses.total]
    names = ["masked loss", "visible loss", "balance loss", "total loss"]
    if not scaled:
        terms, names = [*terms, grad_norm], [*names, "gradient norm"]
    for name, value in zip(names, torch.stack(terms).tolist(), strict=True):
        if not math.isfinite(value):
            raise TrainingDiverged(
                f"{name} is {value} at step {step}; the last good checkpoint is untouched. "
                "Lower training.learning_rate, or look at the data of that step"
            )
