"""Fast ways through the model against plain ones: padding, products, routing, noise, attention, bfloat16."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import SAMPLE
from torch import Tensor

import models.attention
import models.moe
from datasets.bigearthnet import BigEarthNetDatasetLS
from datasets.patches import Batch
from models import MOEMAE, ModelConfig, build_model
from models.checkpoint import read_checkpoint
from models.kernels import backend, linear
from models.kernels.backend import Backend, backend_for
from models.kernels.padding import pad_columns, pad_rows
from models.losses import mae_loss
from models.masking import Masking, MaskingConfig, random_masking
from models.moe import NoisyTopKGate, Routing, expert_importance, expert_load, expert_ranks
from models.noise import LayerNoiseBuffers, NoiseBuffers, PassNoise
from utils import devices
from utils.devices import mixed_precision
from utils.metadata import PUBLISHED_FIELDS
from utils.randomness import generator

CPU = torch.device("cpu")


def some_patches(folder: Path, split: str, count: int) -> tuple[Batch, Masking]:
    batch = BigEarthNetDatasetLS(folder, split).batch(range(count))
    return batch, random_masking(torch.rand(count, 100, generator=generator(0, "mask")), 0.75)


@pytest.fixture(scope="module")
def size_s() -> MOEMAE:
    """As it starts, but with biases and positions that matter."""
    model = build_model("S", seed=0)
    rng = generator(1, "size S")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=rng)
    return model


# --------------------------------------------------------------------------- padded widths


def test_padding_by_hand() -> None:
    weight = torch.arange(1.0, 9.0).view(4, 2)
    rows = [[1, 2], [3, 4], [0, 0], [5, 6], [7, 8], [0, 0]]
    assert pad_rows(weight, 2, 3).tolist() == rows
    assert pad_rows(weight[:, 0], 2, 3).tolist() == [row[0] for row in rows]
    assert pad_columns(weight.T, 2, 3).tolist() == [[row[i] for row in rows] for i in range(2)]
    assert pad_rows(weight, 2, 2) is weight
    on_cuda, on_cpu = backend_for(torch.device("cuda")), backend_for(CPU)
    assert (on_cuda.head_width(18), on_cuda.head_width(24), on_cpu.head_width(18)) == (24, 24, 18)
    assert (on_cuda.expert_width(133), on_cpu.expert_width(133)) == (136, 133)


def tokens_losses_gradients(
    model: MOEMAE, batch: Batch, masking: Masking, wanted: Backend | None = None
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    model.backend = wanted
    presampled = NoiseBuffers(model.config, model.masking, len(batch.images), CPU).fill(generator(0, "noise"))
    losses, passed = mae_loss(model, batch.images, batch.meta, masking, batch.valid, presampled=presampled)
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = dict(zip(names, torch.autograd.grad(losses.total, parameters), strict=True))
    return passed.encoded.tokens.detach(), torch.stack(losses).detach(), gradients


def assert_same_but_for_rounding(found: tuple, expected: tuple) -> None:
    """Two results of `tokens_losses_gradients`."""
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[1], expected[1], atol=1e-6, rtol=1e-5)
    whole = torch.stack([gradient.norm() for gradient in expected[2].values()]).norm()
    for name, theirs in expected[2].items():
        assert (found[2][name] - theirs).norm() <= 1e-5 * (theirs.norm() + 1e-3 * whole), name


def test_padded_widths_change_nothing(size_s, monkeypatch) -> None:
    """Head width 18 and expert widths such as 133 and 97: tokens, losses and every gradient of size S."""
    assert {133, 97} < set(size_s.config.expert_widths)
    batch, masking = some_patches(SAMPLE, "bigearthnet-test.csv", 2)
    shapes = {name: parameter.shape for name, parameter in size_s.named_parameters()}
    plain = tokens_losses_gradients(size_s, batch, masking)
    for multiple in (8, 16):
        widths = []

        def noted(weight: Tensor, groups: int, width: int, widths: list[int] = widths) -> Tensor:
            widths.append(width)
            return pad_columns(weight, groups, width)

        padded = backend_for(CPU)._replace(head_multiple=multiple, expert_multiple=multiple)
        monkeypatch.setattr(models.attention, "pad_columns", noted)
        monkeypatch.setattr(models.moe, "pad_columns", noted)
        found = tokens_losses_gradients(size_s, batch, masking, padded)
        assert not any(width % multiple for width in widths)
        assert len(widths) == 2 * (15 + 2)
        assert {name: parameter.shape for name, parameter in size_s.named_parameters()} == shapes
        assert_same_but_for_rounding(found, plain)
    size_s.backend = None


@pytest.mark.parametrize("multiple", [8, 16])
def test_padded_widths_keep_the_published_outputs(reference_dir, multiple: int) -> None:
    arrays = np.load(reference_dir / "reference" / "published_layout_S_outputs.npz")
    outputs = {name: torch.from_numpy(arrays[name]) for name in arrays.files if name != "ids"}
    meta = torch.stack([outputs[f"meta_{field}"] for field in PUBLISHED_FIELDS], dim=1)
    model = read_checkpoint(reference_dir / "reference" / "published_layout_S.pth").build()
    model.backend = backend_for(CPU)._replace(head_multiple=multiple, expert_multiple=multiple)
    with torch.no_grad():
        encoded = model.encode(outputs["images"], meta)
        predicted, _ = model(outputs["images"], meta, random_masking(outputs["mask_noise"], 0.75))
    assert (encoded.tokens - outputs["encoder_tokens_norm"]).abs().max() <= 1e-4
    assert (encoded.pre_norm - outputs["encoder_tokens"]).abs().max() <= 1e-4
    assert (predicted - outputs["pred"]).abs().max() <= 1e-4


# --------------------------------------------------------------------------- products by oneDNN


def test_size_s_with_products_of_both_libraries(size_s) -> None:
    """Whatever the processor; `test_linear.py` looks at one product."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        pytest.skip("this PyTorch has no linear layer by oneDNN")
    batch, masking = some_patches(SAMPLE, "bigearthnet-test.csv", 2)
    found = []
    for product in (linear.plain, linear.onednn):
        found.append(tokens_losses_gradients(size_s, batch, masking, backend.CPU._replace(linear=product)))
    size_s.backend = None
    assert_same_but_for_rounding(*found)


