"""What the inference code needs of a model: this module knows the model's form, not its class, which stands above."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from models.config import ModelConfig
from models.encoder import Encoder
from models.moe import Routing


class EncodedTokens(Protocol):
    """What `encode` returns, as far as it is used here."""

    @property
    def pre_norm(self) -> Tensor:
        """(B, P + N, D) tokens that are read out, before any norm."""
        ...

    @property
    def num_prefix(self) -> int:
        """P, tokens before those of the patches."""
        ...

    @property
    def routing(self) -> Sequence[Routing | None]:
        """Of every block."""
        ...

    @property
    def visible(self) -> Tensor | None:
        """(B, N) bool, patches that were seen; None means all."""
        ...


class PatchEncoder(Protocol):
    """An encoder of patches: `models.moe_mae.MOEMAE` is one."""

    config: ModelConfig
    encoder: Encoder
    training: bool

    def encode(
        self,
        images: Tensor,
        meta: Tensor | None = None,
        *,
        visible: Tensor | None = None,
        bands: Tensor | None = None,
        noise: bool | None = None,
        to_read: bool = False,
    ) -> EncodedTokens:
        """(B, C, H, W) normalised patches, (B, F, 2) metadata, (B, N) `visible` and (B, C) `bands` to tokens."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def train(self, mode: bool = True) -> Any: ...

    def eval(self) -> Any: ...
