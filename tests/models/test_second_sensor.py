"""A second sensor beside the first: its own projection and head, all else shared, and nothing changed without it."""

import pytest
import torch
from tiny import tiny_model

from models import ModelConfig
from models.checkpoint import as_asked, load_model, read_checkpoint, write_checkpoint
from models.config import to_record
from models.losses import masked_pass
from models.masking import patchify, random_masking
from models.moe import NO_NOISE
from models.noise import PassNoise
from models.target import Examples
from models.targets import Targets
from models.weights_folder import read_weights_folder, write_weights_folder
from training.objective import Objective
from utils.errors import CheckpointError
from utils.randomness import generator
from utils.sensors import LIKE_OLI

BOTH = ("oli", "msi")
OWN = {f"{place}_msi.{part}" for place in ("encoder.patch_proj", "decoder_pred") for part in ("weight", "bias")}


def both(**changes: object):
    return tiny_model(sensors=BOTH, **changes)


def images(bands: int, count: int = 2) -> torch.Tensor:
    return torch.randn(count, bands, 40, 40, generator=generator(1, "images"))


def masking(count: int = 2):
    return random_masking(torch.rand(count, 100, generator=generator(0, "mask")), 0.75)


def tokens(model, given: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.encode(given).pre_norm


def test_without_a_second_sensor_nothing_is_another() -> None:
    plain, two = tiny_model(), both()
    assert "sensors" not in to_record(plain.config, plain.masking)
    assert two.state_dict().keys() - plain.state_dict().keys() == OWN
    assert all(torch.equal(value, two.state_dict()[name]) for name, value in plain.state_dict().items())
    assert torch.equal(tokens(plain, images(7)), tokens(two, images(7)))


def test_it_begins_with_what_the_first_knows_of_the_same_bands() -> None:
    two, seen = both(), images(12)
    assert torch.allclose(tokens(two, seen), tokens(two, seen[:, list(LIKE_OLI)]), atol=1e-5)
    spoiled = seen.clone()
    spoiled[:, [4, 5, 6, 7, 9]] += 3.0
    assert torch.allclose(tokens(two, spoiled), tokens(two, seen), atol=1e-5)
    predicted, _ = two(seen, None, masking(), noise=False)
    like, _ = two(seen[:, list(LIKE_OLI)], None, masking(), noise=False)
    assert predicted.shape == (2, 100, 12 * 16)
    by_band = predicted.view(2, 100, 12, 16)
    assert torch.allclose(by_band[:, :, list(LIKE_OLI)], like.view(2, 100, 7, 16), atol=1e-4)
    assert (by_band[:, :, 4] == 0).all()


@pytest.mark.parametrize("bands", [7, 12])
def test_a_batch_does_not_touch_the_other_sensors_weights(bands: int) -> None:
    model = both().train()
    masked_pass(model, images(bands), None, masking(), noise=False).sums[0].backward()
    touched = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    of_first = {name.replace("_msi", "") for name in OWN}
    own, others = (of_first, OWN) if bands == 7 else (OWN, of_first)
    assert own <= touched and touched.isdisjoint(others)
    assert any(name.startswith("encoder.layers.0") for name in touched), "the blocks are shared"


def test_in_training_a_patch_of_twelve_bands_counts_as_much_as_one_of_seven() -> None:
    model, wide, noise = both(), images(12), torch.rand(2, 100, generator=generator(0, "mask"))
    valid = torch.ones(2, 40, 40, dtype=torch.bool)
    sums, _ = Objective(model, None)(wide, None, valid, None, noise, PassNoise((NO_NOISE,) * 2, (NO_NOISE,) * 2))
    passed = masked_pass(model, wide, None, masking(), valid, noise=False)
    assert torch.allclose(sums[[0, 2]], passed.sums[[0, 2]] * 7 / 12) and torch.equal(sums[4:], passed.sums[4:])
    assert torch.equal(sums[[1, 3]], passed.sums[[1, 3]])
    error = (passed.predicted - patchify(wide, 4)).square().sum(dim=-1)
    assert torch.allclose(passed.errors.error, error, rtol=1e-4), "evaluation sums over all values"


def test_files_carry_both_sensors(tmp_path) -> None:
    pytest.importorskip("safetensors")
    model = both()
    with torch.no_grad():
        model.encoder.patch_proj_msi.weight.add_(0.1)
    write_checkpoint(tmp_path / "both.pth", model, epoch=0, best_train_loss=1.0)
    again = load_model(tmp_path / "both.pth")
    assert again.config.sensors == BOTH and torch.equal(tokens(again, images(12)), tokens(model, images(12)))
    write_weights_folder(tmp_path / "folder", model, {})
    read = read_weights_folder(tmp_path / "folder").build()
    assert torch.equal(tokens(read, images(12)), tokens(model, images(12)))
    with pytest.raises(CheckpointError, match=r"model\.sensors is \[oli, msi\], not \[oli\]"):
        load_model(tmp_path / "both.pth", {"sensors": ["oli"]})


def test_weights_of_one_sensor_can_be_given_a_second(tmp_path) -> None:
    write_checkpoint(tmp_path / "one.pth", tiny_model(), epoch=0, best_train_loss=1.0)
    found = read_checkpoint(tmp_path / "one.pth")
    assert as_asked(found).build().config.sensors == ("oli",)
    model = as_asked(found, {"sensors": ["oli", "msi"]}).build()
    assert torch.equal(tokens(model, images(12)), tokens(both(), images(12)))
    with pytest.raises(CheckpointError, match="cannot be used as asked"):
        as_asked(found, {"sensors": ["oli", "aster"]})


def test_what_is_impossible_is_said() -> None:
    assert any(key == "sensors" for key, _ in ModelConfig.problems_of("XXS", sensors=["msi"]))
    assert any(key == "sensors" for key, _ in ModelConfig.problems_of("XXS", sensors=BOTH, in_channels=6))
    with pytest.raises(ValueError, match=r"this model takes \(B, \(7, 40, 40\)\)$"):
        tiny_model().encode(images(12))
    with pytest.raises(ValueError, match=r"this model takes .* or "):
        both().encode(images(9))
    with pytest.raises(ValueError, match="bands has shape"):
        both().encode(images(12), bands=torch.ones(2, 12, dtype=torch.bool))


def test_targets_of_the_second_sensor_are_of_the_bands_that_both_have() -> None:
    targets = Targets(both().config, {"image": 1.0}, seed=0)
    valid, wide = torch.ones(2, 40, 40, dtype=torch.bool), images(12)
    targets.fit(Examples(images(7), valid, None), seed=0)
    two = [targets._with_responses(targets._of_first(Examples(given, valid, None)))
           for given in (wide, wide[:, list(LIKE_OLI)])]  # fmt: skip
    assert torch.equal(two[0].responses, two[1].responses)
