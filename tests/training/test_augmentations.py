"""Missing bands, random fill and their strengths, by themselves and in a training step."""

import pytest
import torch
from tiny import some_pixels, training_config, write_bigearthnet
from tiny_step import SIZE, a_batch, a_step

from configs.schema import read_config
from datasets.labelled_folder import FolderOptions, LabelledFolderDataset
from datasets.loader import BatchLoader
from datasets.mixture import MixedDataset
from datasets.patches import Batch
from models.masking import visible_patches
from training.recipe import step_options
from training.step import TrainStep
from transformation.augmentations import (
    AUGMENTATIONS,
    BAND_SETS,
    Augmented,
    band_dropout,
    band_sets,
    random_fill,
    symmetries,
)
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
    assert band_dropout(given, draws("band_dropout"), 1.0).bands.all()


def test_sets_of_bands_are_those_of_other_sensors_or_random_ones() -> None:
    given, draw = images(2000), draws("band_sets", 2000)
    found = band_sets(given, draw, 0.6)
    assert found.images is given.images and found.bands.any(dim=1).all()
    whole = found.bands.all(dim=1)
    assert not whole[draw[:, 0] < 0.6][draw[:, 1][draw[:, 0] < 0.6] < 0.75].any() and whole[draw[:, 0] >= 0.6].all()
    for number, names in enumerate(BAND_SETS.values()):
        of_kind = (draw[:, 0] < 0.6) & ((draw[:, 1] * 4).long() == number)
        assert of_kind.float().mean().item() == pytest.approx(0.15, abs=0.03)
        assert all(row == [name in names for name in OLI.common] for row in found.bands[of_kind].tolist())
    at_random = found.bands[(draw[:, 0] < 0.6) & (draw[:, 1] >= 0.75)].float().mean(0)
    assert at_random == pytest.approx(torch.full((7,), 0.5), abs=0.1)
    assert BAND_SETS["six"] == ("blue", "green", "red", "nir08", "swir16", "swir22")
    assert band_sets(given, draw * 0 + torch.tensor([0.0, 0.9] + [0.1] * 7), 1.0).bands.all(), "never none"


def test_two_augmentations_of_bands_leave_one_at_least() -> None:
    given = images()._replace(bands=torch.eye(7, dtype=torch.bool)[torch.arange(COUNT) % 7])
    for name in ("band_sets", "band_dropout"):
        found = AUGMENTATIONS[name].apply(given, draws(name), 0.9)
        assert torch.equal(found.bands, given.bands), "an image of which none would be left has what it had"


def test_a_missing_band_is_what_an_image_without_it_becomes(tmp_path) -> None:
    """A folder of six-band images: the encoder is given the same numbers, where the mean stands for a missing band."""
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
    bands = band_dropout(Augmented(whole, batch.valid), draw, 0.5).bands
    assert torch.equal(a_step().model.encoder.of_bands(whole, bands), batch.images)


def test_bands_that_the_files_lack_are_missing_to_the_encoder_in_training(tmp_path) -> None:
    write_bigearthnet(tmp_path / "seven", {"c": some_pixels(3), "d": some_pixels(4), "e": some_pixels(5)})
    write_bigearthnet(tmp_path / "six", {"a": some_pixels(1)[1:], "b": some_pixels(2)[1:]})
    parts = []
    for name, bands in (("seven", OLI.bands), ("six", OLI.bands[1:])):
        (folder := tmp_path / f"labelled_{name}" / "field").mkdir(parents=True)
        for path in (tmp_path / name / "images").iterdir():
            path.rename(folder / path.name)
        options = FolderOptions(bands, 2.75e-5, -0.2)
        parts.append(LabelledFolderDataset(folder.parent, "0-100%", image_size=40, options=options))
    mixed = MixedDataset(*parts, 0.4)
    assert parts[0].bands_of([0]) is None
    (batch,) = BatchLoader(mixed, 8, 0, torch.device("cpu")).training_batches(range(5), padded=True)
    six = [name[-5] in "ab" for name in batch.ids]
    assert sum(six) == 2 and (~batch.bands[:, 0]).tolist() == [*six, False, False, False] and batch.bands[:, 1:].all()
    first = batch._replace(images=batch.images[:5], meta=None, valid=batch.valid[:5], bands=batch.bands[:5])
    assert torch.equal(a_step().inputs(first, 0).bands, first.bands)
    fewer = with_augmentations(("band_dropout", 0.5)).inputs(first, 0).bands
    assert not (fewer & ~first.bands).any() and not torch.equal(fewer, first.bands)


def test_missing_bands_are_hidden_from_the_encoder_and_predicted(monkeypatch) -> None:
    step, seen = with_augmentations(("band_dropout", 0.5)), []
    real = step.model.encoder.of_bands
    monkeypatch.setattr(step.model.encoder, "of_bands", lambda *given: (seen.append(given[1]), real(*given))[1])
    batch = clean_batch()
    inputs = step.inputs(batch, 0)
    assert torch.equal(inputs.images, batch.images) and not inputs.bands.all()
    result = step.compute(inputs)
    assert torch.equal(seen[0], inputs.bands)
    other = with_augmentations(("band_dropout", 0.5))
    changed = other.compute(other.inputs(batch, 0)._replace(images=batch.images + 1.0))
    assert changed.losses.masked != result.losses.masked  # by what is to be predicted
    assert torch.equal(seen[0], other.inputs(batch, 0).bands)  # the same at the same step


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
    assert torch.equal(whole.images[:3], part.images) and torch.equal(whole.bands[:3], part.bands)
    assert SIZE > 3 and torch.equal(whole.valid[:3], part.valid)


def first_rows(count: int) -> dict[str, object]:
    batch = clean_batch()
    return {"images": batch.images[:count], "meta": batch.meta[:count], "valid": batch.valid[:count]}
