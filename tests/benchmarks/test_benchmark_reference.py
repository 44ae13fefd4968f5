"""The reference that is timed against computes the right thing, in the way and at the cost of the published code."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import reference_cost
from benchmarks.reference import ReferenceMAE
from benchmarks.reference_cost import judge
from benchmarks.reference_work import ReferenceFiles, ReferenceTraining, by_field, reference_embed, reference_loader
from benchmarks.setting import SAMPLE
from datasets.bigearthnet import BigEarthNetDatasetLS
from models import ModelConfig, build_model
from models.losses import mae_loss
from models.masking import random_masking
from models.published_layout import to_published
from utils.metadata import PUBLISHED_FIELDS
from utils.randomness import generator

CPU = torch.device("cpu")


def reference_like(model, noise: bool = False) -> ReferenceMAE:
    """The reference with the same weights."""
    reference = ReferenceMAE(model.config, noise=noise)
    reference.load_state_dict(to_published(model.state_dict(), model.config), strict=True)
    return reference


# --------------------------------------------------------------------------- the reference is right


def test_reference_has_the_published_layout() -> None:
    state = ReferenceMAE(ModelConfig.of_size("S")).state_dict()
    assert len(state) == 692
    config = ModelConfig.of_size("S")
    assert set(state) == set(to_published(build_model(config).state_dict(), config))


@pytest.fixture(scope="module")
def pair():
    """A small model, the reference with its weights, and a batch; dropout and noise off, every bias and position far
    from its start."""
    model = build_model("XXS", seed=3, img_size=16, published_behaviour=True, dropout=0.0)
    rng = generator(5, "benchmark parity")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=rng)
    images, meta = torch.randn(4, 7, 16, 16, generator=rng), torch.randn(4, 4, 2, generator=rng)
    return model, reference_like(model), images, meta, torch.rand(4, 16, generator=rng)


def test_reference_losses_and_prediction(pair) -> None:
    model, reference, images, meta, mask_noise = pair
    masking = random_masking(mask_noise, model.masking.ratio)
    losses, _ = mae_loss(model, images, meta, masking, noise=False)
    predicted, _ = model(images, meta, masking, noise=False)
    found, prediction = reference(images, by_field(meta), mask_noise)
    assert (prediction - predicted).abs().max() <= 1e-4
    for ours, theirs in zip(losses, found, strict=True):
        assert theirs.item() == pytest.approx(ours.item(), rel=1e-5)


def test_reference_gradients(pair) -> None:
    model, reference, images, meta, mask_noise = pair
    masking = random_masking(mask_noise, model.masking.ratio)
    model.zero_grad(), reference.zero_grad()
    mae_loss(model, images, meta, masking, noise=False)[0].total.backward()
    reference(images, by_field(meta), mask_noise)[0].total.backward()
    wanted = to_published({name: p.grad for name, p in model.named_parameters() if p.grad is not None}, model.config)
    for name, parameter in reference.named_parameters():
        grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        expected = wanted.get(name, torch.zeros_like(grad))
        assert (grad - expected).norm() <= 1e-3 * expected.norm() + 1e-5, name


def test_reference_embeddings(pair) -> None:
    model, reference, images, meta, _ = pair
    with torch.no_grad():
        expected = model.eval().encode(images, meta).pre_norm.flatten(1).numpy()
    assert np.abs(reference_embed(reference, images, meta, CPU) - expected).max() <= 1e-4


def test_reference_keeps_its_noise_in_evaluation(pair) -> None:
    model, _, images, meta, _ = pair
    noisy = reference_like(model, noise=True)
    first, second = (reference_embed(noisy, images, meta, CPU) for _ in range(2))
    assert np.abs(first - second).max() > 1e-3


def test_reference_reads_what_the_dataset_reads() -> None:
    dataset = BigEarthNetDatasetLS(SAMPLE, "samples.csv", published_behaviour=True)
    ids = dataset.ids[:3]
    (batch,) = reference_loader(SAMPLE / "images", ids)
    expected = dataset.batch(range(3))
    assert batch["id"] == ids
    assert torch.allclose(batch["image"], expected.images, atol=1e-5)
    for i, field in enumerate(("week", "hour", "lat", "lon")):
        assert torch.allclose(batch[field], expected.meta[:, i], atol=1e-6), field
    assert len(ReferenceFiles(SAMPLE / "images", ids)) == 3


def test_reference_gives_what_the_published_code_gave(reference_dir) -> None:
    """The published checkpoint, loaded as it is, on the published inputs."""
    folder = reference_dir / "reference"
    arrays = np.load(folder / "published_layout_S_outputs.npz")
    known = {name: torch.from_numpy(arrays[name]) for name in arrays.files if name != "ids"}
    reference = ReferenceMAE(ModelConfig.of_size("S"), noise=False).eval()
    content = torch.load(folder / "published_layout_S.pth", map_location="cpu", weights_only=True)
    reference.load_state_dict(content["model_state"], strict=True)
    meta = {field: known[f"meta_{field}"] for field in PUBLISHED_FIELDS}
    with torch.no_grad():
        normed, tokens, balance = reference.encoder(known["images"], meta)
        losses, predicted = reference(known["images"], meta, known["mask_noise"])
    for found, name in (
        (normed, "encoder_tokens_norm"), (tokens, "encoder_tokens"), (balance, "encoder_moe_loss"),
        (predicted, "pred"), (losses.total, "loss_total"), (losses.masked, "loss_masked"),
        (losses.visible, "loss_unmasked"), (losses.balance, "mae_moe_loss"),
    ):  # fmt: skip
        assert (found - known[name]).abs().max() <= 1e-4, name


# --------------------------------------------------------------------------- … and as slow as it claims


class CountOperations(TorchDispatchMode):
    """Counts what is computed, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.counts[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))


