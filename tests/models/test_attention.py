"""Attention: the head order, and its ways to compute the same."""

import pytest
import torch
import torch.nn.functional as F

import models.attention
import models.kernels.padding
from models.attention import GroupedQueryAttention, attend
from utils.randomness import generator


@pytest.mark.parametrize("length", [30, 48, 49, 105])
def test_two_products_are_the_fused_kernel(length: int, monkeypatch) -> None:
    """On both sides of the length where one takes over from the other, with gradients."""
    rng = generator(length, "attention")
    q, k, v = (torch.randn(2, 3, rows, 18, generator=rng).requires_grad_() for rows in (2 * length, length, length))
    calls, fused = [], F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **o: calls.append(1) or fused(*a, **o))
    found = {}
    for short in (0, models.attention.SHORT_SEQUENCE, 1000):
        monkeypatch.setattr(models.attention, "SHORT_SEQUENCE", short)
        calls.clear()
        out = attend(q, k, v, 0.3)
        assert bool(calls) is (length > short)
        found[short] = (out, *torch.autograd.grad(out.square().sum(), (q, k, v)))
    expected = torch.softmax(0.3 * q.double() @ k.double().transpose(-2, -1), dim=-1) @ v.double()
    for results in found.values():
        torch.testing.assert_close(results[0], expected.float(), atol=1e-5, rtol=1e-5)
        for ours, theirs in zip(results, found[0], strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("images", [1, 8, 11])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_without_gradient_some_images_at_a_time(images: int, precision: torch.dtype, monkeypatch) -> None:
    """The same as with gradient, whatever the number of images, and without the fused kernel."""
    rng = generator(images, "attention in parts")
    q, k, v = (torch.randn(images, 3, rows, 18, generator=rng) for rows in (210, 105, 105))
    enabled = precision is torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        expected = attend(q, k, v, 18**-0.5)
        monkeypatch.setattr(F, "scaled_dot_product_attention", None)
        with torch.no_grad():
            out = attend(q, k, v, 18**-0.5)
    assert out.dtype == expected.dtype == precision
    tolerance = {"atol": 2e-2, "rtol": 2e-2} if enabled else {"atol": 1e-6, "rtol": 1e-5}
    torch.testing.assert_close(out, expected, **tolerance)


@pytest.mark.parametrize("multiple", [1, 8])
def test_head_h_reads_group_h_mod_groups(monkeypatch, multiple: int) -> None:
    monkeypatch.setitem(models.kernels.padding.ALIGNMENT, "cpu", multiple)
    layer, x = GroupedQueryAttention(24, 4, 2), torch.randn(2, 7, 24, generator=generator(0, "x"))
    q, k, v = (getattr(layer, f"{name}_proj")(x) for name in "qkv")
    heads = []
    for h in range(4):
        mine, group = slice(6 * h, 6 * h + 6), slice(6 * (h % 2), 6 * (h % 2) + 6)
        scores = q[..., mine] @ k[..., group].transpose(1, 2) / 6**0.5
        heads.append(scores.softmax(-1) @ v[..., group])
    torch.testing.assert_close(layer(x), layer.out_proj(torch.cat(heads, dim=-1)), atol=1e-6, rtol=1e-5)
