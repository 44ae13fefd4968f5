"""What a training step differentiates, as one module: the part that is compiled, and wrapped for several processes."""

import torch
from torch import Tensor, nn

from models.losses import counted_tokens, masked_pass
from models.masking import make_masking
from models.moe_mae import MOEMAE
from models.noise import PassNoise
from utils.compilation import EAGER, Compilation


class Objective(nn.Module):
    """From a batch and its random numbers to the sums that the losses follow from. Nothing in it waits for the host.

    Args:
        model: the autoencoder.
        autocast: type of mixed precision; None computes in float32.
        compilation: whether to compile; needs batches of one shape.
    """

    def __init__(self, model: MOEMAE, autocast: torch.dtype | None, compilation: Compilation = EAGER) -> None:
        super().__init__()
        self.model = model
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
    ) -> tuple[Tensor, Tensor]:
        """One masked pass.

        Args:
            images: (B, C, H, W), normalised.
            meta: (B, F, 2) or None.
            valid: (B, H, W) bool.
            visible: (B, N) bool, patches among which the mask is drawn; None means all.
            mask_noise: (B, N) uniform numbers that decide the mask.
            presampled: routing noise and dropout masks.

        Returns:
            The sums of `MaskedPass`, (4 + 2 E,), and how many tokens chose each of the encoder's E experts, (E,)
            float32.
        """
        return self._compute(images, meta, valid, visible, mask_noise, presampled)

    def _sums(
        self,
        images: Tensor,
        meta: Tensor | None,
        valid: Tensor,
        visible: Tensor | None,
        mask_noise: Tensor,
        presampled: PassNoise,
    ) -> tuple[Tensor, Tensor]:
        masking = make_masking(mask_noise, self.model.masking, visible)
        # Within a captured graph a cache of cast weights would go stale.
        with torch.autocast(
            images.device.type, dtype=self.autocast, enabled=self.autocast is not None, cache_enabled=False
        ):
            passed = masked_pass(self.model, images, meta, masking, valid, presampled=presampled)
        encoded = passed.encoded
        counted = counted_tokens(valid, encoded).unsqueeze(-1)
        chosen = [((routing.gates > 0) * counted).sum(dim=0) for routing in encoded.routing if routing is not None]
        return passed.sums, torch.cat(chosen) if chosen else passed.sums[:0].detach()
