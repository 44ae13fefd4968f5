"""Attention: the head order, and its ways to compute the same."""

import pytest
import torch
import torch.nn.functional as F

from models.attention import GroupedQueryAttention
from models.kernels.backend import COMPILED_CPU_INFERENCE, CPU, CUDA, EXPORT, PLAIN, Backend, backend_for
from utils.randomness import generator


@pytest.mark.parametrize("length", [30, 48, 49, 105])
def test_every_backend_computes_the_same(length: int) -> None:
    """On both sides of the length where one kernel takes over from the other, with gradients."""
    rng = generator(length, "attention")
    q, k, v = (torch.randn(2, 3, rows, 18, generator=rng).requires_grad_() for rows in (2 * length, length, length))
    expected = torch.softmax(0.3 * q.double() @ k.double().transpose(-2, -1), dim=-1) @ v.double()
    found = []
    for backend in (PLAIN, CUDA, CPU, EXPORT, CPU._replace(short_sequence=1000)):
        out = backend.attend(q, k, v, 0.3)
        torch.testing.assert_close(out, expected.float(), atol=1e-5, rtol=1e-5)
        found.append((out, *torch.autograd.grad(out.square().sum(), (q, k, v))))
    for results in found:
        for ours, theirs in zip(results, found[0], strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("keys", "kernel"), [(48, "short"), (49, "long")])
def test_the_kernel_follows_the_number_of_keys(keys: int, kernel: str) -> None:
    said = Backend(
        short_attention=lambda q, k, v, scale: "short", long_attention=lambda q, k, v, scale: "long", short_sequence=48
    )
    k = torch.zeros(1, 1, keys, 2)
    assert said.attend(k, k, k, 1.0) == kernel


@pytest.mark.parametrize("images", [1, 8, 11])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_without_gradient_some_images_at_a_time(images: int, precision: torch.dtype, monkeypatch) -> None:
    """The same as with gradient, whatever the number of images, and without the fused kernel."""
    rng = generator(images, "attention in parts")
    q, k, v = (torch.randn(images, 3, rows, 18, generator=rng) for rows in (210, 105, 105))
    enabled = precision is torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        expected = backend_for(q.device).attend(q, k, v, 18**-0.5)
        monkeypatch.setattr(F, "scaled_dot_product_attention", None)
        with torch.no_grad():
            out = backend_for(q.device).attend(q, k, v, 18**-0.5)
            compiled = COMPILED_CPU_INFERENCE.attend(q, k, v, 18**-0.5)
    assert out.dtype == expected.dtype == precision and torch.equal(compiled, out)
    tolerance = {"atol": 2e-2, "rtol": 2e-2} if enabled else {"atol": 1e-6, "rtol": 1e-5}
    torch.testing.assert_close(out, expected, **tolerance)


@pytest.mark.parametrize("multiple", [1, 8])
def test_head_h_reads_group_h_mod_groups(multiple: int) -> None:
    layer, x = GroupedQueryAttention(24, 4, 2), torch.randn(2, 7, 24, generator=generator(0, "x"))
    q, k, v = (getattr(layer, f"{name}_proj")(x) for name in "qkv")
    heads = []
    for h in range(4):
        mine, group = slice(6 * h, 6 * h + 6), slice(6 * (h % 2), 6 * (h % 2) + 6)
        scores = q[..., mine] @ k[..., group].transpose(1, 2) / 6**0.5
        heads.append(scores.softmax(-1) @ v[..., group])
    torch.testing.assert_close(
        layer(x, CPU._replace(head_multiple=multiple)), layer.out_proj(torch.cat(heads, dim=-1)), atol=1e-6, rtol=1e-5
    )
