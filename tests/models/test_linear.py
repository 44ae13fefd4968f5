"""The model's matrix product by oneDNN against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F

from models.kernels import linear as products
from utils.randomness import generator

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this PyTorch is built without oneDNN"
)


def operands(with_bias: bool = True) -> list[torch.Tensor | None]:
    rng = generator(0, "products")
    x, weight, bias = (torch.randn(shape, generator=rng) for shape in ((3, 50, 19), (37, 19), (37,)))
    return [x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_() if with_bias else None]


@needs_onednn
@pytest.mark.parametrize("with_bias", [True, False])
def test_value_and_gradients(monkeypatch, with_bias: bool) -> None:
    monkeypatch.setattr(products, "ONEDNN", True)
    ours, theirs = operands(with_bias), operands(with_bias)
    out, expected = products.linear(*ours), F.linear(*theirs)
    torch.testing.assert_close(out, expected)
    assert out.grad_fn.name() != expected.grad_fn.name(), "the product did not go to oneDNN"
    upstream = torch.randn(37, 50, 3, generator=generator(1, "products")).permute(2, 1, 0)  # not contiguous
    for result in (out, expected):
        (result * upstream).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        assert a is None or torch.allclose(a.grad, b.grad, atol=1e-4)


@needs_onednn
def test_only_float32_without_autocast_goes_there(monkeypatch) -> None:
    monkeypatch.setattr(products, "ONEDNN", True)
    x, weight, bias = operands()
    with torch.autocast("cpu", torch.bfloat16):
        assert products.linear(x, weight, bias).dtype == torch.bfloat16
    assert products.linear(x.double(), weight.double(), bias.double()).dtype == torch.float64


@needs_onednn
def test_slices_and_no_gradient(monkeypatch) -> None:
    """A part of a larger tensor, as the experts' hidden values are, and inference."""
    monkeypatch.setattr(products, "ONEDNN", True)
    x, weight, bias = operands()
    part = x.detach()[..., 3:12]
    with torch.no_grad():
        out = products.linear(part, weight[:, 3:12], bias)
    torch.testing.assert_close(out, F.linear(part, weight[:, 3:12], bias))
