"""The one training loss: reconstruction of masked and visible patches, plus routing balance."""

from typing import NamedTuple

import torch
from torch import Tensor

from models.masking import Masking, patchify
from models.moe import balance_loss
from models.moe_mae import MOEMAE, Encoded


class LossWeights(NamedTuple):
    """total = masked + visible_weight * visible + balance_weight * balance (arXiv:2509.10919)."""

    visible: float = 0.1
    balance: float = 0.5


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
        return (self.error * selected).sum() / weight.clamp_min(1e-6)


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


def total_balance(encoded: Encoded, published_behaviour: bool) -> Tensor:
    """Sum of `balance_loss` over the encoder's blocks (the decoder's are not used); 0 without experts."""
    losses = [balance_loss(routing, published_behaviour) for routing in encoded.routing if routing is not None]
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
) -> tuple[Losses, Encoded]:
    """Losses of one masked pass and what the encoder saw.

    Args:
        model: the autoencoder; its config decides the load loss.
        images: (B, C, H, W), normalised.
        meta: (B, 4, 2) or None.
        masking: the patches kept.
        valid: (B, H, W), False on fill pixels, which then weigh nothing; None counts every pixel.
        weights: of the visible and the balance term.
        noise, generator: as for `MOEMAE.encode`.
    """
    predicted, encoded = model(images, meta, masking, noise=noise, generator=generator)
    errors = patch_errors(predicted, images, valid, model.config.patch_size)
    masked, visible = errors.mean(masking.mask), errors.mean(1.0 - masking.mask)
    balance = total_balance(encoded, model.config.published_behaviour)
    total = masked + weights.visible * visible + weights.balance * balance
    return Losses(total, masked, visible, balance), encoded
