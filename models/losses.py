"""The one training loss: reconstruction of masked and visible patches, plus routing balance."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.masking import Masking, patchify
from models.moe import balance_loss, balance_of, expert_importance, expert_load
from models.moe_mae import MOEMAE, Encoded
from models.noise import PassNoise

SMALLEST_WEIGHT = 1e-6
"""In place of a weight of 0, so that a mean over nothing is 0."""


class LossWeights(NamedTuple):
    """total = reconstruction * (masked + visible_weight * visible) + balance_weight * balance (arXiv:2509.10919)."""

    visible: float = 0.1
    balance: float = 0.5
    reconstruction: float = 1.0
    """1 sums squared errors over a patch's values, as published; 1 / (C * p * p) averages them."""

    def total(self, masked: Any, visible: Any, balance: Any) -> Any:
        """The loss of a batch from its terms: numbers or tensors."""
        return self.reconstruction * (masked + self.visible * visible) + self.balance * balance


class Losses(NamedTuple):
    """Scalars of one batch."""

    total: Tensor
    masked: Tensor
    """Squared error summed over a patch's C * p * p values, averaged over masked patches."""
    visible: Tensor
    """The same over visible patches."""
    balance: Tensor
    """Sum of the encoder blocks' balance losses."""


class PatchErrors(NamedTuple):
    """Squared errors of a batch by patch, ready to be averaged over any set of patches."""

    error: Tensor
    """(B, N) squared error summed over the patch's valid values."""
    weight: Tensor
    """(B, N) share of the patch's pixels that are valid, 0 to 1."""

    def mean(self, selected: Tensor) -> Tensor:
        """Average over the patches where (B, N) `selected` is 1; partly valid patches count in part, none gives 0."""
        weight = (self.weight * selected).sum()
        return (self.error * selected).sum() / weight.clamp_min(SMALLEST_WEIGHT)


def patch_errors(predicted: Tensor, images: Tensor, valid: Tensor | None, patch_size: int) -> PatchErrors:
    """Squared error of every patch, with weight 0 on fill pixels.

    Args:
        predicted: (B, N, C * p * p).
        images: (B, C, H, W), normalised.
        valid: (B, H, W), False on fill; None counts every pixel.
    """
    squared = (predicted.float() - patchify(images, patch_size).float()).square()
    if valid is None:
        error = squared.sum(dim=-1)
        return PatchErrors(error, torch.ones_like(error))
    pixels = patchify(valid.unsqueeze(1).to(squared.dtype), patch_size)  # (B, N, p * p)
    channels = squared.shape[-1] // pixels.shape[-1]
    return PatchErrors((squared * pixels.repeat(1, 1, channels)).sum(dim=-1), pixels.mean(dim=-1))


def loss_sums(
    model: MOEMAE,
    images: Tensor,
    meta: Tensor | None,
    masking: Masking,
    valid: Tensor | None = None,
    *,
    noise: bool | None = None,
    generator: torch.Generator | None = None,
    presampled: PassNoise | None = None,
) -> tuple[Tensor, Encoded]:
    """One masked pass, down to sums from which the losses follow, and what the encoder saw.

    The sums of the parts of a batch add up to those of the whole: `losses_of` wants them of the whole. Patches without
    a single valid pixel (fill, or rows that pad a batch) count nowhere.

    Args:
        model: the autoencoder; its config decides the load loss.
        images: (B, C, H, W), normalised.
        meta: (B, F, 2) or None.
        masking: the patches kept.
        valid: (B, H, W), False on fill pixels, which then weigh nothing; None counts every pixel.
        noise, generator, presampled: as for `MOEMAE.forward`.

    Returns:
        (4 + 2 E,) float32: error and weight of the masked patches, of the visible ones, then importance and load of
        every expert of the encoder's blocks (E in all blocks together; those of a block with one expert are left out).
    """
    predicted, encoded = model(images, meta, masking, noise=noise, generator=generator, presampled=presampled)
    errors = patch_errors(predicted, images, valid, model.config.patch_size)
    reconstruction = [
        (values * selected).sum()
        for selected in (masking.mask, 1.0 - masking.mask)
        for values in (errors.error, errors.weight)
    ]
    counted = None if valid is None else counted_tokens(valid, encoded.tokens.shape[1])
    routings = [routing for routing in encoded.routing if routing is not None]
    importance = [expert_importance(routing, counted) for routing in routings]
    load = [expert_load(routing, model.config.published_load, counted) for routing in routings]
    return torch.cat([torch.stack(reconstruction), *importance, *load]), encoded


def counted_tokens(valid: Tensor, tokens: int) -> Tensor:
    """(B, H, W) valid pixels to (B * tokens,) float32: 1 for the tokens of a patch with a valid pixel, else 0."""
    return valid.flatten(1).any(dim=1).float().repeat_interleave(tokens, output_size=valid.shape[0] * tokens)


def losses_of(sums: Tensor, experts: tuple[int, ...], weights: LossWeights) -> Losses:
    """The losses of a batch from its `loss_sums`.

    Args:
        sums: (4 + 2 E,).
        experts: of every encoder block, as in `ModelConfig`.
        weights: of the visible and the balance term.
    """
    routed = [count for count in experts if count > 1]
    masked_error, masked_weight, visible_error, visible_weight = sums[:4].unbind()
    masked = masked_error / masked_weight.clamp_min(SMALLEST_WEIGHT)
    visible = visible_error / visible_weight.clamp_min(SMALLEST_WEIGHT)
    importance, load = (part.split(routed) for part in sums[4:].chunk(2))
    balance = sum(map(balance_of, importance, load), start=sums.new_zeros(()))
    return Losses(weights.total(masked, visible, balance), masked, visible, balance)


def total_balance(encoded: Encoded, published_load: bool) -> Tensor:
    """Sum of `balance_loss` over the encoder's blocks (the decoder's are not used); 0 without experts."""
    losses = [balance_loss(routing, published_load) for routing in encoded.routing if routing is not None]
    return torch.stack(losses).sum() if losses else encoded.tokens.new_zeros(())


def mae_loss(
    model: MOEMAE,
    images: Tensor,
    meta: Tensor | None,
    masking: Masking,
    valid: Tensor | None = None,
    weights: LossWeights = LossWeights(),  # noqa: B008 - immutable
    *,
    noise: bool | None = None,
    generator: torch.Generator | None = None,
    presampled: PassNoise | None = None,
) -> tuple[Losses, Encoded]:
    """Losses of one masked pass and what the encoder saw; arguments as for `loss_sums` and `losses_of`."""
    sums, encoded = loss_sums(
        model, images, meta, masking, valid, noise=noise, generator=generator, presampled=presampled
    )
    return losses_of(sums, model.config.experts, weights), encoded
