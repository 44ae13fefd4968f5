"""One training step against a plain computation with torch's own AdamW."""

import pytest
import torch
from tiny import TINY_MODEL

from datasets.patches import Batch
from models import build_model
from models.losses import LossWeights, mae_loss
from models.masking import make_masking, visible_patches
from models.noise import NoiseBuffers
from training.progress import EpochSums
from training.step import StepOptions, StepResult, TrainStep
from utils.randomness import generator

OPTIONS = {key: value for key, value in TINY_MODEL.items() if key not in ("size", "device")}
SEED, LR, DECAY, CLIP = 5, 1e-2, 0.3, 0.7
WEIGHTS = LossWeights(visible=0.4, balance=2.0)


def a_batch() -> Batch:
    rng = generator(0, "step test")
    valid = torch.ones(3, 40, 40, dtype=torch.bool)
    valid[0, :20] = False
    images = torch.randn(3, 7, 40, 40, generator=rng) * valid.unsqueeze(1)
    return Batch(images, torch.randn(3, 4, 2, generator=rng), valid, None, ["a", "b", "c"])


def options(**changes) -> StepOptions:
    values = {"seed": SEED, "weights": WEIGHTS, "grad_clip": CLIP, "metadata_dropout": 0.0, "autocast": None}
    values["batch_size"] = 3
    return StepOptions(**{**values, **changes})


def a_step(**changes) -> TrainStep:
    model = build_model("XXS", seed=0, **OPTIONS).train()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=DECAY, fused=True)
    return TrainStep(model, optimizer, options(**changes), torch.amp.GradScaler("cpu", enabled=False))


def run_steps(steps, batch=None, **changes):
    train_step = a_step(**changes)
    results = [train_step(batch or a_batch(), step, LR) for step in steps]
    return train_step.model, results


def test_two_steps_by_hand() -> None:
    """Mask, noise and dropout from (seed, role, step); fill without weight; both loss weights; clipping; AdamW."""
    model, results = run_steps((0, 1))
    plain = build_model("XXS", seed=0, **OPTIONS).train()
    parameters = list(plain.parameters())
    first = [torch.zeros_like(p) for p in parameters]
    second = [torch.zeros_like(p) for p in parameters]
    batch = a_batch()
    for step in (0, 1):
        drawn = torch.rand(3, 100, generator=generator(SEED, "mask", step))
        masking = make_masking(drawn, plain.masking, visible_patches(batch.valid, 4))
        buffers = NoiseBuffers(plain.config, plain.masking, 3, torch.device("cpu"))
        presampled = buffers.fill(generator(SEED, "routing noise and dropout", step))
        losses, _ = mae_loss(plain, batch.images, batch.meta, masking, batch.valid, WEIGHTS, presampled=presampled)
        total = losses.masked + 0.4 * losses.visible + 2.0 * losses.balance
        grads = torch.autograd.grad(total, parameters)
        norm = torch.sqrt(sum(grad.square().sum() for grad in grads))
        assert results[step].grad_norm.item() == pytest.approx(norm.item(), rel=1e-5)
        assert norm > CLIP
        for p, grad, m, v in zip(parameters, grads, first, second, strict=True):
            grad = grad * CLIP / norm
            m.mul_(0.9).add_(grad, alpha=0.1)
            v.mul_(0.999).add_(grad.square(), alpha=0.001)
            with torch.no_grad():
                p.mul_(1 - LR * DECAY)
                p.sub_(LR * (m / (1 - 0.9 ** (step + 1))) / ((v / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8))
    for (name, ours), theirs in zip(model.named_parameters(), parameters, strict=True):
        if not name.endswith("k_proj.bias"):  # whose gradient is rounding noise, which Adam makes steps of
            assert (ours - theirs).abs().mean() < 1e-5, name


def test_every_step_has_its_own_randomness() -> None:
    """The same weights and batch give another loss at another step, and the same at the same."""
    losses = [run_steps((step,))[1][0].losses.masked.item() for step in (0, 1, 2, 1)]
    assert losses[1] == losses[3]
    assert len(set(losses)) == 3


def test_fill_does_not_reach_the_gradient() -> None:
    batch = a_batch()
    _, clean = run_steps((0,))
    spoiled = batch._replace(images=batch.images.masked_fill(~batch.valid.unsqueeze(1), 0.0))
    assert torch.equal(spoiled.images, batch.images)
    everything = batch._replace(valid=torch.ones_like(batch.valid))
    _, (counted,) = run_steps((0,), everything)
    assert counted.losses.masked.item() != pytest.approx(clean[0].losses.masked.item(), rel=1e-3)


def test_sums_leave_out_norms_of_skipped_steps_and_survive_a_restart() -> None:
    model, results = run_steps((0, 1))
    sums = EpochSums(model.config, torch.device("cpu"))
    sums.add(results[0], 0.1, 3)
    skipped = StepResult(results[1].losses, torch.tensor(float("inf")), results[1].chosen, results[1].counted)
    sums.add(skipped, 0.2, 3)
    averages = sums.averages()
    assert averages["grad_norm"] == pytest.approx(results[0].grad_norm.item(), rel=1e-6)
    assert averages["skipped_steps"] == 1
    assert averages["avg_lr"] == pytest.approx(0.15)
    again = EpochSums(model.config, torch.device("cpu"))
    again.restore(sums.state())
    assert again.averages() == averages