# --------------------------------------------------------------------------- routing without sorting


def logits_with_ties(experts: int) -> Tensor:
    """Few different values, so that most rows hold equal ones; some are minus infinity."""
    values = torch.tensor([-1.5, 0.0, 0.25, 2.0, float("-inf")])
    return values[torch.randint(5, (400, experts), generator=generator(experts, "ties"))]


@pytest.mark.parametrize("experts", [2, 3, 5, 8])
def test_ranks_are_places_in_a_stable_sort(experts: int) -> None:
    for logits in (logits_with_ties(experts), torch.randn(400, experts, generator=generator(0, "logits"))):
        for row, ranks in zip(logits.tolist(), expert_ranks(logits).tolist(), strict=True):
            order = sorted(range(experts), key=lambda e: -row[e])
            assert [order.index(e) for e in range(experts)] == ranks


@pytest.mark.parametrize("k", [1, 2, 3])
def test_gates_are_a_softmax_over_the_best(k: int) -> None:
    gate = NoisyTopKGate(6, 4, k)
    x, normal = torch.randn(50, 6, generator=generator(0, "x")), torch.randn(50, 4, generator=generator(0, "normal"))
    routing = gate(x, normal)
    clean = gate.Wg(x)
    noisy = clean + F.softplus(gate.Wnoise(x)) * normal
    best = noisy.topk(k, dim=-1)
    shares = noisy.softmax(-1).gather(1, best.indices) if k == 1 else best.values.softmax(-1)
    torch.testing.assert_close(routing.gates, torch.zeros(50, 4).scatter(1, best.indices, shares))
    assert torch.equal(routing.expert_idx, best.indices)
    torch.testing.assert_close(routing.noisy_logits, noisy)
    torch.testing.assert_close(routing.noise_std, F.softplus(gate.Wnoise(x)))


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_load_is_that_of_sorted_logits(k: int, published: bool) -> None:
    """With its gradient; and `counted` leaves tokens out of load and importance."""
    clean, noise = (torch.randn(60, 5, generator=generator(k, role)) for role in ("clean", "noise"))
    std = torch.rand(60, 5, generator=generator(k, "std")) + 0.1
    clean.requires_grad_()

    def load(tokens: slice) -> Tensor:
        noisy = (clean + std * noise)[tokens]
        top = noisy.topk(k + 1, dim=-1)
        kth, next_one = top.values[:, k - 1 : k], top.values[:, k:]
        chosen = torch.zeros(noisy.shape, dtype=torch.bool).scatter(-1, top.indices[:, :k], True)
        psi = torch.where(chosen, kth, next_one) if published else torch.where(chosen, next_one, kth)
        return torch.special.ndtr((clean[tokens] - psi) / std[tokens]).sum(dim=0)

    noisy = clean + std * noise
    gates = noisy.softmax(-1)
    routing = Routing(gates, noisy.topk(k).indices, clean, noisy, std)
    weights = torch.arange(5.0)
    for counted, tokens in ((None, slice(None)), ((torch.arange(60) < 40).float(), slice(40))):
        ours, theirs = expert_load(routing, published, counted), load(tokens)
        torch.testing.assert_close(ours, theirs)
        (mine,) = torch.autograd.grad((ours * weights).sum(), clean, retain_graph=True)
        (other,) = torch.autograd.grad((theirs * weights).sum(), clean, retain_graph=True)
        torch.testing.assert_close(mine, other)
        torch.testing.assert_close(expert_importance(routing, counted), gates[tokens].sum(dim=0))


