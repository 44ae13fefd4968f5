"""What a training step differentiates, as one module: the part that is compiled, and wrapped for several processes."""

import torch
from torch import Tensor, nn

from models.encoder import Encoded
from models.losses import counted_tokens, masked_pass, with_error_times
from models.masking import make_masking
from models.moe_mae import MOEMAE
from models.noise import LayerNoise, PassNoise
from models.target import Examples, TrainingPass
from models.targets import Targets
from utils.compilation import EAGER, Compilation


class Objective(nn.Module):
    """From a batch and its random numbers to the sums that the losses follow from. Nothing in it waits for the host.

    Args:
        model: the autoencoder.
        autocast: type of mixed precision; None computes in float32.
        compilation: whether to compile; needs batches of one shape.
        targets: what is predicted beside the pixels; None for nothing.
    """

    def __init__(
        self,
        model: MOEMAE,
        autocast: torch.dtype | None,
        compilation: Compilation = EAGER,
        targets: Targets | None = None,
    ) -> None:
        super().__init__()
        self.model, self.targets = model, targets
        self.autocast = autocast
        self._compute = compilation.of(self._sums)

    def forward(
        self,
        images: Tensor,
        meta: Tensor | None,
        valid: Tensor,
        visible: Tensor | None,
        mask_noise: Tensor,
        presampled: PassNoise,
        known: Tensor | None = None,
        bands: Tensor | None = None,
        second_mask: Tensor | None = None,
        second_noise: tuple[LayerNoise, ...] = (),
    ) -> tuple[Tensor, Tensor]:
        """One masked pass.

        Args:
            images: (B, C, H, W), normalised.
            meta: (B, F, 2) or None: what the encoder is given.
            valid: (B, H, W) bool.
            visible: (B, N) bool, patches among which the mask is drawn; None means all.
            mask_noise: (B, N) uniform numbers that decide the mask.
            presampled: routing noise and dropout masks.
            known: (B, F, 2) or None: the metadata before any of them were masked, for the targets.
            bands: (B, C) bool, the bands that the encoder is given; None: all.
            second_mask, second_noise: as `mask_noise`, and as the encoder's part of `presampled`, for a second view.

        Returns:
            The sums of `MaskedPass`, (4 + 2 E,), with those of T targets behind them, (2 T,), and how many tokens chose
            each of the encoder's E experts, (E,) float32.
        """
        seconds = (second_mask, second_noise)
        return self._compute(images, meta, valid, visible, mask_noise, presampled, known, bands, *seconds)

    def _sums(
        self,
        images: Tensor,
        meta: Tensor | None,
        valid: Tensor,
        visible: Tensor | None,
        mask_noise: Tensor,
        presampled: PassNoise,
        known: Tensor | None,
        bands: Tensor | None,
        second_mask: Tensor | None,
        second_noise: tuple[LayerNoise, ...],
    ) -> tuple[Tensor, Tensor]:
        masking = make_masking(mask_noise, self.model.masking, visible)
        # Within a captured graph a cache of cast weights would go stale.
        with torch.autocast(
            images.device.type, dtype=self.autocast, enabled=self.autocast is not None, cache_enabled=False
        ):
            passed = masked_pass(self.model, images, meta, masking, valid, presampled=presampled, bands=bands)
            sums, encoded, first = passed.sums, passed.encoded, self.model.config.in_channels
            if images.shape[1] != first:  # a patch of the second sensor counts as much as one of the first
                sums = with_error_times(sums, first / images.shape[1])
            if self.targets is not None:
                second = None
                if second_mask is not None:
                    second = self._second(images, second_mask, second_noise, visible, bands)
                seen = TrainingPass(Examples(images, valid, known), meta, encoded, passed.decoded, second)
                sums = torch.cat([sums, self.targets(seen)])
        counted = counted_tokens(valid, encoded).unsqueeze(-1)
        chosen = [((routing.gates > 0) * counted).sum(dim=0) for routing in encoded.routing if routing is not None]
        return sums, torch.cat(chosen) if chosen else sums[:0].detach()

    def _second(
        self,
        images: Tensor,
        mask_noise: Tensor,
        presampled: tuple[LayerNoise, ...],
        visible: Tensor | None,
        bands: Tensor | None,
    ) -> Encoded:
        """Other patches of the same images, without metadata."""
        masking = make_masking(mask_noise, self.model.masking, visible)
        return self.model.encode(
            images, None, masking.ids_keep, visible=masking.visible, bands=bands, presampled=presampled
        )
