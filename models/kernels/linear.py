"""The one matrix product of the model, by the library that is fastest at it.

PyTorch computes float32 products on a CPU with MKL, which takes slower code on processors that are not Intel's; oneDNN,
which comes with PyTorch as well, is there twice as fast.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias: `F.linear` for (..., K), (N, K) and (N,) to (..., N)."""
    if not (x.device.type == "cpu" and x.dtype == torch.float32 and ONEDNN):
        return F.linear(x, weight, bias)
    if torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    return _OneDNNLinear.apply(x.reshape(-1, x.shape[-1]), weight, bias).view(*x.shape[:-1], weight.shape[0])


class _OneDNNLinear(torch.autograd.Function):
    """A linear layer and its gradient: three products, one a transposed view of each other's operands."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        wanted = ctx.needs_input_grad
        return (
            _product(grad, weight.t()) if wanted[0] else None,
            _product(x.t(), grad.t()).t() if wanted[1] else None,  # the other way round takes a third longer
            grad.sum(dim=0) if ctx.biased and wanted[2] else None,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias by oneDNN, for (M, K), (N, K) and (N,) to (M, N)."""
    if torch.compiler.is_compiling():  # whose own use of oneDNN wants constant weights
        return _opaque_product(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@torch.library.custom_op("moemae::onednn_linear", mutates_args=())
def _opaque_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@_opaque_product.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


def _prefers_onednn() -> bool:
    """Whether PyTorch has oneDNN's linear layer and MKL would take its slow code on this processor."""
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available()):
        return False
    try:
        return hasattr(torch.ops.mkldnn, "_linear_pointwise") and "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


ONEDNN = _prefers_onednn()
"""Whether float32 products on the CPU go to oneDNN."""
