"""The loss: reconstruction of masked and visible patches, plus routing balance.

There is one way to it: `masked_pass` measures errors and sums, `losses_of` makes losses of sums. Training puts the sums
of several processes together in between; `mae_loss` is both in one, for a batch that is whole.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.encoder import Encoded
from models.masking import Masking, patchify
from models.moe import balance_of, expert_importance, expert_load
from models.moe_mae import MOEMAE
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

    def sums(self, selected: Tensor) -> tuple[Tensor, Tensor]:
        """Error and weight of the patches where (B, N) `selected` is 1, added up."""
        return (self.error * selected).sum(), (self.weight * selected).sum()

    def mean(self, selected: Tensor) -> Tensor:
        """Average over the patches where (B, N) `selected` is 1; partly valid patches count in part, none gives 0."""
        return mean_error(*self.sums(selected))


def mean_error(error: Tensor, weight: Tensor) -> Tensor:
    """Error per patch from the sums of `PatchErrors`; 0 where no patch counts."""
    return error / weight.clamp_min(SMALLEST_WEIGHT)


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


class MaskedPass(NamedTuple):
    """One pass of the masked autoencoder over a batch, and all that its losses follow from."""

    predicted: Tensor
    """(B, N, C * p * p)."""
    encoded: Encoded
    """Of the visible patches."""
    decoded: Tensor
    """(B, N, decoder_dim) the decoder's tokens, from which the patches are predicted."""
    errors: PatchErrors
    """Of every patch, masked or visible."""
    sums: Tensor
    """(4 + 2 E,) float32: error and weight of the masked patches, of the visible ones, then importance and load of
    every expert of the encoder's blocks (E in all blocks together; those of a block with one expert are left out).
    The sums of the parts of a batch add up to those of the whole; `losses_of` wants them of the whole."""


def masked_pass(
    model: MOEMAE,
    images: Tensor,
    meta: Tensor | None,
    masking: Masking,
    valid: Tensor | None = None,
    *,
    noise: bool | None = None,
    generator: torch.Generator | None = None,
    presampled: PassNoise | None = None,
    bands: Tensor | None = None,
) -> MaskedPass:
    """The way to every loss: predict a masked batch and measure the errors.

    Patches without a single valid pixel (fill, or rows that pad a batch) count nowhere.

    Args:
        model: the autoencoder; its config decides the load loss.
        images: (B, C, H, W), normalised.
        meta: (B, F, 2) or None.
        masking: the patches kept.
        valid: (B, H, W), False on fill pixels, which then weigh nothing; None counts every pixel.
        noise, generator, presampled: as for `MOEMAE.forward`.
        bands: (B, C) bool, those that the encoder is given; all are to be predicted. None: all.
    """
    decoded, encoded = model.encode_and_decode(
        images, meta, masking, bands=bands, noise=noise, generator=generator, presampled=presampled
    )
    predicted = model.predict(decoded, images.shape[1])
    errors = patch_errors(predicted, images, valid, model.config.patch_size)
    counted = None if valid is None else counted_tokens(valid, encoded)
    routings = [routing for routing in encoded.routing if routing is not None]
    reconstruction = torch.stack([*errors.sums(masking.mask), *errors.sums(1.0 - masking.mask)])
    importance = [expert_importance(routing, counted) for routing in routings]
    load = [expert_load(routing, model.config.published_load, counted) for routing in routings]
    return MaskedPass(predicted, encoded, decoded, errors, torch.cat([reconstruction, *importance, *load]))


def with_error_times(sums: Tensor, factor: float) -> Tensor:
    """The sums of `MaskedPass` with errors of masked and visible patches that count `factor` times."""
    return torch.cat([sums[:4] * sums.new_tensor([factor, 1.0, factor, 1.0]), sums[4:]])


def counted_tokens(valid: Tensor, encoded: Encoded) -> Tensor:
    """Which tokens count, (B * S,) float32: 1 for those that the encoder saw of an image with a valid pixel, else 0.

    Args:
        valid: (B, H, W), False on fill pixels.
        encoded: (B, S, D) tokens.
    """
    images, tokens = encoded.tokens.shape[:2]
    counted = valid.flatten(1).any(dim=1).float().repeat_interleave(tokens, output_size=images * tokens)
    if encoded.visible is None:
        return counted
    return counted * F.pad(encoded.visible.float(), (encoded.num_prefix, 0), value=1.0).flatten()


def losses_of(sums: Tensor, experts: tuple[int, ...], weights: LossWeights) -> Losses:
    """The losses of a batch from its sums.

    Args:
        sums: (4 + 2 E,), of `MaskedPass`.
        experts: of every encoder block, as in `ModelConfig`.
        weights: of the visible and the balance term.
    """
    routed = [count for count in experts if count > 1]
    masked, visible = mean_error(sums[0], sums[1]), mean_error(sums[2], sums[3])
    importance, load = (part.split(routed) for part in sums[4:].chunk(2))
    balance = sum(map(balance_of, importance, load), start=sums.new_zeros(()))
    return Losses(weights.total(masked, visible, balance), masked, visible, balance)


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
    bands: Tensor | None = None,
) -> tuple[Losses, MaskedPass]:
    """The losses of a batch that is whole, and its pass; arguments as for `masked_pass` and `losses_of`."""
    random = {"noise": noise, "generator": generator}
    passed = masked_pass(model, images, meta, masking, valid, presampled=presampled, bands=bands, **random)
    return losses_of(passed.sums, model.config.experts, weights), passed
