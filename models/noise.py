"""Pre-sampled routing noise and dropout masks of every MoE layer.

They are inputs of the forward pass, so that an eager, a compiled and a captured pass compute with the same ones, and so
that several processes that share a batch each take their slice of one sample.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from models.config import ModelConfig
from models.masking import MaskingConfig, kept_patches

_LEVELS = 1 << 16
"""Dropout rates are rounded to this fraction."""


class LayerNoise(NamedTuple):
    """Routing noise and dropout mask of one MoE layer for T tokens."""

    normal: Tensor | None = None
    """(T, E) standard normal numbers of the routing noise; None leaves it off."""
    keep: Tensor | None = None
    """(T, D) dropout's factors, 0 or 1 / (1 - rate); None leaves it off."""


class PassNoise(NamedTuple):
    """Routing noise and dropout masks of one pass of the autoencoder."""

    encoder: tuple[LayerNoise, ...]
    decoder: tuple[LayerNoise, ...]


class LayerNoiseBuffers:
    """Two flat buffers, of routing noise and of dropout masks, for a stack of layers, and views of them by layer.

    Args:
        experts: number of experts of each layer; a layer with one has no routing noise.
        dim: width of the tokens.
        batch: patches B of the whole (global) batch.
        tokens: tokens S of a patch.
        device: where the numbers are.
        noise: whether there is routing noise.
        dropout: rate of dropout; 0 is none.
        rows: the part of the batch that this process computes; None is all of it. All numbers are sampled in either
            case, so that they do not depend on the number of processes.
    """

    def __init__(
        self,
        experts: Sequence[int],
        dim: int,
        batch: int,
        tokens: int,
        device: torch.device | str,
        *,
        noise: bool,
        dropout: float,
        rows: slice | None = None,
    ) -> None:
        self.dropout = dropout
        routed = [count if noise and count > 1 else 0 for count in experts]
        self.normal = torch.empty(batch * tokens * sum(routed), device=device)
        dropped = len(experts) if dropout > 0.0 else 0
        self.keep = torch.empty(batch * tokens * dim * dropped, device=device)
        self._bits = torch.empty(-(-self.keep.numel() // 4), dtype=torch.int64, device=device)

        def part(flat: Tensor, width: int) -> Tensor:
            return flat.view(batch, tokens, width)[rows or slice(None)].reshape(-1, width)

        normals = self.normal.split([batch * tokens * count for count in routed])
        keeps = self.keep.chunk(dropped) if dropped else [None] * len(experts)
        self.layers = tuple(
            LayerNoise(part(normal, count) if count else None, None if keep is None else part(keep, dim))
            for count, normal, keep in zip(routed, normals, keeps, strict=True)
        )

    def fill(self, generator: torch.Generator | None) -> tuple[LayerNoise, ...]:
        """Sample again, in place; None is torch's default generator."""
        if self.normal.numel():
            self.normal.normal_(generator=generator)
        if self.keep.numel():
            # Four 16-bit numbers from every 64-bit one: a quarter of the work of sampling them one by one.
            self._bits.random_(-(1 << 63), None, generator=generator)
            dropped = min(round(self.dropout * _LEVELS), _LEVELS - 1)
            torch.ge(self._bits.view(torch.int16)[: self.keep.numel()], dropped - _LEVELS // 2, out=self.keep)
            self.keep.mul_(_LEVELS / (_LEVELS - dropped))
        return self.layers


class NoiseBuffers:
    """Routing noise and dropout masks of a training step, refilled in place from step to step.

    Args:
        config: of the model.
        masking: how many patches the encoder sees follows from it.
        batch: patches of the global batch.
        device: where the numbers are.
        rows: the part of the batch that this process computes.
    """

    def __init__(
        self,
        config: ModelConfig,
        masking: MaskingConfig,
        batch: int,
        device: torch.device,
        rows: slice | None = None,
    ) -> None:
        kept = kept_patches(config.num_patches, masking.ratio)
        self._encoder = LayerNoiseBuffers(
            config.experts,
            config.embed_dim,
            batch,
            config.num_prefix + kept,
            device,
            noise=True,
            dropout=config.dropout,
            rows=rows,
        )
        self._decoder = LayerNoiseBuffers(
            (config.decoder_experts,) * config.decoder_depth,
            config.decoder_dim,
            batch,
            config.num_tokens,
            device,
            noise=True,
            dropout=config.dropout,
            rows=rows,
        )
        self.noise = PassNoise(self._encoder.layers, self._decoder.layers)
        self._patches = len(range(batch)[rows or slice(None)])

    def fill(self, generator: torch.Generator) -> PassNoise:
        """Sample again, in place."""
        self._encoder.fill(generator)
        self._decoder.fill(generator)
        return self.noise

    def first(self, patches: int) -> PassNoise:
        """Those of the first patches only, for a batch that is not full."""
        if patches == self._patches:
            return self.noise

        def cut(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[: len(values) // self._patches * patches]

        return PassNoise(*(tuple(LayerNoise(*map(cut, layer)) for layer in layers) for layers in self.noise))
