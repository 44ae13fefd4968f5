"""The model's matrix product by oneDNN against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F

from models.kernels.linear import onednn, opaque_onednn
from utils.randomness import generator

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this PyTorch is built without oneDNN"
)


def operands(with_bias: bool = True) -> list[torch.Tensor | None]:
    rng = generator(0, "products")
    x, weight, bias = (torch.randn(shape, generator=rng) for shape in ((3, 50, 19), (37, 19), (37,)))
    return [x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_() if with_bias else None]


@needs_onednn
@pytest.mark.parametrize("product", [onednn, opaque_onednn])
@pytest.mark.parametrize("with_bias", [True, False])
def test_value_and_gradients(with_bias: bool, product) -> None:
    ours, theirs = operands(with_bias), operands(with_bias)
    out, expected = product(*ours), F.linear(*theirs)
    torch.testing.assert_close(out, expected)
    upstream = torch.randn(37, 50, 3, generator=generator(1, "products")).permute(2, 1, 0)  # not contiguous
    for result in (out, expected):
        (result * upstream).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        assert a is None or torch.allclose(a.grad, b.grad, atol=1e-4)


@needs_onednn
def test_only_float32_without_autocast_goes_there() -> None:
    x, weight, bias = operands()
    with torch.autocast("cpu", torch.bfloat16):
        assert onednn(x, weight, bias).dtype == torch.bfloat16
    assert onednn(x.double(), weight.double(), bias.double()).dtype == torch.float64


@needs_onednn
def test_slices_and_no_gradient() -> None:
    """A part of a larger tensor, as the experts' hidden values are, and inference."""
    x, weight, bias = operands()
    part = x.detach()[..., 3:12]
    with torch.no_grad():
        out = onednn(part, weight[:, 3:12], bias)
    torch.testing.assert_close(out, F.linear(part, weight[:, 3:12], bias))
