"""The encoder of `models.moe_mae`: images and metadata to tokens, and the block that the decoder is made of, too.

Dimensions: B batch, N patches, n patches kept, F metadata fields (4 as published), P = F + 1 tokens before the
patches, S = P + n tokens, D width, C bands, p patch side.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import GroupedQueryAttention
from models.config import ModelConfig
from models.kernels.backend import Backend, backend_for
from models.masking import patchify
from models.moe import NO_NOISE, Routing, moe_layer
from models.noise import LayerNoise
from models.positions import start_positions, truncated_normal
from models.second_sensor import second_projection


class Encoded(NamedTuple):
    """What the encoder made of a batch."""

    tokens: Tensor
    """(B, P + n, D) after the final norm."""
    pre_norm: Tensor
    """(B, P + n, D) after the block that is read out, before any norm: of the last block, the published embeddings."""
    routing: tuple[Routing | None, ...]
    """One per block computed, over B * (P + n) tokens; None for a block with one expert."""
    num_prefix: int
    """P, tokens before the patches: metadata, then CLS."""
    visible: Tensor | None = None
    """(B, n) bool, False for tokens that only fill up the shape and count nowhere; None: all n count."""

    @property
    def meta(self) -> Tensor:
        """(B, F, D)"""
        return self.tokens[:, : self.num_prefix - 1]

    @property
    def cls(self) -> Tensor:
        """(B, D)"""
        return self.tokens[:, self.num_prefix - 1]

    @property
    def patches(self) -> Tensor:
        """(B, n, D)"""
        return self.tokens[:, self.num_prefix :]


class Block(nn.Module):
    """x + GQA(LN(x)), then x + MoE(LN(x))."""

    def __init__(self, dim: int, num_heads: int, num_groups: int, width: int, experts: int, k: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = GroupedQueryAttention(dim, num_heads, num_groups)
        self.norm2 = nn.LayerNorm(dim)
        self.moe = moe_layer(dim, width, experts, k)

    def forward(
        self,
        x: Tensor,
        noise: LayerNoise = NO_NOISE,
        backend: Backend | None = None,
        hidden: Tensor | None = None,
    ) -> tuple[Tensor, Routing | None]:
        """(B, S, D) to (B, S, D) and the block's routing; tokens where (B, S) `hidden` is 1 influence no other."""
        x = x + self.attn(self.norm1(x), backend, hidden)
        update, routing = self.moe(self.norm2(x), noise, backend)
        return x + update, routing


