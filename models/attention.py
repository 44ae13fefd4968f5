"""Grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245) with the published head order.

Dimensions: B batch, S sequence, D width, H query heads, G key/value groups, R = H / G heads a group, d head width.
"""

import torch
from torch import Tensor, nn

from models.kernels.backend import Backend, backend_for
from models.kernels.padding import pad_columns, pad_rows

HIDDEN_KEY = -1e4
"""Score, before scaling, of a key that nobody may look at: its weight is exactly 0 in every float type."""


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

    def forward(self, x: Tensor, backend: Backend | None = None, hidden: Tensor | None = None) -> Tensor:
        """(B, S, D) to (B, S, D); no token looks at those where (B, S) `hidden` is 1. No backend: the fastest."""
        backend = backend or backend_for(x.device)
        B, S, _ = x.shape
        H, G, R = self.num_heads, self.num_groups, self.num_heads // self.num_groups
        # Zeros beyond the true width change no product; the first of them carries the mask, where there is one.
        d = backend.head_width(self.head_dim + (hidden is not None))
        projections = ((self.q_proj, H), (self.k_proj, G), (self.v_proj, G))
        weight = torch.cat([pad_rows(projection.weight, heads, d) for projection, heads in projections])
        bias = torch.cat([pad_rows(projection.bias, heads, d) for projection, heads in projections])
        q, k, v = backend.linear(x, weight, bias).split([H * d, G * d, G * d], dim=-1)
        if hidden is not None:  # every query times a key: q k + 1 * 0, or q k + 1 * HIDDEN_KEY
            spare = torch.arange(d, device=x.device) == self.head_dim
            q = q + spare.to(q.dtype).repeat(H)
            k = k + (HIDDEN_KEY * hidden.to(k.dtype)).unsqueeze(-1) * spare.to(k.dtype).repeat(G)
        # Head h = r * G + g, so the head axis splits into (R, G). The R heads of a group are laid one after
        # another along the sequence: each group then attends with R * S queries to its own S keys, and neither
        # keys nor values are ever repeated.
        q = q.view(B, S, R, G, d).permute(0, 3, 2, 1, 4).reshape(B, G, R * S, d)
        k = k.view(B, S, G, d).transpose(1, 2)
        v = v.view(B, S, G, d).transpose(1, 2)
        out = backend.attend(q, k, v, self.head_dim**-0.5)
        out = out.view(B, G, R, S, d).permute(0, 3, 2, 1, 4).reshape(B, S, H * d)
        return backend.linear(out, pad_columns(self.out_proj.weight, H, d), self.out_proj.bias)
