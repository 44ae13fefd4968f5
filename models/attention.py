"""Grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245) with the published head order.

Dimensions: B batch, S sequence, D width, H query heads, G key/value groups, R = H / G heads a group, d head width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.kernels.linear import linear
from models.kernels.padding import aligned, pad_columns, pad_rows

SHORT_SEQUENCE = 48
"""On a CPU, keys up to which two batched products beat the fused kernel, whose blocks would be mostly empty."""

IMAGES_IN_CACHE = 8
"""On a CPU, images whose attention weights stay in a core's cache between the two products."""


class GroupedQueryAttention(nn.Module):
    """Self-attention in which R query heads share one key/value head.

    Query head h reads group h mod G: heads are *interleaved* over groups. (PyTorch's `enable_gqa` and
    `repeat_interleave` use h // R.) This is the only place where that order matters.
    """

    def __init__(self, dim: int, num_heads: int, num_groups: int) -> None:
        super().__init__()
        if dim % num_heads or num_heads % num_groups:
            raise ValueError(f"width {dim} must be a multiple of {num_heads} heads, and heads of {num_groups} groups")
        self.num_heads, self.num_groups, self.head_dim = num_heads, num_groups, dim // num_heads
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, num_groups * self.head_dim)
        self.v_proj = nn.Linear(dim, num_groups * self.head_dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, D) to (B, S, D)."""
        B, S, _ = x.shape
        H, G, R = self.num_heads, self.num_groups, self.num_heads // self.num_groups
        d = aligned(self.head_dim, x.device)  # zeros beyond the true width change no product
        projections = ((self.q_proj, H), (self.k_proj, G), (self.v_proj, G))
        weight = torch.cat([pad_rows(projection.weight, heads, d) for projection, heads in projections])
        bias = torch.cat([pad_rows(projection.bias, heads, d) for projection, heads in projections])
        q, k, v = linear(x, weight, bias).split([H * d, G * d, G * d], dim=-1)
        # Head h = r * G + g, so the head axis splits into (R, G). The R heads of a group are laid one after
        # another along the sequence: each group then attends with R * S queries to its own S keys, and neither
        # keys nor values are ever repeated.
        q = q.view(B, S, R, G, d).permute(0, 3, 2, 1, 4).reshape(B, G, R * S, d)
        k = k.view(B, S, G, d).transpose(1, 2)
        v = v.view(B, S, G, d).transpose(1, 2)
        out = attend(q, k, v, self.head_dim**-0.5)
        out = out.view(B, G, R, S, d).permute(0, 3, 2, 1, 4).reshape(B, S, H * d)
        return linear(out, pad_columns(self.out_proj.weight, H, d), self.out_proj.bias)


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """softmax(scale q k^T) v for (B, G, Q, d) queries and (B, G, S, d) keys and values."""
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, scale=scale)
    if torch.is_autocast_enabled("cpu"):
        q, k, v = (x.to(torch.get_autocast_dtype("cpu")) for x in (q, k, v))
    if k.shape[2] <= SHORT_SEQUENCE:
        return _attend_by_products(q, k, v, scale)
    if torch.is_grad_enabled() or torch.compiler.is_exporting():
        return F.scaled_dot_product_attention(q, k, v, scale=scale)
    if torch.compiler.is_compiling():  # which would unroll the loop
        return _opaque_attend_in_parts(q, k, v, scale)
    return _attend_in_parts(q, k, v, scale)


def _attend_by_products(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    scores = (q * scale) @ k.transpose(-2, -1)
    return torch.softmax(scores, dim=-1, dtype=torch.float32).to(v.dtype) @ v


def _attend_in_parts(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """The same, some images at a time: without gradient, where nothing of it is kept."""
    with torch.autocast("cpu", enabled=False):
        parts = zip(*(x.split(IMAGES_IN_CACHE) for x in (q, k, v)), strict=True)
        return torch.cat([_attend_by_products(*part, scale) for part in parts])


@torch.library.custom_op("moemae::attend_in_parts", mutates_args=())
def _opaque_attend_in_parts(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return _attend_in_parts(q, k, v, scale)


@_opaque_attend_in_parts.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return q.new_empty(q.shape)
