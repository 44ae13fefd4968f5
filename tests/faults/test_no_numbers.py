"""NaN, infinities and numbers that no ground has, at each place: hidden and counted by file, or refused; never used."""

import logging
import warnings

import numpy as np
import pytest
import torch
from scene_files import some_numbers, write_band
from tiny import tiny_model

from datasets.labelled_folder import FolderOptions, LabelledFolderDataset
from datasets.loader import BatchLoader
from embed.sklearn_step import MoEMAETransformer
from models.checkpoint import write_checkpoint
from scenes.input.product import SceneOptions, find_scene
from scenes.input.reader import SceneReader
from utils.errors import DataError

BAD = (np.nan, np.inf, -np.inf, 3e38, -3e38, 1e20, -1e20)
REFLECTANCE = (some_numbers((44, 46)) * 2.75e-5 - 0.2).astype(np.float32)


def spoiled(bad: float, band: int, row: int = 20, column: int = 21) -> np.ndarray:
    values = REFLECTANCE.copy()
    values[band, row, column] = bad
    return values


def hidden(row: int = 20, column: int = 21) -> np.ndarray:
    """What the same patch is where all that is said of the pixel is that it is hidden."""
    values = REFLECTANCE.copy()
    values[:, row, column] = np.nan
    return values


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("kind", ["numpy", "double", "torch", "list", "xarray"])
def test_arrays(model, bad, kind) -> None:
    expected = model.embed(hidden(), scale=(1, 0), nodata=np.nan)
    for band in (0, 3, 6):
        values = spoiled(bad, band)
        if kind == "double":
            values = values.astype(np.float64)
        elif kind == "torch":
            values = torch.from_numpy(values)
        elif kind == "list":
            values = [values]
        elif kind == "xarray":
            xarray = pytest.importorskip("xarray", reason="xarray is not installed")
            values = xarray.DataArray(values, dims=("band", "y", "x"))
        with pytest.warns(UserWarning, match="1 pixels hold NaN or an infinite number, or one beyond all reflectance"):
            found = model.embed(values, scale=(1, 0))
        np.testing.assert_array_equal(np.asarray(found).reshape(expected.shape), expected)


@pytest.mark.parametrize("scale", [(1.0, 0.0), (0.0001, 0.0), (2.75e-5, -0.2), (0.01, 0.0)])
def test_in_every_scale(model, scale) -> None:
    values = (REFLECTANCE - scale[1]) / scale[0]
    plain = model.embed(values, scale=scale)
    for bad in BAD:
        worse = values.copy()
        worse[4, 20, 21] = bad
        with pytest.warns(UserWarning, match="1 pixels hold"):
            found = model.embed(worse, scale=scale)
        assert np.isfinite(found).all() and not np.array_equal(found, plain)
        assert np.abs(found - plain).max() < 0.5


@pytest.mark.parametrize("bad", BAD)
def test_numbers_without_a_scale(model, bad) -> None:
    """As stored: NaN and infinity are hidden and counted, other numbers that no file holds are refused."""
    values = some_numbers((44, 46)).astype(np.float32)
    values[2, 20, 21] = bad
    if np.isfinite(bad):
        with pytest.raises(DataError, match="digital numbers are 0 to 65535"):
            model.embed(values)
    else:
        with pytest.warns(UserWarning, match="1 pixels hold"):
            assert np.isfinite(model.embed(values)).all()


def test_what_is_declared_or_masked_is_not_worth_a_word(model) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.embed(spoiled(3.4e38, 2), scale=(1, 0), nodata=3.4e38)
        model.embed(np.ma.masked_greater(spoiled(3.4e38, 2), 100), scale=(1, 0))
        model.embed(spoiled(1.9, 2), scale=(1, 0))  # bright, and no more than that


def test_a_step_of_a_pipeline_says_it_as_well(model, tmp_path) -> None:
    write_checkpoint(tmp_path / "m.pth", model, epoch=0, best_train_loss=0.0)
    step = MoEMAETransformer(tmp_path / "m.pth", scale=(1, 0)).fit(REFLECTANCE[None])
    for bad in (np.nan, 3e38):
        with pytest.warns(UserWarning, match="1 pixels hold"):
            found = step.transform(spoiled(bad, 5)[None])
        np.testing.assert_array_equal(found, model.embed(hidden()[None], scale=(1, 0), nodata=np.nan))


@pytest.mark.parametrize("bad", BAD)
def test_images_of_a_folder_are_counted_by_file(tmp_path, bad, caplog) -> None:
    for name, values in (("a", spoiled(bad, 1)), ("b", REFLECTANCE), ("c", hidden())):
        write_band(tmp_path / name / f"{name}.tif", values, **({"nodata": np.nan} if name == "c" else {}))
    dataset = LabelledFolderDataset(tmp_path, "0-100%", options=FolderOptions(scale=1.0), crop="center")
    with caplog.at_level(logging.WARNING):
        (batch,) = BatchLoader(dataset, 3, 0, torch.device("cpu")).batches()
    first, _, third = (dict(zip(batch.ids, batch.images, strict=True))[f"{name}/{name}.tif"] for name in "abc")
    np.testing.assert_array_equal(first, third)
    assert dataset.read([dataset.ids.index("a/a.tif")]).without_number.tolist() == [1]
    assert dataset.read([dataset.ids.index("b/b.tif")]).without_number.tolist() == [0]
    assert dataset.read([dataset.ids.index("c/c.tif")]).without_number.tolist() == [0]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("band", [0, 6])
def test_scenes_are_counted_by_file(tmp_path, bad, band) -> None:
    path = write_band(tmp_path / "s.tif", spoiled(bad, band, 0, 0))
    with SceneReader(find_scene(path, SceneOptions(scale=(1.0, 0.0)))) as reader:
        pixels = reader.read(0, 0, 44, 46)
        assert reader.without_number.counts() == {"s.tif": 1}
    assert not pixels[:, 0, 0].any() and (pixels.reshape(7, -1)[:, 1:] > 0).all()


def test_a_fill_that_is_declared_is_not_counted(tmp_path) -> None:
    path = write_band(tmp_path / "s.tif", spoiled(-3.4e38, 2, 0, 0), nodata=-3.4e38)
    with SceneReader(find_scene(path, SceneOptions(scale=(1.0, 0.0)))) as reader:
        assert not reader.read(0, 0, 44, 46)[:, 0, 0].any()
        assert reader.without_number.counts() == {}
