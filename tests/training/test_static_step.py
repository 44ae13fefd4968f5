"""A training step of one shape: padding counts nowhere, bad steps change nothing, and nothing waits for the host."""

import pytest
import torch
from host_reads import NoHostReads
from tiny_step import CONFIG, CPU, ROWS, SIZE, a_batch, a_step, numbers, padded
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from models import MOEMAE
from models.masking import visible_patches
from training.progress import EpochSums
from training.step import StepInputs
from transformation.transformer import ZScoreNormalize
from utils.data_config import BigEarthNetInfo
from utils.errors import TrainingDiverged

# --------------------------------------------------------------------------- padding


@pytest.mark.parametrize("published", [False, True])
def test_padding_counts_nowhere(published: bool) -> None:
    """Losses, balance included, gradients, expert counts, and the weights after several steps."""
    plain, full = (a_step(config=CONFIG.replace(published_behaviour=published)) for _ in range(2))
    for number in range(3):
        batch = a_batch(number, ROWS)
        if published:  # fill is data there
            batch = batch._replace(valid=torch.ones_like(batch.valid))
        expected, found = plain(batch, number, 1e-3), full(padded(batch), number, 1e-3)
        assert numbers(found) == pytest.approx(numbers(expected), rel=1e-5)
        assert found.counted.item() == ROWS
        assert torch.equal(found.chosen, expected.chosen)
        assert found.chosen.sum() == 2 * 2 * ROWS * 9  # two of the experts, in two blocks, for every token
        for (name, ours), theirs in zip(full.model.named_parameters(), plain.model.parameters(), strict=True):
            assert (ours.grad - theirs.grad).norm() <= 1e-5 * (theirs.grad.norm() + 1e-2), name
            if not name.endswith("k_proj.bias"):  # whose gradient is rounding noise, which Adam makes steps of
                assert (ours - theirs).abs().mean() < 1e-5, name


def test_what_is_in_the_padding_does_not_matter() -> None:
    batch = padded(a_batch(0, ROWS))
    other = batch.images.clone()
    other[ROWS:] = 30.0
    results = [a_step()(batch._replace(images=images), 0, 1e-3) for images in (batch.images, other)]
    assert numbers(results[0]) == numbers(results[1])
    everything = a_step()(batch._replace(valid=torch.ones_like(batch.valid)), 0, 1e-3)
    assert numbers(everything) != pytest.approx(numbers(results[0]), rel=1e-2)


def test_without_a_single_patch_nothing_moves() -> None:
    """Batches without a valid pixel: losses of 0 and no NaN, which would end the run."""
    step = a_step()
    batch = a_batch()
    result = step(batch._replace(valid=torch.zeros_like(batch.valid)), 0, 1e-3)
    assert numbers(result) == [0.0] * 6
    step.require_finite()


# --------------------------------------------------------------------------- steps that are not finite


@pytest.mark.parametrize("spoiled", [float("nan"), float("inf"), 1e30])
def test_a_step_that_is_not_finite_changes_nothing_for_good(spoiled: float) -> None:
    """Not the weights nor the optimizer, nor do the steps after it, until somebody looks."""
    step = a_step()
    for number in range(2):
        step(a_batch(number), number, 1e-3)

    def everything() -> list[Tensor]:
        states = step.optimizer.state_dict()["state"].values()
        moments = [value.clone() for state in states for value in state.values()]
        return [*(parameter.detach().clone() for parameter in step.model.parameters()), *moments]

    before = everything()
    step.require_finite()
    bad = a_batch(2)
    bad.images[1, 2, 3, 4] = spoiled
    bad.valid[1, 3, 4] = True
    for number, batch in ((2, bad), (3, a_batch(3)), (4, a_batch(4))):
        step(batch, number, 1e-3)
        assert all(torch.equal(a, b) for a, b in zip(before, everything(), strict=True))
    with pytest.raises(TrainingDiverged, match="at step 2"):
        step.require_finite()
    assert len(before) == 4 * len(list(step.model.parameters()))


# --------------------------------------------------------------------------- nothing waits


def test_a_step_never_waits_for_the_device() -> None:
    step = a_step()
    step._looks_at_pixels = False  # as on a GPU; on a CPU nothing has to be waited for
    sums = EpochSums(step.model.config, CPU)
    with NoHostReads():
        for number in range(2):
            result = step(padded(a_batch(number, ROWS)), number, 1e-3)
            sums.add(result, 1e-3, ROWS)
        for read in (result.grad_norm.item, result.chosen.nonzero, step.require_finite, sums.averages):
            with pytest.raises(AssertionError, match="the host waits"):
                read()
    assert sums.averages()["skipped_fill"] == 0


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="this PyTorch is built without CUDA")
def test_a_step_on_fake_cuda_tensors(monkeypatch) -> None:
    """Tensors without content that claim to be on a GPU: nothing in a step needs their numbers, or leaves their device.

    The backward pass itself wants a driver; it is left out here.
    """
    monkeypatch.setattr(nn.init, "trunc_normal_", lambda tensor, **_: tensor)  # looks at its numbers
    gpu = torch.device("cuda")

    def backward(loss: Tensor) -> None:
        assert loss.device.type == "cuda"
        for parameter in step.model.parameters():
            parameter.grad = torch.zeros_like(parameter)

    monkeypatch.setattr(Tensor, "backward", backward)
    with FakeTensorMode():
        with gpu:
            model = MOEMAE(CONFIG)
            pixels = torch.zeros(SIZE, 7, 16, 16, dtype=torch.int16)
            meta, noise = torch.zeros(SIZE, 4, 2), torch.zeros(SIZE, 16)
        step = a_step(model=model)
        images, valid = ZScoreNormalize(BigEarthNetInfo.STATISTICS)(pixels)
        visible = visible_patches(valid, CONFIG.patch_size)
        inputs = StepInputs(images, meta, valid, visible, noise, step._buffers.noise, step._number)
        result = step.compute(inputs)
        EpochSums(model.config, gpu).add(result, 1e-3, SIZE)
        assert {value.device.type for value in (*result.losses, *result[1:])} == {"cuda"}
        with pytest.raises(RuntimeError):
            step.compute(inputs._replace(mask_noise=torch.zeros(SIZE, 16, device="cpu")))
