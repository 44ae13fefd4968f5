"""The same model computed the way the published code computes it: what the timings are compared with.

Written for its cost, which is the published code's, and tested for its results, which are this project's: every expert
is a module of its own that is handed the tokens that chose it, the host looks at the routing twice per expert, keys
and values are repeated for every query head, and the attention matrix is written out. Entries of the state dict have
the published names, so `models.published_layout.to_published` gives it this project's weights. `published_behaviour` is
always on, and the routing noise does not stop in evaluation.

Dimensions: B batch, S sequence, T = B * S tokens, N patches, n patches kept, D width, E experts, k chosen, H query
heads, G key/value groups, d head width.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import ModelConfig
from utils.metadata import PUBLISHED_FIELDS

PREFIX = len(PUBLISHED_FIELDS) + 1
"""Metadata tokens and CLS."""

BALANCE_TERM = 0.01
VISIBLE_WEIGHT = 0.1
BALANCE_WEIGHT = 0.5
MASK_RATIO = 0.75
"""The loss is masked + 0.1 visible + 0.5 (sum over blocks of 0.01 CV(importance) + 0.01 CV(load))."""


class Expert(nn.Module):
    """One SwiGLU expert with a W of its own; V and W2 are modules that all experts of a layer point to."""

    def __init__(self, dim: int, width: int, V: nn.Linear, W2: nn.Linear, dropout: float) -> None:
        super().__init__()
        self.W, self.V, self.W2 = nn.Linear(dim, width), V, W2
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(tokens, D) to (tokens, D)."""
        return self.dropout(self.W2(F.silu(self.W(x)) * self.V(x)))


class Gate(nn.Module):
    """Noisy top-k gate with its balance loss."""

    def __init__(self, dim: int, experts: int, k: int, noise: bool) -> None:
        super().__init__()
        self.k, self.noise = k, noise
        self.Wg, self.Wnoise = nn.Linear(dim, experts), nn.Linear(dim, experts)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(T, D) tokens to gates (T, E), chosen experts (T, k) and the balance loss (scalar)."""
        clean = self.Wg(x).float()
        std = F.softplus(self.Wnoise(x).float())
        noisy = clean + torch.randn_like(clean) * std if self.noise else clean
        top, order = torch.topk(noisy, self.k + 1, dim=-1)
        chosen = order[:, : self.k]
        gates = torch.zeros_like(noisy).scatter(-1, chosen, torch.softmax(top[:, : self.k], dim=-1))
        # The published thresholds: a chosen expert is compared with the k-th logit, another with the (k + 1)-th.
        threshold = torch.where(gates > 0, top[:, self.k - 1, None], top[:, self.k, None])
        normal = torch.distributions.Normal(clean.new_zeros(()), clean.new_ones(()), validate_args=False)
        load = normal.cdf((clean - threshold) / std).sum(0)
        return gates, chosen, BALANCE_TERM * (variation(gates.sum(0)) + variation(load))


def variation(x: Tensor) -> Tensor:
    """Population standard deviation over mean."""
    return x.std(unbiased=False) / (x.mean() + 1e-6)


class MixtureOfExperts(nn.Module):
    """Each expert in turn is given the tokens that chose it, and its outputs are scattered back."""

    def __init__(self, dim: int, width: int, experts: int, k: int, dropout: float, noise: bool) -> None:
        super().__init__()
        V, W2 = nn.Linear(dim, width), nn.Linear(width, dim)
        self.experts = nn.ModuleList(Expert(dim, width, V, W2, dropout) for _ in range(experts))
        self.gate = Gate(dim, experts, k, noise)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, D) to (B, S, D) and the balance loss."""
        tokens = x.reshape(-1, x.shape[-1])
        gates, chosen, balance = self.gate(tokens)
        out = torch.zeros_like(tokens)
        for index, expert in enumerate(self.experts):
            mask = (chosen == index).any(dim=-1)
            if mask.any():  # the host waits here for the device
                (rows,) = torch.where(mask)  # and here
                weighted = expert(tokens[rows]) * gates[rows, index].unsqueeze(-1)
                out = out.index_add(0, rows, weighted.to(out.dtype))
        return out.view_as(x), balance


class Attention(nn.Module):
    """Grouped-query attention, written out; query head h reads group h mod G."""

    def __init__(self, dim: int, heads: int, groups: int) -> None:
        super().__init__()
        self.heads, self.groups, self.width = heads, groups, dim // heads
        self.q_proj, self.out_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.k_proj, self.v_proj = (nn.Linear(dim, groups * self.width) for _ in "kv")

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, D) to (B, S, D)."""
        B, S, D = x.shape
        q = self.q_proj(x).view(B, S, self.heads, self.width).transpose(1, 2)  # (B, H, S, d)
        k = self.k_proj(x).view(B, S, self.groups, self.width).transpose(1, 2)  # (B, G, S, d)
        v = self.v_proj(x).view(B, S, self.groups, self.width).transpose(1, 2)
        copies = (1, self.heads // self.groups, 1, 1)
        k, v = k.repeat(copies), v.repeat(copies)  # (B, H, S, d)
        scores = q @ k.transpose(-2, -1) / math.sqrt(self.width)  # (B, H, S, S)
        out = torch.softmax(scores, dim=-1) @ v
        return self.out_proj(out.transpose(1, 2).reshape(B, S, D))


class Block(nn.Module):
    """x + attention(norm(x)), then x + experts(norm(x))."""

    def __init__(
        self, dim: int, heads: int, groups: int, width: int, experts: int, k: int, dropout: float, noise: bool
    ):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = Attention(dim, heads, groups)
        self.moe = MixtureOfExperts(dim, width, experts, k, dropout, noise)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, D) to (B, S, D) and the balance loss."""
        x = x + self.attn(self.norm1(x))
        update, balance = self.moe(self.norm2(x))
        return x + update, balance


