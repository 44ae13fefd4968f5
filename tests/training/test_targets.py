"""What is predicted beside the pixels: masked metadata, random features, whole images. Off by default."""

import pytest
import torch
from pretraining import same_weights, train, weights
from target_step import ALL, fitted, plus_step
from tiny import training_config
from tiny_step import CONFIG, CPU, ROWS, SIZE, a_batch, padded

from configs.schema import TrainingSection, read_config
from models.checkpoint import EXTRA_KEY, read_checkpoint
from models.losses import LossWeights
from models.target import Examples, TargetOptions
from models.targets import TARGETS
from training.progress import EpochSums
from training.recipe import step_options
from transformation.augmentations import Augmented, symmetries
from transformation.random_features import RandomFeatures, image_mean
from utils.errors import ConfigError

PLUS = {
    "metadata_masking": 0.5,
    "targets": {**ALL, "contrast": 1.0},
    "augmentations": ["symmetries", "band_dropout", "random_fill"],
}


# --------------------------------------------------------------------------- one step


@pytest.mark.parametrize("name", TARGETS)
def test_gradients_reach_the_head_and_the_encoder(name: str) -> None:
    """With the weight of everything else at 0, so that they can only come from this target."""
    step = plus_step(fitted({name: 1.0}), weights=LossWeights(0.0, 0.0, 0.0), grad_clip=1e9)
    result = step(a_batch(), 0, 1e-3)
    assert result.targets is not None and result.targets.shape == (1,)
    assert result.losses.total.item() == pytest.approx(result.targets.item(), rel=1e-6)
    assert all(parameter.grad.abs().sum() > 0 for parameter in step.targets.parameters())
    encoder = step.model.encoder
    assert encoder.cls_token.grad.abs().sum() > 0 and encoder.patch_proj.weight.grad.abs().sum() > 0


def test_the_total_is_the_weighted_sum() -> None:
    result = plus_step()(a_batch(), 0, 1e-3)
    mae = result.losses.masked + 0.1 * result.losses.visible + 50.0 * result.losses.balance
    of_targets = (result.targets * torch.tensor(list(ALL.values()))).sum()
    assert result.losses.total.item() == pytest.approx((mae + of_targets).item(), rel=1e-5)


def test_padding_and_fill_count_in_no_target() -> None:
    batch = a_batch(0, ROWS)
    expected, found = (plus_step()(one, 0, 1e-3) for one in (batch, padded(batch)))
    torch.testing.assert_close(found.targets, expected.targets, rtol=1e-5, atol=1e-6)
    empty = batch._replace(valid=torch.zeros_like(batch.valid))
    step = plus_step()
    assert plus_step()(empty, 0, 1e-3).targets.tolist() == [0.0] * len(ALL)
    step(empty, 0, 1e-3)
    step.require_finite()


def test_targets_go_into_the_log_by_name() -> None:
    step = plus_step()
    sums = EpochSums(CONFIG, CPU, step.targets.names)
    for number in range(2):
        result = step(a_batch(number), number, 1e-3)
        sums.add(result, 1e-3, SIZE)
    again = EpochSums(CONFIG, CPU, step.targets.names)
    again.restore(sums.state())
    averages = again.averages()
    assert set(averages["target_errors"]) == set(ALL) and all(value > 0 for value in averages["target_errors"].values())
    assert sum(averages["expert_usage"][0]) == pytest.approx(1.0)


# --------------------------------------------------------------------------- masked metadata


def test_every_field_is_masked_by_its_own_chance() -> None:
    step = plus_step(metadata_masking=(0.0, 1.0, 0.5, 0.25), batch_size=400)
    meta = torch.ones(400, 4, 2)
    shown = step._some_masked(meta, 3)
    assert torch.equal(shown, step._some_masked(meta, 3))
    shares = (shown == 0).all(dim=-1).float().mean(dim=0).tolist()
    assert shares[:2] == [0.0, 1.0]
    assert shares[2:] == pytest.approx([0.5, 0.25], abs=0.1)
    assert torch.equal(shown != 0, (shown != 0).all(dim=-1, keepdim=True).expand_as(shown))


