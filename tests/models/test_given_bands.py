"""`model.embed` of patches that lack some of the seven bands: by name and by sensor, and what it refuses."""

import warnings

import numpy as np
import pytest
import torch
from scene_files import some_numbers
from tiny import tiny_model, write_config, write_tif

from embed.compute_embed import main as compute_embed
from embed.sklearn_step import MoEMAETransformer
from models.checkpoint import write_checkpoint
from transformation.band_order import order_problem
from utils.errors import ConfigError, DataError
from utils.sensors import ETM, OLI

NUMBERS = some_numbers((44, 46))
SIX = NUMBERS[1:]
RGB = [3, 2, 1]


@pytest.fixture(scope="module")
def model():
    """With vectors of missing bands that say something."""
    made = tiny_model(missing_bands="token")
    torch.nn.init.normal_(made.encoder.missing_bands, generator=torch.Generator().manual_seed(0))
    return made


def cube(values, **attributes):
    xarray = pytest.importorskip("xarray", reason="xarray is not installed")
    return xarray.DataArray(values, dims=("band", "y", "x"), attrs=attributes)


def test_six_bands_of_landsat_4_to_7_by_name_and_by_sensor(model) -> None:
    expected = model.embed(SIX, bands=OLI.common[1:])
    assert not np.allclose(expected, model.embed(NUMBERS))
    for values, options in (
        (SIX, {"sensor": "etm"}),
        (SIX, {"sensor": "tm", "bands": ETM.bands}),
        (SIX[::-1], {"sensor": "landsat-5", "bands": ETM.bands[::-1]}),
        (SIX, {"bands": OLI.bands[1:]}),
        (cube(SIX, platform="landsat-7"), {}),
        (cube(SIX, platform="LANDSAT_5").assign_coords(band=list(ETM.bands)), {}),
        (cube(SIX, platform="LANDSAT_5").assign_coords(band=list(ETM.bands)), {"bands": OLI.common[1:]}),
        (SIX * OLI.scale + OLI.offset, {"bands": OLI.common[1:], "scale": (1, 0)}),
    ):
        np.testing.assert_allclose(np.asarray(model.embed(values, **options)), expected, atol=1e-5)


@pytest.mark.parametrize("crop", ["center", "resize"])
def test_any_bands_and_only_they_are_seen(model, crop: str) -> None:
    expected = model.embed(NUMBERS[RGB], bands=("red", "green", "blue"), crop=crop)
    other = np.concatenate([NUMBERS[RGB], np.zeros_like(NUMBERS[:1])])  # no pixel of it is hidden by what is not taken
    np.testing.assert_array_equal(model.embed(other, bands=("B4", "B3", "B2", "QA_PIXEL"), crop=crop), expected)
    one = model.embed(NUMBERS[4:5], bands=["nir"], crop=crop)
    assert np.isfinite(one).all() and not np.allclose(one, expected)


def test_a_pixel_is_hidden_where_one_of_the_given_bands_is_0(model) -> None:
    gaps = NUMBERS.copy()
    gaps[:, :, 5:12] = 0
    expected = model.embed(gaps[1:], sensor="etm")
    one = NUMBERS.copy()
    one[3, :, 5:12] = 0
    np.testing.assert_array_equal(model.embed(one[1:], sensor="etm"), expected)
    assert not np.allclose(expected, model.embed(SIX, sensor="etm"))


def test_a_line_where_weights_were_not_trained_so(model) -> None:
    with pytest.warns(UserWarning, match="bands: SR_B1 missing: these weights were not trained with missing bands"):
        tiny_model().embed(SIX, sensor="etm")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.embed(SIX, sensor="etm")
        tiny_model().embed(NUMBERS)


@pytest.mark.parametrize(
    ("values", "options", "named"),
    [
        (SIX, {}, r"6 bands, the model takes.*name all: bands=.*sensor='etm'"),
        (NUMBERS, {"sensor": "etm"}, "7 bands, the model takes SR_B1, SR_B2"),
        (SIX, {"bands": ETM.bands}, "may be all of Landsat 7's or some of Landsat 8's"),
        (SIX[[0, 0, 1]], {"bands": ("blue", "B2", "green")}, "SR_B2 is named twice"),
        (SIX, {"bands": ("ultra",) * 6}, "none of ultra"),
    ],
)
def test_what_is_not_clear_is_asked(model, values, options, named: str) -> None:
    with pytest.raises(DataError, match=named):
        model.embed(values, **options)


def test_sensors_that_are_not_taken_or_differ_are_refused(model) -> None:
    with pytest.raises(ConfigError, match=r"sensor: 'aster' is none that is taken; use oli, etm, tm"):
        model.embed(SIX, sensor="aster")
    with pytest.raises(ConfigError, match="scaled otherwise"):
        model.embed(NUMBERS, sensor="hls_l30")
    with pytest.raises(DataError, match="sensor: etm, but the pixels say landsat-8"):
        model.embed(cube(SIX, platform="landsat-8"), sensor="etm")
    named = cube(SIX, platform="landsat-7").assign_coords(band=list(ETM.bands))
    with pytest.raises(DataError, match=r"band 3 is taken for SR_B2.*call it SR_B3"):
        model.embed(named, bands=("red", "green", "blue", "nir08", "swir16", "swir22"))


def test_a_wrong_order_is_noticed_by_the_bands_that_are_there(model) -> None:
    with pytest.raises(DataError, match="another order"):
        model.embed(SIX[[0, 1, 2, 3, 5, 4]][:, ::-1], bands=OLI.common[1:])
    nothing = np.full((7, 1000), np.nan)
    assert order_problem(nothing) is None


def test_the_step_for_scikit_learn_takes_them(model, tmp_path) -> None:
    write_checkpoint(tmp_path / "token.pth", model, epoch=0, best_train_loss=0.0)
    step = MoEMAETransformer(tmp_path / "token.pth", bands=OLI.common[1:], pool="cls")
    rows = step.fit_transform(SIX[None, :, :40, :40])
    np.testing.assert_allclose(rows[0], model.embed(SIX[:, :40, :40], sensor="etm", pool="cls"), atol=1e-5)


def test_a_labelled_folder_of_six_bands_is_embedded_with_the_seventh_missing(model, tmp_path) -> None:
    write_checkpoint(tmp_path / "token.pth", model, epoch=0, best_train_loss=0.0)
    for name, pixels in (("a", SIX[:, :40, :40]), ("b", SIX[:, 4:, 6:])):
        write_tif(tmp_path / "images" / "field" / f"{name}.tif", pixels)
    data = {"dataset": "labelled_folder", "dataset_path": str(tmp_path / "images"), "splits": {"test": "0-100%"}}
    data |= {"bands": list(OLI.common[1:]), "scale": 2.75e-5, "offset": -0.2}
    config = write_config(
        tmp_path / "embed.yaml",
        model={"checkpoint_path": str(tmp_path / "token.pth"), "device": "cpu"},
        data=data,
        embed={"out_dir": str(tmp_path / "out"), "name": "six", "pool": "cls"},
    )
    assert compute_embed(["--config_yaml", str(config)]) == 0
    with np.load(tmp_path / "out" / "six_test.npz") as found:
        rows = dict(zip([name[-5] for name in found["ids"]], found["x_test"], strict=True))
    for name, pixels in (("a", SIX[:, :40, :40]), ("b", SIX[:, 4:, 6:])):
        np.testing.assert_allclose(rows[name], model.embed(pixels, sensor="etm", pool="cls"), atol=1e-5)
