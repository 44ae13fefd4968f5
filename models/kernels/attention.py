"""Kernels of attention: softmax(scale q k^T) v for (B, G, Q, d) queries and (B, G, S, d) keys and values."""

import torch
import torch.nn.functional as F
from torch import Tensor

IMAGES_IN_CACHE = 8
"""On a CPU, images whose attention weights stay in a core's cache between the two products."""


def fused(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """By PyTorch's fused kernel."""
    return F.scaled_dot_product_attention(q, k, v, scale=scale)


def products(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """By two batched matrix products with a softmax in between."""
    return _products(*_in_cpu_precision(q, k, v), scale)


def in_parts(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """By products, some images at a time; for passes without gradient, where nothing of it is kept."""
    return _in_parts(*_in_cpu_precision(q, k, v), scale)


def opaque_in_parts(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """`in_parts` as one operator that a compiler does not look into."""
    return _opaque_in_parts(*_in_cpu_precision(q, k, v), scale)


def _in_cpu_precision(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """In the type of mixed precision where that is on, so that the scaling of q is rounded as the products are."""
    if not torch.is_autocast_enabled("cpu"):
        return q, k, v
    precision = torch.get_autocast_dtype("cpu")
    return q.to(precision), k.to(precision), v.to(precision)


def _products(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    scores = (q * scale) @ k.transpose(-2, -1)
    return torch.softmax(scores, dim=-1, dtype=torch.float32).to(v.dtype) @ v


def _in_parts(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        parts = zip(q.split(IMAGES_IN_CACHE), k.split(IMAGES_IN_CACHE), v.split(IMAGES_IN_CACHE), strict=True)
        return torch.cat([_products(*part, scale) for part in parts])


@torch.library.custom_op("moemae::attend_in_parts", mutates_args=())
def _opaque_in_parts(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return _in_parts(q, k, v, scale)


@_opaque_in_parts.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return q.new_empty(q.shape)
