"""Which kernels the model computes with: one value, chosen once per pass and handed down to its layers.

The results are the same but for rounding. What differs is speed, and what the operators are: an exported program may
hold PyTorch's own only.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from models.kernels.attention import fused, in_parts, opaque_in_parts, products
from models.kernels.linear import onednn, opaque_onednn, plain, prefers_onednn

Attention = Callable[[Tensor, Tensor, Tensor, float], Tensor]

SHORT_SEQUENCE = 48
"""On a CPU, keys up to which two batched products beat the fused kernel, whose blocks would be mostly empty."""


class Backend(NamedTuple):
    """Kernels and widths."""

    linear: Callable[[Tensor, Tensor, Tensor | None], Tensor] = plain
    """x weight^T + bias for (..., K), (N, K) and (N,) or None to (..., N)."""
    short_attention: Attention = fused
    long_attention: Attention = fused
    """softmax(scale q k^T) v for (B, G, Q, d) queries and (B, G, S, d) keys and values."""
    short_sequence: int = 0
    """Keys up to which attention is the short one."""
    head_multiple: int = 1
    """Heads are padded with zeros to widths that are a multiple of it."""
    expert_multiple: int = 1
    """The same of experts."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Attention by the kernel for the number of keys."""
        kernel = self.short_attention if k.shape[2] <= self.short_sequence else self.long_attention
        return kernel(q, k, v, scale)

    def head_width(self, width: int) -> int:
        """The padded width of a head."""
        return _rounded_up(width, self.head_multiple)

    def expert_width(self, width: int) -> int:
        """The padded width of an expert."""
        return _rounded_up(width, self.expert_multiple)


def _rounded_up(width: int, multiple: int) -> int:
    return -(-width // multiple) * multiple


PLAIN = Backend()
"""PyTorch's own operators and true widths."""

# Tensor cores work in tiles of eight.
CUDA = Backend(head_multiple=8, expert_multiple=8)

# What suits the processor that exports may not suit the one that runs the program, and operators of this project's own
# would not be there.
EXPORT = Backend(short_attention=products, short_sequence=SHORT_SEQUENCE)

CPU = Backend(
    linear=onednn if prefers_onednn() else plain,
    short_attention=products,
    short_sequence=SHORT_SEQUENCE,
)

# Without gradient nothing of the attention weights is kept, so a part of the batch at a time stays in the cache.
CPU_INFERENCE = CPU._replace(long_attention=in_parts)

# Compiled loops over an odd width end in scalar code, hence the padding. The compiler would use oneDNN only for
# constant weights, and would unroll the loop over the parts of a batch: both are hidden from it.
COMPILED_CPU = CPU._replace(linear=opaque_onednn if prefers_onednn() else plain, expert_multiple=16)
COMPILED_CPU_INFERENCE = COMPILED_CPU._replace(long_attention=opaque_in_parts)


def backend_for(device: torch.device) -> Backend:
    """The fastest backend for a pass that begins here: by device, and on a CPU by compilation and gradient mode."""
    if device.type == "cuda":
        return CUDA
    if device.type != "cpu":
        return PLAIN
    if torch.compiler.is_compiling():
        return COMPILED_CPU if torch.is_grad_enabled() else COMPILED_CPU_INFERENCE
    return CPU if torch.is_grad_enabled() else CPU_INFERENCE
