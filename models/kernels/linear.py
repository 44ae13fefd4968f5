"""Kernels of a linear layer: PyTorch's own, and oneDNN's where MKL takes slow code.

PyTorch computes float32 products on a CPU with MKL, which takes slower code on processors that are not Intel's; oneDNN,
which comes with PyTorch as well, is there twice as fast.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def plain(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias: `F.linear` for (..., K), (N, K) and (N,) to (..., N)."""
    return F.linear(x, weight, bias)


def onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The same by oneDNN, in float32; other types, and mixed precision, go to `plain`."""
    return _by_onednn(x, weight, bias, _product)


def opaque_onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`onednn` as one operator that a compiler does not look into."""
    return _by_onednn(x, weight, bias, _opaque_product)


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None, product: Product) -> Tensor:
    if x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    flat: Tensor = _OneDNNLinear.apply(x.reshape(-1, x.shape[-1]), weight, bias, product)
    return flat.view(*x.shape[:-1], weight.shape[0])


class _OneDNNLinear(torch.autograd.Function):
    """A linear layer and its gradient: three products, one a transposed view of each other's operands."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, product: Product) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.biased, ctx.product = bias is not None, product
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        wanted, product = ctx.needs_input_grad, ctx.product
        return (
            product(grad, weight.t(), None) if wanted[0] else None,
            product(x.t(), grad.t(), None).t() if wanted[1] else None,  # the other way round takes a third longer
            grad.sum(dim=0) if ctx.biased and wanted[2] else None,
            None,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x weight^T + bias for (M, K), (N, K) and (N,) to (M, N)."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@torch.library.custom_op("moemae::onednn_linear", mutates_args=())
def _opaque_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _product(x, weight, bias)


@_opaque_product.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


def prefers_onednn() -> bool:
    """Whether PyTorch has oneDNN's linear layer and MKL would take its slow code on this processor."""
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available()):
        return False
    try:
        return hasattr(torch.ops.mkldnn, "_linear_pointwise") and "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
