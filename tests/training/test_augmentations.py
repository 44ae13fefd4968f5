"""Missing bands, random fill and their strengths, by themselves and in a training step."""

import pytest
import torch
from tiny import some_pixels, training_config, write_bigearthnet
from tiny_step import SIZE, a_batch, a_step

from configs.schema import read_config
from datasets.labelled_folder import FolderOptions, LabelledFolderDataset
from datasets.patches import Batch
from models.masking import visible_patches
from training.recipe import step_options
from training.step import TrainStep
from transformation.augmentations import AUGMENTATIONS, Augmented, band_dropout, random_fill, symmetries
from transformation.transformer import fill_hidden
from utils.errors import ConfigError
from utils.randomness import generator
from utils.sensors import OLI

COUNT = 200


def images(count: int = COUNT, side: int = 40) -> Augmented:
    source = generator(1, "augmentations")
    valid = torch.rand(count, side, side, generator=source) > 0.02
    pixels = torch.randn(count, 7, side, side, generator=source)
    return Augmented(fill_hidden(pixels, valid), valid)


def draws(name: str, count: int = COUNT) -> torch.Tensor:
    return torch.rand(count, AUGMENTATIONS[name].numbers, generator=generator(2, name))


def with_augmentations(*pairs: tuple[str, float]) -> TrainStep:
    step = a_step()
    step.options = step.options._replace(augmentations=pairs)
    return step


def clean_batch() -> Batch:
    """Of patches without fill."""
    batch = a_batch()
    return batch._replace(valid=torch.ones_like(batch.valid))


# --------------------------------------------------------------------------- bands


def test_bands_are_missing_one_by_one_and_never_all() -> None:
    given = images()
    found = band_dropout(given, draws("band_dropout"), 0.3)
    assert found.images is given.images and found.valid is given.valid
    assert found.bands.float().mean(0) == pytest.approx(torch.full((7,), 0.7), abs=0.1)
    shown = found.shown()
    missing = (shown == 0).flatten(2).all(dim=2)
    assert torch.equal(missing, ~found.bands)
    assert torch.equal(shown[found.bands], given.images[found.bands])
    assert band_dropout(given, draws("band_dropout"), 1.0).bands.all()
    assert images().shown() is None


def test_a_missing_band_is_what_an_image_without_it_becomes(tmp_path) -> None:
    """A folder of six-band images: the encoder is given the same numbers."""
    write_bigearthnet(tmp_path / "six", {"a": some_pixels(1)[1:], "b": some_pixels(2)[1:]})
    (folder := tmp_path / "labelled" / "field").mkdir(parents=True)
    for path in (tmp_path / "six" / "images").iterdir():
        path.rename(folder / path.name)
    dataset = LabelledFolderDataset(
        tmp_path / "labelled", "0-100%", image_size=40, options=FolderOptions(OLI.bands[1:], 2.75e-5, -0.2)
    )
    batch = dataset.batch([0, 1])
    draw = torch.ones(2, 7)
    draw[:, 0] = 0.0
    whole = batch.images.clone()
    whole[:, 0] = 3.0
    shown = band_dropout(Augmented(whole, batch.valid), draw, 0.5).shown()
    assert torch.equal(shown, batch.images)


def test_missing_bands_are_hidden_from_the_encoder_and_predicted(monkeypatch) -> None:
    step, seen = with_augmentations(("band_dropout", 0.5)), []
    real = step.model.encode_and_decode
    monkeypatch.setattr(
        step.model, "encode_and_decode", lambda given, *a, **k: (seen.append(given), real(given, *a, **k))[1]
    )
    batch = clean_batch()
    inputs = step.inputs(batch, 0)
    assert torch.equal(inputs.images, batch.images) and not torch.equal(inputs.shown, batch.images)
    result = step.compute(inputs)
    assert torch.equal(seen[0], inputs.shown)
    other = with_augmentations(("band_dropout", 0.5))
    changed = other.compute(other.inputs(batch, 0)._replace(images=batch.images + 1.0))
    assert changed.losses.masked != result.losses.masked  # by what is to be predicted
    assert torch.equal(seen[0], other.inputs(batch, 0).shown)  # the same at the same step


# --------------------------------------------------------------------------- fill