# --------------------------------------------------------------------------- pre-sampled noise

SMALL = ModelConfig.of_size("XXS", embed_dim=24, depth=3, num_heads=4, num_groups=2, img_size=16, experts=[1, 3, 4])


def tensors(noise: PassNoise) -> list[Tensor]:
    return [values for layers in noise for layer in layers for values in layer if values is not None]


def filled(batch: int, rows: slice | None = None, step: int = 0, config: ModelConfig = SMALL) -> NoiseBuffers:
    buffers = NoiseBuffers(config, MaskingConfig(), batch, CPU, rows)
    buffers.fill(generator(0, "noise", step))
    return buffers


def test_noise_has_the_shapes_of_the_layers() -> None:
    encoder, decoder = filled(6).noise
    assert [(None if normal is None else normal.shape, keep.shape) for normal, keep in encoder] == [
        (None, (6 * 9, 24)),
        ((6 * 9, 3), (6 * 9, 24)),
        ((6 * 9, 4), (6 * 9, 24)),
    ]
    assert [tuple(normal.shape) for normal, _ in decoder] == [(6 * 21, 3)] * 2
    without = tensors(filled(2, config=SMALL.replace(dropout=0.0)).noise)
    assert [values.shape[1] for values in without] == [3, 4, 3, 3]


def test_parts_and_short_batches_see_the_numbers_of_the_whole() -> None:
    whole = filled(6)
    for rows in (slice(0, 2), slice(2, 6)):
        for part, values in zip(tensors(filled(6, rows).noise), tensors(whole.noise), strict=True):
            assert torch.equal(part, values.view(6, -1, values.shape[1])[rows].flatten(0, 1))
    for short, values in zip(tensors(whole.first(4)), tensors(whole.noise), strict=True):
        assert torch.equal(short, values[: len(values) // 6 * 4])
    assert whole.first(6) is whole.noise


def test_steps_differ_and_a_step_repeats_itself() -> None:
    """In place, too: what a captured or compiled step reads stays where it is."""
    buffers = filled(4)
    places = [values.data_ptr() for values in tensors(buffers.noise)]
    first = [values.clone() for values in tensors(buffers.noise)]
    buffers.fill(generator(0, "noise", 1))
    assert not any(torch.equal(a, b) for a, b in zip(first, tensors(buffers.noise), strict=True))
    buffers.fill(generator(0, "noise", 0))
    assert all(torch.equal(a, b) for a, b in zip(first, tensors(buffers.noise), strict=True))
    assert [values.data_ptr() for values in tensors(buffers.noise)] == places


def test_no_two_layers_share_numbers() -> None:
    noise = filled(4).noise
    normals = [layer.normal.flatten() for layers in noise for layer in layers if layer.normal is not None]
    assert len(torch.cat(normals).unique()) > 0.9999 * sum(map(len, normals))
    for layers in noise:
        keeps = torch.stack([layer.keep.flatten() for layer in layers])
        overlaps = torch.corrcoef(keeps) - torch.eye(len(keeps))
        assert overlaps.abs().max() < 0.2  # 864 numbers a layer: independent ones have about 0.03
    assert not torch.equal(noise.encoder[0].keep[:100, :24], noise.decoder[0].keep[:100, :24])


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9, 0.0001])
def test_dropout_keeps_the_mean(rate: float, monkeypatch) -> None:
    """Every 16-bit number once: the share of zeros is the rate, and the factors' mean is 1."""
    patterns = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(torch.int64)
    buffers = LayerNoiseBuffers([1], 16, batch=64, tokens=64, device="cpu", noise=True, dropout=rate)
    sampled = []

    def every_number(bits: Tensor, *limits: object, generator: torch.Generator | None) -> Tensor:
        sampled.append(limits)
        return bits.copy_(patterns)

    monkeypatch.setattr(Tensor, "random_", every_number)
    keep = buffers.fill(None)[0].keep.double()
    assert sampled == [(-(1 << 63), None)]  # all 64 bits
    assert (keep == 0).sum() == round(rate * 65_536)
    assert keep.mean().item() == pytest.approx(1.0, abs=1e-7)
    assert len(keep.unique()) == 2