class Encoder(nn.Module):
    """Pixels and metadata to tokens before and after the final norm."""

    def __init__(self, config: ModelConfig, noise: bool) -> None:
        super().__init__()
        D, p = config.embed_dim, config.patch_size
        self.patch_proj = nn.Conv2d(config.in_channels, D, kernel_size=p, stride=p)
        for field in PUBLISHED_FIELDS:
            self.add_module(f"{field}_proj", nn.Linear(2, D))
        self.cls_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, D), std=0.02))
        self.pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, config.num_tokens, D), std=0.02))
        self.layers = nn.ModuleList(
            Block(D, config.num_heads, config.num_groups, width, experts, config.k, config.dropout, noise)
            for width, experts in zip(config.expert_widths, config.experts, strict=True)
        )
        self.norm = nn.LayerNorm(D)

    def forward(
        self, images: Tensor, meta: dict[str, Tensor], ids_keep: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(B, C, H, W) images and a (B, 2) tensor per metadata field to tokens, the same before the norm, balance."""
        B = images.shape[0]
        patches = self.patch_proj(images).flatten(2).transpose(1, 2)  # (B, N, D)
        positions = self.pos_embed[:, PREFIX:].expand(B, -1, -1)
        if ids_keep is not None:
            index = ids_keep.unsqueeze(-1).expand(-1, -1, patches.shape[-1])
            patches, positions = torch.gather(patches, 1, index), torch.gather(positions, 1, index)
        prefix = [getattr(self, f"{field}_proj")(meta[field]).unsqueeze(1) for field in PUBLISHED_FIELDS]
        prefix = torch.cat([*prefix, self.cls_token.expand(B, -1, -1)], dim=1) + self.pos_embed[:, :PREFIX]
        x = torch.cat([prefix, patches + positions], dim=1)
        balance = x.new_zeros((), dtype=torch.float32)
        for layer in self.layers:
            x, layer_balance = layer(x)
            balance = balance + layer_balance
        return self.norm(x), x, balance


class ReferenceLosses(NamedTuple):
    """Scalars of one batch, as in `models.losses.Losses`."""

    total: Tensor
    masked: Tensor
    visible: Tensor
    balance: Tensor


class ReferenceMAE(nn.Module):
    """The masked autoencoder.

    Args:
        config: the model's numbers.
        noise: the routing noise, in training and in evaluation; a comparison of results turns it off.
    """

    def __init__(self, config: ModelConfig, noise: bool = True) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config, noise)
        self.patch_embed = self.encoder.patch_proj
        D = config.decoder_dim
        self.decoder_embed = nn.Linear(config.embed_dim, D)
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, D), std=0.02))
        self.decoder_pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, config.num_patches, D), std=0.02))
        heads, groups = config.decoder_heads, config.decoder_groups
        experts, k = config.decoder_experts, config.decoder_k
        self.decoder_layers = nn.ModuleList(
            Block(D, heads, groups, config.decoder_width, experts, k, config.dropout, noise)
            for _ in range(config.decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(D)
        self.decoder_pred = nn.Linear(D, config.patch_values)

    def predict(self, tokens: Tensor, ids_restore: Tensor) -> Tensor:
        """Tokens after the norm to (B, N, C * p * p)."""
        x = self.decoder_embed(tokens)
        prefix, kept = x[:, :PREFIX], x[:, PREFIX:]
        missing = self.mask_token.repeat(kept.shape[0], ids_restore.shape[1] - kept.shape[1], 1)
        full = torch.cat([kept, missing.to(kept.dtype)], dim=1)
        full = torch.gather(full, 1, ids_restore.unsqueeze(-1).repeat(1, 1, full.shape[-1]))
        x = torch.cat([prefix, full + self.decoder_pos_embed], dim=1)
        for layer in self.decoder_layers:
            x, _ = layer(x)
        return self.decoder_pred(self.decoder_norm(x)[:, PREFIX:])

    def forward(
        self, images: Tensor, meta: dict[str, Tensor], mask_noise: Tensor | None = None
    ) -> tuple[ReferenceLosses, Tensor]:
        """Losses of a masked pass and the prediction (B, N, C * p * p).

        Args:
            images: (B, C, H, W), normalised.
            meta: (B, 2) per field.
            mask_noise: (B, N), for a comparison of results; drawn here by default.
        """
        config = self.config
        if mask_noise is None:
            mask_noise = torch.rand(images.shape[0], config.num_patches, device=images.device)
        shuffle = torch.argsort(mask_noise, dim=1)
        ids_restore = torch.argsort(shuffle, dim=1)
        keep = int(config.num_patches * (1 - MASK_RATIO))
        mask = torch.ones_like(mask_noise)
        mask[:, :keep] = 0
        mask = torch.gather(mask, 1, ids_restore)
        tokens, _, balance = self.encoder(images, meta, shuffle[:, :keep])
        predicted = self.predict(tokens, ids_restore)
        target = F.unfold(images, config.patch_size, stride=config.patch_size).transpose(1, 2)
        error = ((predicted.float() - target) ** 2).sum(-1)
        masked = (error * mask).sum() / mask.sum()
        visible = (error * (1 - mask)).sum() / (1 - mask).sum()
        total = masked + VISIBLE_WEIGHT * visible + BALANCE_WEIGHT * balance
        return ReferenceLosses(total, masked, visible, balance), predicted