class Encoder(nn.Module):
    """Pixels and metadata to tokens."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D, p = config.embed_dim, config.patch_size
        self.patch_proj = nn.Conv2d(config.in_channels, D, kernel_size=p, stride=p)
        self.meta_fields, self.num_prefix = config.meta_fields, config.num_prefix
        for name in self.meta_fields:  # published names: week_proj, hour_proj, lat_proj, lon_proj
            self.add_module(f"{name}_proj", nn.Linear(2, D))
        self.cls_token = nn.Parameter(torch.empty(1, 1, D))
        self.pos_embed = nn.Parameter(torch.empty(1, config.num_tokens, D))
        self.layers = nn.ModuleList(
            Block(D, config.num_heads, config.num_groups, width, experts, config.k)
            for width, experts in zip(config.expert_widths, config.experts, strict=True)
        )
        self.norm = nn.LayerNorm(D)
        self.blocks_read = config.blocks_read
        # These start at 0, so that all other weights start as they do without them.
        with_token = config.missing_metadata == "token"
        self.missing_metadata = nn.Parameter(torch.zeros(len(self.meta_fields), D)) if with_token else None
        self.bands_as = config.missing_bands
        with_vectors = config.missing_bands == "token"
        self.missing_bands = nn.Parameter(torch.zeros(config.in_channels, D)) if with_vectors else None
        truncated_normal(self.cls_token, 0.02)
        start_positions(self.pos_embed, config)
        with torch.random.fork_rng(devices=[]):  # what it draws is replaced, and all other weights start as without it
            self.patch_proj_msi = second_projection(config)

    def projection(self, bands: int) -> nn.Conv2d:
        """Of the patches of the sensor with so many bands."""
        second = self.patch_proj_msi
        return self.patch_proj if second is None or bands != second.in_channels else second

    def embed(
        self,
        images: Tensor,
        meta: Tensor,
        ids_keep: Tensor | None,
        backend: Backend | None = None,
        visible: Tensor | None = None,
        bands: Tensor | None = None,
    ) -> Tensor:
        """Tokens with their positions, kept patches only: (B, P + n, D). Patches that are not visible are zeros."""
        if bands is not None:
            images = self.of_bands(images, bands)
        pixels = patchify(images, self.patch_proj.kernel_size[0])  # (B, N, C * p * p)
        positions = self.pos_embed[0, self.num_prefix :]
        if ids_keep is not None:
            pixels = pixels.gather(1, ids_keep.unsqueeze(-1).expand(-1, -1, pixels.shape[-1]))
            positions = F.embedding(ids_keep, positions)
        if visible is not None:  # chosen, not multiplied: NaN times 0 is NaN
            pixels = torch.where(visible.unsqueeze(-1), pixels, 0.0)
        # The convolution, whose stride is its kernel, as a matrix product: only of what is kept.
        backend = backend or backend_for(images.device)
        projection = self.projection(images.shape[1])
        patches = backend.linear(pixels, projection.weight.flatten(1), projection.bias) + positions
        if bands is not None and self.missing_bands is not None:
            missing = (~bands).to(patches.dtype)
            patches = patches + (missing @ self.missing_bands.to(patches.dtype)).unsqueeze(1)
        prefix = [self.get_submodule(f"{name}_proj")(meta[:, i]) for i, name in enumerate(self.meta_fields)]
        if self.missing_metadata is not None:
            missing = (meta == 0.0).all(dim=-1, keepdim=True)  # (B, F, 1): no angle has the pair (0, 0)
            learned = self.missing_metadata
            prefix = [torch.where(missing[:, i], learned[i], token) for i, token in enumerate(prefix)]
        prefix = torch.stack([*prefix, self.cls_token[:, 0].expand(images.shape[0], -1)], dim=1)
        return torch.cat([prefix + self.pos_embed[:, : self.num_prefix], patches], dim=1)

    def of_bands(self, images: Tensor, bands: Tensor) -> Tensor:
        """Images (B, C, H, W) as the patch projection takes them where only (B, C) `bands` are given.

        0 leaves out a band's part of the kernel. Except for "mean", the others are multiplied by C over their number,
        which is as good as multiplying their parts of the kernel.
        """
        images = torch.where(bands[:, :, None, None], images, 0.0)  # chosen, not multiplied: NaN times 0 is NaN
        if self.bands_as == "mean":
            return images
        present = bands.sum(dim=1).clamp_min(1)
        return images * (bands.shape[1] / present).to(images.dtype)[:, None, None, None]

    def forward(
        self,
        images: Tensor,
        meta: Tensor,
        ids_keep: Tensor | None,
        noise: tuple[LayerNoise, ...],
        backend: Backend | None = None,
        visible: Tensor | None = None,
        bands: Tensor | None = None,
        to_read: bool = False,
    ) -> Encoded:
        """See `MOEMAE.encode`; `backend` says which kernels, None takes the fastest."""
        backend = backend or backend_for(images.device)
        if visible is not None and ids_keep is not None:
            visible = visible.gather(1, ids_keep)
        x = self.embed(images, meta, ids_keep, backend, visible, bands)
        hidden = self.hidden_tokens(visible)
        routing, read = [], x
        for place, (layer, layer_noise) in enumerate(zip(self.layers, noise, strict=True), 1):
            x, layer_routing = layer(x, layer_noise, backend, hidden)
            routing.append(layer_routing)
            if place == self.blocks_read:
                read = x
                if to_read:
                    break
        return Encoded(self.norm(x), read, tuple(routing), self.num_prefix, visible)

    def hidden_tokens(self, visible: Tensor | None) -> Tensor | None:
        """What blocks take as `hidden`, (B, P + n), from (B, n) visible patches: the tokens before them are seen."""
        if visible is None:
            return None
        hidden = (~visible).float()
        return torch.cat([torch.zeros_like(hidden[:, :1]).expand(-1, self.num_prefix), hidden], dim=1)