def test_reference_waits_for_the_device_as_often_as_the_published_code() -> None:
    """Twice for each of the 66 experts of size S: 132 of the 145 waits of a step (facts of the published code)."""
    model = ReferenceMAE(ModelConfig.of_size("S"))
    images, meta = torch.randn(8, 7, 40, 40), torch.randn(8, 4, 2)
    with CountOperations() as counted:
        model(images, by_field(meta))
    assert counted.counts["_local_scalar_dense"] == 66
    assert counted.counts["nonzero"] == 66
    assert counted.counts["_softmax"] >= 2 * 17  # attention and gate, written out
    assert not any("scaled_dot_product" in name for name in counted.counts)


def test_reference_trains() -> None:
    config = ModelConfig.of_size("XXS", img_size=16, published_behaviour=True)
    training = ReferenceTraining(config, CPU, seed=0)
    images, meta = torch.randn(8, 7, 16, 16), by_field(torch.randn(8, 4, 2))
    before = [parameter.clone() for parameter in training.model.parameters()]
    first = training.step(images, meta)  # the schedule starts from a rate of 0
    assert all(torch.equal(a, b) for a, b in zip(before, training.model.parameters(), strict=True))
    training.step(images, meta)
    assert any(not torch.equal(a, b) for a, b in zip(before, training.model.parameters(), strict=True))
    assert set(first) == {"total", "masked", "visible", "balance"}
    assert all(isinstance(value, float) and np.isfinite(value) for value in first.values())


def test_the_reference_cost_scales_with_the_rate() -> None:
    low, high = 2.06 * 217, 2.06 * 240  # published, in GFLOP
    assert judge("train", 2.06, 228e9).valid
    assert judge("train", 4.12, 114e9).valid  # half the machine, twice the time
    assert not judge("train", 2.06, 114e9).valid  # cheaper than the published code
    assert not judge("train", 4.12, 228e9).valid
    assert judge("train", 0.851 * low / 180, 180e9).valid and not judge("train", 0.849 * low / 180, 180e9).valid
    assert judge("train", 1.149 * high / 180, 180e9).valid and not judge("train", 1.151 * high / 180, 180e9).valid
    assert "VOID" in judge("embed", 0.1, 228e9).sentence
    assert set(reference_cost.PUBLISHED) == {"train", "embed"}


def test_honesty_lies_between_the_rates_of_two_libraries() -> None:
    """What `nn.Linear` computes may be scaled by its rate, everything else by the processor's."""
    low, high = (operations / 1e9 for operations in reference_cost.PUBLISHED["train"].operations)
    assert (
        judge("train", 0.86 * low / 400, 400e9, 200e9).valid and judge("train", 1.14 * high / 200, 400e9, 200e9).valid
    )
    assert not judge("train", 0.84 * low / 400, 400e9, 200e9).valid
    assert not judge("train", 1.16 * high / 200, 400e9, 200e9).valid
    assert "(with `nn.Linear` 200)" in judge("train", 1.5, 400e9, 200e9).sentence
