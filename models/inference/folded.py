"""The encoder of a trained model with its weights folded, for embedding on a CPU: the same tokens but for rounding.

What does not depend on a patch is worked out once: LayerNorm's factors and offsets and attention's scale go into the
projections that follow them, the projections of a step stand in one matrix, heads in the order in which they are
multiplied.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import HIDDEN_KEY, GroupedQueryAttention
from models.encoder import Block, Encoder
from models.kernels.backend import CPU
from models.moe import MoELayer, NoisyTopKGate
from utils.errors import ConfigError


class FoldedLinear(NamedTuple):
    """x weight^T + bias."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def after_norm(cls, norm: nn.LayerNorm, weight: Tensor, bias: Tensor) -> "FoldedLinear":
        """A projection of what LayerNorm gives, as one of numbers that are only standardised."""
        return cls((weight * norm.weight).contiguous(), bias + weight @ norm.bias)

    def __call__(self, x: Tensor) -> Tensor:
        return CPU.linear(x, self.weight, self.bias)


class FoldedAttention:
    """`x + attention(norm(x))` of (B, S, D) tokens, or of the first `read` of them, which look at all: (B, read, D)."""

    def __init__(self, norm: nn.LayerNorm, attention: GroupedQueryAttention) -> None:
        H, G, d = attention.num_heads, attention.num_groups, attention.head_dim
        self.shape, self.norm = (G, H // G, d), norm
        scale = d**-0.5
        weights = [scale * self._by_group(attention.q_proj.weight), attention.k_proj.weight, attention.v_proj.weight]
        biases = [scale * self._by_group(attention.q_proj.bias), attention.k_proj.bias, attention.v_proj.bias]
        self.project = FoldedLinear.after_norm(norm, torch.cat(weights), torch.cat(biases))
        out = self._by_group(attention.out_proj.weight.T).T.contiguous()
        self.out = FoldedLinear(out, attention.out_proj.bias)

    def _by_group(self, rows: Tensor) -> Tensor:
        """(H d, …) rows in the published order of heads, r * G + g, in the order g * R + r."""
        G, R, d = self.shape
        return rows.unflatten(0, (R, G, d)).transpose(0, 1).flatten(0, 2)

    def __call__(self, x: Tensor, hidden: Tensor | None, read: int | None = None) -> Tensor:
        B, S, _ = x.shape
        G, R, d = self.shape
        projected = self.project(_standardised(x, self.norm))
        q, k, v = projected.split([G * R * d, G * d, G * d], dim=-1)
        x, q = x[:, :read], q[:, :read]
        Q = x.shape[1]
        q = q.unflatten(-1, (G, R, d)).permute(0, 2, 3, 1, 4).reshape(B * G, R * Q, d)
        k, v = (part.view(B, S, G, d).transpose(1, 2).reshape(B * G, S, d) for part in (k, v))
        scores = torch.bmm(q, k.transpose(1, 2))
        if hidden is not None:  # (B, S)
            scores.view(B, G, R * Q, S).add_(HIDDEN_KEY * d**-0.5 * hidden[:, None, None])
        out = torch.bmm(scores.softmax(dim=-1), v)
        return x + self.out(out.view(B, G, R, Q, d).permute(0, 3, 1, 2, 4).reshape(B, Q, -1))


class FoldedExperts:
    """`x + experts(norm(x))` of (T, D) tokens."""

    def __init__(self, norm: nn.LayerNorm, layer: MoELayer) -> None:
        gate, experts = layer.gate, layer.experts
        if gate is not None and not isinstance(gate, NoisyTopKGate):
            raise ConfigError(f"backend folded: does not know the gate {type(gate).__name__}; use torch")
        self.norm, self.count, self.width = norm, experts.experts, experts.width
        self.k = 0 if gate is None else gate.k
        parts = [experts.W, experts.V, *([] if gate is None else [gate.Wg])]
        weight, bias = (torch.cat([getattr(part, name) for part in parts]) for name in ("weight", "bias"))
        self.project = FoldedLinear.after_norm(norm, weight, bias)
        self.out = FoldedLinear(experts.W2.weight, experts.W2.bias)

    def __call__(self, x: Tensor) -> Tensor:
        inner = self.count * self.width
        hidden, value, logits = self.project(_standardised(x, self.norm)).split(
            [inner, self.width, self.count if self.k else 0], dim=-1
        )
        hidden = F.silu(hidden)
        if not self.k:
            return x + self.out(hidden * value)
        gates = self.gates(logits)
        hidden = (hidden.unflatten(-1, (self.count, self.width)) * gates.unsqueeze(-1)).sum(dim=1) * value
        if self.k > 1:
            return x + self.out(hidden)
        # A single gate is below 1, and with it the share of the offset.
        return x + CPU.linear(hidden, self.out.weight, None) + gates.sum(dim=-1, keepdim=True) * self.out.bias

    def gates(self, logits: Tensor) -> Tensor:
        """(T, E), as `NoisyTopKGate` without noise: a softmax over the k largest, 0 elsewhere."""
        best = logits.topk(self.k, dim=-1)
        values = best.values if self.k > 1 else (best.values - logits.logsumexp(dim=-1, keepdim=True))
        values = values.softmax(dim=-1) if self.k > 1 else values.exp()
        return torch.zeros_like(logits).scatter_(-1, best.indices, values)


def _standardised(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    return F.layer_norm(x, norm.normalized_shape, eps=norm.eps)


class FoldedEncoder:
    """An encoder on the CPU as it is now: later changes of its weights are not seen.

    Attributes:
        read: how many tokens of a patch are wanted, from the first on; None for all. The last block that is
            computed, of whose tokens no later one needs any, is computed for these only.
    """

    @torch.no_grad()
    def __init__(self, encoder: Encoder, read: int | None = None) -> None:
        """Fold the weights.

        Raises:
            ConfigError: for a kind of gate that is not known here, or weights that are not on the CPU in float32.
        """
        if encoder.pos_embed.device.type != "cpu" or encoder.pos_embed.dtype != torch.float32:
            raise ConfigError("backend folded: is for float32 on a CPU; use torch")
        self.encoder, self.read = encoder, read
        blocks: list[Block] = list(encoder.layers)[: encoder.blocks_read]  # pyright: ignore[reportAssignmentType] - ModuleList has no types
        self.blocks = [
            (FoldedAttention(block.norm1, block.attn), FoldedExperts(block.norm2, block.moe)) for block in blocks
        ]

    @torch.no_grad()
    def __call__(
        self, images: Tensor, meta: Tensor, visible: Tensor | None = None, bands: Tensor | None = None
    ) -> Tensor:
        """Tokens before the final norm, (B, P + N, D) or (B, read, D); arguments as of `Encoder.forward`."""
        x, hidden = self.embed(images, meta, visible, bands)
        for place, (attention, experts) in enumerate(self.blocks, 1):
            x = attention(x, hidden, self.read if place == len(self.blocks) else None)
            x = experts(x.flatten(0, 1)).view(x.shape)
        return x

    @torch.no_grad()
    def embed(
        self, images: Tensor, meta: Tensor, visible: Tensor | None, bands: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """What the blocks take: (B, P + N, D) tokens with their positions, and (B, P + N) hidden ones or None."""
        return self.encoder.embed(images, meta, None, CPU, visible, bands), self.encoder.hidden_tokens(visible)
