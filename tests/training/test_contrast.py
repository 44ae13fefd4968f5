"""Two views of the images of a batch, told apart."""

import math

import pytest
import torch
from target_step import fitted, plus_step
from tiny import training_config
from tiny_step import ROWS, a_batch, padded

from configs.schema import read_config
from models.contrast import info_nce
from models.target import TargetOptions
from models.targets import Targets
from training.pretrain import Pretraining
from training.stopping import StopSignals
from utils.errors import ConfigError
from utils.processes import Processes
from utils.randomness import generator

ONE = {"contrast": 1.0}


def views(count: int = 5) -> list[torch.Tensor]:
    return [torch.randn(count, 6, generator=generator(0, name)) for name in ("first", "second")]


def test_by_hand() -> None:
    first, second = views(3)
    error, weight = info_nce(first, second, torch.ones(3, dtype=torch.bool), 0.5).tolist()
    cosine = [[torch.cosine_similarity(a, b, dim=0).item() / 0.5 for b in second] for a in first]
    expected = 0.0
    for i in range(3):
        forth = math.log(sum(math.exp(cosine[i][j]) for j in range(3))) - cosine[i][i]
        back = math.log(sum(math.exp(cosine[j][i]) for j in range(3))) - cosine[i][i]
        expected += (forth + back) / 2
    assert (error, weight) == (pytest.approx(expected, rel=1e-5), 3.0)
    same = info_nce(first, first, torch.ones(3, dtype=torch.bool), 0.01)
    assert same[0].item() == pytest.approx(0.0, abs=1e-3)


def test_images_that_do_not_count_are_neither_asked_for_nor_to_choose_from() -> None:
    first, second = views(5)
    counted = torch.tensor([True, False, True, True, False])
    found = info_nce(first, second, counted, 0.1)
    expected = info_nce(first[counted], second[counted], torch.ones(3, dtype=torch.bool), 0.1)
    torch.testing.assert_close(found, expected)
    first.requires_grad_()
    nothing = info_nce(first, second, torch.zeros(5, dtype=torch.bool), 0.1)
    nothing[0].backward()
    assert nothing.tolist() == [0.0, 0.0] and first.grad.abs().sum() == 0


def test_the_second_view_is_of_other_patches_without_metadata_and_its_own_at_every_step() -> None:
    step, seen = plus_step(fitted(ONE), masking=0.0), []
    real = step.model.encode

    def encode(images, meta=None, ids_keep=None, **options):
        seen.append((meta, ids_keep, options["presampled"]))
        return real(images, meta, ids_keep, **options)

    step.model.encode = encode
    for number in (0, 1, 0):
        step(a_batch(), number, 0.0)
    (meta, kept, noise), (none, others, other_noise) = seen[:2]
    assert meta is not None and none is None
    assert not torch.equal(kept, others) and not torch.equal(noise[0].keep, other_noise[0].keep)
    assert not torch.equal(others, seen[3][1]) and torch.equal(others, seen[5][1])


def test_padding_does_not_count_and_the_temperature_is_the_configs() -> None:
    batch = a_batch(0, ROWS)
    expected, found = (plus_step(fitted(ONE))(one, 0, 1e-3).targets for one in (batch, padded(batch)))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    config = plus_step(fitted(ONE)).model.config
    warmer = Targets(config, ONE, 3, TargetOptions(temperature=5.0))
    assert abs(plus_step(warmer)(batch, 0, 1e-3).targets.item() - math.log(ROWS)) < 0.2
    assert expected.item() != pytest.approx(math.log(ROWS), abs=0.01)


def test_nothing_changes_without_it() -> None:
    inputs = plus_step().inputs(a_batch(), 0)
    assert inputs.second_mask is None and inputs.second_noise == () and inputs.bands is None


def test_several_processes_are_refused(tmp_path) -> None:
    config = read_config(str(training_config(tmp_path, targets=ONE)), [], (), fresh_model=True)
    with pytest.raises(ConfigError, match=r"training\.targets: contrast.*run it in one"):
        Pretraining(config, False, StopSignals(), Processes(0, 2))