def test_dropout_of_random_numbers_has_its_rate_everywhere() -> None:
    """Also in each of the four numbers cut from one draw, and without a trace from one to the next."""
    buffers = LayerNoiseBuffers([1], 128, batch=64, tokens=64, device="cpu", noise=True, dropout=0.1)
    dropped = (buffers.fill(generator(0, "dropout"))[0].keep == 0).float().view(-1, 4)
    spread = (0.1 * 0.9 / len(dropped)) ** 0.5
    assert ((dropped.mean(0) - 0.1).abs() < 4 * spread).all()
    assert (torch.corrcoef(dropped.T) - torch.eye(4)).abs().max() < 4 / len(dropped) ** 0.5


def test_rates_that_leave_almost_nothing() -> None:
    keep = LayerNoiseBuffers([1], 16, 8, 8, "cpu", noise=False, dropout=1 - 1e-7).fill(generator(0, "x"))[0].keep
    assert keep.isfinite().all()


# --------------------------------------------------------------------------- bfloat16


def test_the_precision_that_a_config_asks_for(monkeypatch) -> None:
    monkeypatch.setattr(devices, "bfloat16_is_fast", lambda: True)
    assert mixed_precision(CPU, "bf16") is torch.bfloat16
    assert [mixed_precision(CPU, amp) for amp in ("auto", "fp16", True, False)] == [None] * 4


def test_the_gate_is_not_rounded() -> None:
    gate, x = NoisyTopKGate(24, 4, 2), torch.randn(50, 24, generator=generator(0, "x"))
    for tokens in (x, x.bfloat16()):
        expected = gate(tokens.float())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = gate(tokens)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def in_both_precisions(model: MOEMAE, batch: Batch, masking: Masking) -> list:
    with torch.no_grad():
        runs = []
        for enabled in (False, True):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled, cache_enabled=False):
                losses, passed = mae_loss(model, batch.images, batch.meta, masking, batch.valid, noise=False)
                runs.append((losses, passed.encoded, model.encode(batch.images, batch.meta)))
    return runs


def check_bf16(model: MOEMAE, batch: Batch, masking: Masking) -> None:
    """Routing, tokens and losses in bfloat16, with a mask and without.

    A token's choice in a block agrees where the same experts are chosen. Near ties go either way whatever is rounded:
    99 % of all choices have to agree, and the tokens of which all do have to be the same within 2 %.
    """
    model.config = model.config.replace(dropout=0.0)
    (losses, *exact), (rounded_losses, *rounded) = in_both_precisions(model, batch, masking)
    for ours, theirs in zip(rounded, exact, strict=True):
        assert ours.pre_norm.dtype == torch.float32  # the residual stream is not rounded
        agreed = torch.stack(
            [((a.gates > 0) == (b.gates > 0)).all(1) for a, b in zip(ours.routing, theirs.routing, strict=True)]
        )
        assert agreed.float().mean() >= 0.99
        for mine, other in ((ours.pre_norm, theirs.pre_norm), (ours.tokens, theirs.tokens)):
            error, size = (mine - other).flatten(0, 1).norm(dim=1), other.flatten(0, 1).norm(dim=1)
            assert (error / size)[agreed.all(0)].max() <= 2e-2
            assert error.norm() / size.norm() <= 2e-2
            assert error.max() > 1e-5  # or nothing was rounded
    for mine, other in zip(rounded_losses, losses, strict=True):
        assert mine.item() == pytest.approx(other.item(), rel=1e-2)
        assert mine.dtype == torch.float32


def test_bf16_of_a_fresh_model() -> None:
    check_bf16(build_model("S", seed=0).eval(), *some_patches(SAMPLE, "bigearthnet-test.csv", 8))


@pytest.mark.runs
def test_bf16_of_a_trained_model(reference_dir, real_patches) -> None:
    model = read_checkpoint(reference_dir / "reference" / "published_layout_S.pth").build()
    check_bf16(model, *some_patches(real_patches, "samples.csv", 8))