def test_fill_of_three_shapes_is_hidden_and_leaves_the_rest_as_it_was() -> None:
    given, draw = images(), draws("random_fill")
    found = random_fill(given, draw, 1.0)
    assert not (found.valid & ~given.valid).any()
    assert torch.equal(found.images, fill_hidden(given.images, found.valid))
    seen = found.valid[:, None].expand_as(found.images)
    assert torch.equal(found.images[seen], given.images[seen])
    hidden = (given.valid & ~found.valid).flatten(1).float().mean(1)
    kind = (draw[:, 1] * 3).long()
    for number in range(3):
        shares = hidden[kind == number]
        assert 0.1 < shares.mean() < 0.5 and shares.max() < 0.9, number
        assert (shares > 0.02).float().mean() > 0.6, number
    assert found.valid.flatten(1).any(1).all()
    patches = visible_patches(found.valid, 4)
    assert 0.05 < (~patches).float().mean() < 0.5


def test_strength_is_the_share_of_images_that_are_changed() -> None:
    given, draw = images(), draws("random_fill")
    for strength in (0.0, 0.3):
        changed = (random_fill(given, draw, strength).valid != given.valid).flatten(1).any(1)
        assert changed.float().mean().item() <= (draw[:, 0] < strength).float().mean().item()
        assert not changed[draw[:, 0] >= strength].any()
        assert changed.float().mean().item() == pytest.approx(strength, abs=0.1)
    moved = symmetries(given, draws("symmetries"), 0.4).images != given.images
    assert moved.flatten(1).any(1).float().mean().item() == pytest.approx(0.4 * 7 / 8, abs=0.1)


def test_an_image_of_which_nothing_would_be_left_stays() -> None:
    valid = torch.zeros(COUNT, 40, 40, dtype=torch.bool)
    valid[:, 20, 20] = True
    found = random_fill(Augmented(torch.ones(COUNT, 7, 40, 40), valid), draws("random_fill"), 1.0)
    assert torch.equal(found.valid, valid)
    nothing = torch.zeros_like(valid)
    assert not random_fill(Augmented(torch.zeros(COUNT, 7, 40, 40), nothing), draws("random_fill"), 1.0).valid.any()


def test_what_random_fill_hides_is_neither_seen_nor_counted() -> None:
    step, other = (with_augmentations(("random_fill", 1.0)) for _ in range(2))
    batch = clean_batch()
    hidden = ~step.inputs(batch, 3).valid
    assert hidden.any()
    spoiled = batch._replace(images=torch.where(hidden[:, None], 50.0, batch.images))
    assert step(batch, 3, 1e-3).losses == other(spoiled, 3, 1e-3).losses


# --------------------------------------------------------------------------- configs


def options_of(tmp_path, asked: object, **sections: object):
    config = read_config(str(training_config(tmp_path, augmentations=asked)), [], (), fresh_model=True)
    config = config.model_copy(update=sections)
    return step_options(config, a_step().model.config.replace(**sections), torch.device("cpu")).augmentations


def test_a_list_has_the_tables_strengths_and_a_mapping_its_own(tmp_path) -> None:
    assert options_of(tmp_path, ["symmetries", "band_dropout"]) == (("symmetries", 1.0), ("band_dropout", 0.15))
    asked = {"random_fill": 0.2, "symmetries": 0.5, "band_dropout": 0}
    assert options_of(tmp_path, asked) == (("random_fill", 0.2), ("symmetries", 0.5))
    assert options_of(tmp_path, []) == ()
    with pytest.raises(ConfigError, match=r"training\.augmentations"):
        options_of(tmp_path, {"band_dropout": 2.0})
    with pytest.raises(ConfigError, match="random_fill hides nothing with published_behaviour"):
        options_of(tmp_path, ["random_fill"], published_behaviour=True)


def test_one_shape_of_random_numbers_whatever_the_rows() -> None:
    """So that several processes together do what one does."""
    step = with_augmentations(("random_fill", 1.0), ("band_dropout", 0.5), ("symmetries", 1.0))
    whole, part = step.inputs(clean_batch(), 4), step.inputs(clean_batch()._replace(**first_rows(3)), 4)
    assert torch.equal(whole.images[:3], part.images) and torch.equal(whole.shown[:3], part.shown)
    assert SIZE > 3 and torch.equal(whole.valid[:3], part.valid)


def first_rows(count: int) -> dict[str, object]:
    batch = clean_batch()
    return {"images": batch.images[:count], "meta": batch.meta[:count], "valid": batch.valid[:count]}