def test_a_masked_field_cannot_influence_what_is_predicted() -> None:
    """Neither its value nor that of another masked one: with all masked, the encoder sees the pixels only."""
    found = []
    for shift in (0.0, 1.0):
        step = plus_step(fitted({"metadata": 1.0}), masking=1.0)
        batch = a_batch()
        step.inputs(batch, 0)
        inputs = step.inputs(batch._replace(meta=batch.meta + shift), 0)
        assert (inputs.meta == 0).all() and torch.equal(inputs.known, batch.meta + shift)
        seen = []
        step.targets.heads["metadata"].head.register_forward_hook(lambda *call, seen=seen: seen.append(call[-1]))
        of_images = inputs.images, inputs.meta, inputs.valid, inputs.visible
        step.objective(*of_images, inputs.mask_noise, inputs.presampled, inputs.known)
        found.append(seen[0].detach())
    assert torch.equal(*found)


def test_fields_that_were_given_or_are_not_known_do_not_count() -> None:
    step = plus_step(fitted({"metadata": 1.0}), masking=0.0)
    assert step(a_batch(), 0, 1e-3).targets.item() == 0.0  # nothing was masked
    step = plus_step(fitted({"metadata": 1.0}), masking=1.0)
    batch = a_batch()
    assert step(batch._replace(meta=torch.zeros_like(batch.meta)), 0, 1e-3).targets.item() == 0.0  # nothing is known


def test_chances_by_field_follow_the_models_order() -> None:
    from configs.schema import Config

    training = TrainingSection(metadata_masking={"lon": 0.25, "week": 0.75})
    options = step_options(Config(training=training), CONFIG, CPU)
    assert options.metadata_masking == (0.75, 0.0, 0.0, 0.25)


# --------------------------------------------------------------------------- normalised pixels


def test_pixels_are_normalised_by_patch_and_band_group() -> None:
    """Neither the brightness nor the contrast of a group is left, but what differs between its bands is."""
    target, batch = TARGETS["normalised_pixels"](CONFIG, TargetOptions()), a_batch(3)
    images = 50.0 * batch.images  # far above the spread of a flat patch
    values, counted = target.numbers(Examples(images, torch.ones_like(batch.valid), batch.meta))
    assert values.shape == counted.shape == (SIZE * 16, CONFIG.patch_values) and (counted == 1).all()
    for group in values.view(-1, 7, 16).split((4, 1, 2), dim=1):
        flat = group.flatten(1)
        torch.testing.assert_close(flat.mean(dim=1), torch.zeros(len(flat)), rtol=0, atol=1e-4)
        torch.testing.assert_close(flat.std(dim=1, correction=0), torch.ones(len(flat)), rtol=0, atol=1e-3)
    other = images.clone()
    other[:, 4] = 3.0 * other[:, 4] + 7.0
    torch.testing.assert_close(target.numbers(Examples(other, batch.valid | True, None))[0], values, rtol=0, atol=1e-3)
    other[:, 0] += 100.0
    assert not torch.allclose(target.numbers(Examples(other, batch.valid | True, None))[0], values, atol=0.1)


def test_fill_is_in_no_normalised_pixel() -> None:
    target, batch = TARGETS["normalised_pixels"](CONFIG, TargetOptions()), a_batch(3)
    valid = torch.ones_like(batch.valid)
    valid[:, :2] = False
    values, counted = target.numbers(Examples(batch.images, valid, None))
    spoiled = torch.where(valid[:, None], batch.images, 1e4)
    again, _ = target.numbers(Examples(spoiled, valid, None))
    assert torch.equal((values * counted), (again * counted))
    assert counted.view(SIZE, 16, 7, 16)[:, :4].mean() == 0.5 and counted.view(SIZE, 16, 7, 16)[:, 4:].all()
    nothing, none = target.numbers(Examples(batch.images, torch.zeros_like(valid), None))
    assert torch.isfinite(nothing).all() and not none.any()


# --------------------------------------------------------------------------- random features


