"""The encoder under a head: as it is, with adapters, or all of it trained."""

import copy
from typing import Any

from torch import Tensor, nn

from configs.finetuning import EncoderSection
from finetuning.lora import Adapters, merged, with_adapters
from models.masking import visible_unless_all
from models.moe_mae import MOEMAE


class TrainedEncoder:
    """A pretrained model, and what of it is trained.

    Attributes:
        base: with the pretrained weights, or, in mode "whole", the trained ones.
        model: what tokens are computed by, in training.
        trained: the parameters that learn; none where it is frozen.

    Args:
        base: on its device.
        section: mode and rank.
        seed: of the adapters.
    """

    def __init__(self, base: MOEMAE, section: EncoderSection, seed: int) -> None:
        self.mode, self.base = section.mode, base.eval().requires_grad_(False)
        self.trained: nn.Module = nn.Module()
        if self.mode == "lora":
            self.model, self.trained = with_adapters(base, section.rank, section.alpha, seed)
        elif self.mode == "whole":
            self.model = self.base = copy.deepcopy(base)
            self.trained = self.model.encoder.requires_grad_(True)
        else:
            self.model = base
        self.model.eval()

    @property
    def frozen(self) -> bool:
        """Whether tokens stay what they are."""
        return self.mode == "frozen"

    def tokens(
        self, images: Tensor, meta: Tensor | None, valid: Tensor, bands: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """(B, P + N, D) tokens before the final norm, with their gradient, and (B, N) which patches were seen.

        Args:
            images: (B, C, H, W), normalised.
            meta: (B, F, 2); None: missing.
            valid: (B, H, W) bool, pixels that can be seen.
            bands: (B, C) bool, bands that are given; None: all.
        """
        visible = visible_unless_all(valid, self.model.config.patch_size)
        encoded = self.model.encode(images, meta, visible=visible, noise=False, bands=bands, to_read=True)
        return encoded.pre_norm, visible

    def for_use(self) -> MOEMAE:
        """A plain model that gives the tokens as they are now."""
        return merged(self.model) if isinstance(self.trained, Adapters) else self.model

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the base's weights."""
        return self.trained.state_dict() if self.mode == "lora" else {}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`; the base's weights are those that the checkpoint was built with."""
        if self.mode == "lora":
            self.trained.load_state_dict(state)


def grid_of(tokens: Tensor, num_prefix: int) -> Tensor:
    """(B, P + N, D) tokens of whole windows to (B, D, side, side)."""
    patches = tokens[:, num_prefix:]
    side = round(patches.shape[1] ** 0.5)
    return patches.transpose(1, 2).unflatten(2, (side, side))