def test_filters_are_a_function_of_images_and_seed_and_leave_fill_out() -> None:
    batch = a_batch(2)
    first, same, other = (RandomFeatures(7, 5) for _ in range(3))
    first.fit(batch.images, batch.valid, 1)
    spoiled = torch.where(batch.valid[:, None], batch.images, 1e6)
    same.fit(spoiled, batch.valid, 1)
    other.fit(batch.images, batch.valid, 2)
    assert torch.equal(first.weight, same.weight) and not torch.equal(first.weight, other.weight)
    maps = first(batch.images)
    assert maps.shape == (SIZE, 10, 16, 16) and (maps >= 0).all() and maps.any()
    assert (maps[:, :5] * maps[:, 5:] == 0).all()  # a response is on one side of the threshold


def test_the_mean_over_an_image_leaves_fill_out() -> None:
    maps, valid = torch.ones(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
    valid[0, 0, :2] = True
    maps[0, :, 2:] = 9.0
    assert image_mean(maps, valid).tolist() == [[1.0] * 3, [0.0] * 3]


def test_targets_have_unit_spread_on_what_they_were_fitted_on() -> None:
    targets, batch = fitted(), a_batch(7)
    examples = Examples(batch.images, batch.valid, batch.meta, targets.features(batch.images))
    for target in targets.heads.values():
        values, counted = target.numbers(examples)
        found = target.scale(values)[counted > 0]
        assert found.mean().abs() < 0.01 and found.std() == pytest.approx(1.0, abs=0.05)


# --------------------------------------------------------------------------- augmentations


def test_the_eight_symmetries_are_different_and_move_fill_with_the_pixels() -> None:
    images = torch.arange(32.0).reshape(1, 2, 4, 4).expand(8, -1, -1, -1)
    moved, valid, bands = symmetries(Augmented(images, images[:, 0] != 1.0), torch.arange(8)[:, None] / 8, 1.0)
    assert torch.equal(moved[0], images[0])
    assert len({tuple(one.flatten().tolist()) for one in moved}) == 8
    assert torch.equal(valid, moved[:, 0] != 1.0)
    assert torch.equal(moved[:, 0] + 16, moved[:, 1])  # the bands stay together
    assert bands is None


# --------------------------------------------------------------------------- whole runs


def test_a_run_with_everything_on_goes_on_to_the_bit(tmp_path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    assert train(training_config(whole, epochs=2, **PLUS)) == 0
    config = training_config(parts, epochs=2, **PLUS)
    from training.pretrain import Pretraining
    from training.stopping import StopSignals

    class AfterThree(StopSignals):
        looks = 0

        @property
        def received(self):
            self.looks += 1
            return 2 if self.looks == 4 else None

        @received.setter
        def received(self, value) -> None: ...

    run = Pretraining(read_config(str(config), [], (), fresh_model=True), False, AfterThree())
    run.run()
    assert 0 < run.progress.batch_in_epoch < 3
    assert train(config, "--resume") == 0
    names = ("pretrained_XXS_last.pth", "training_metrics_XXS.csv")
    assert same_weights(*(folder / "run" / names[0] for folder in (whole, parts)))
    assert (whole / "run" / names[1]).read_bytes() == (parts / "run" / names[1]).read_bytes()
    saved = [read_checkpoint(folder / "run" / "checkpoint_XXS.pth").content[EXTRA_KEY] for folder in (whole, parts)]
    heads = [one["run"]["targets"] for one in saved]
    assert heads[0].keys() == heads[1].keys() and all(torch.equal(heads[0][name], heads[1][name]) for name in heads[0])
    # The heads are for pretraining only: weights for use have the published names.
    assert not any("head" in name for name in weights(whole / "run" / names[0]))


def test_off_by_default_and_refused_with_a_reason(tmp_path) -> None:
    training = TrainingSection()
    assert (training.targets, training.metadata_masking, training.augmentations) == ({}, 0.0, [])
    for override, said in (
        ("training.targets={pixels: 1}", "training.targets.pixels"),
        ("training.augmentations=[mirror]", "symmetries"),
        ("training.metadata_masking=1.5", "training.metadata_masking"),
        ("training.metadata_masking={altitude: 0.5}", "altitude"),
    ):
        with pytest.raises(ConfigError, match=said.replace(".", r"\.")):
            read_config(str(training_config(tmp_path)), [override], (), fresh_model=True)
