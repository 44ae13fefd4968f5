"""`model.embed_map` and `embed_series`: the cells of `embed_scene.py`, of arrays and paths, in their place."""

import datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray
from rasterio.crs import CRS
from scene_files import CLEAR, CLOUD, ORIGIN, embed, some_numbers, write_band, write_product
from tiny import UTM_33N

from models import MOEMAE
from utils.errors import ConfigError, DataError
from utils.sensors import ETM, OLI

WHEN = datetime.datetime(2018, 7, 4, 9, 52, 31)


@pytest.fixture(scope="module")
def qa() -> np.ndarray:
    quality = np.full((130, 170), CLEAR, np.uint16)
    quality[40:90, 60:130] = CLOUD
    return quality


@pytest.fixture(scope="module")
def folder(tmp_path_factory, qa) -> Path:
    return write_product(tmp_path_factory.mktemp("scene") / "a", some_numbers(), qa)


@pytest.fixture(scope="module")
def model(checkpoint) -> MOEMAE:
    return MOEMAE.from_pretrained(checkpoint)


def scene(numbers: np.ndarray, origin=ORIGIN, time=WHEN, **variables: np.ndarray) -> xarray.Dataset:
    """A Dataset as odc-stac and rioxarray make one."""
    rows, columns = numbers.shape[1:]
    coords = {"y": origin[1] - 30 * (np.arange(rows) + 0.5), "x": origin[0] + 30 * (np.arange(columns) + 0.5)}
    coords["spatial_ref"] = ((), 0, {"crs_wkt": CRS.from_user_input(UTM_33N).to_wkt()})
    if time is not None:
        coords["time"] = np.datetime64(time, "ns")
    bands = dict(zip(OLI.bands, numbers, strict=True)) | variables
    return xarray.Dataset({name: (("y", "x"), values) for name, values in bands.items()}, coords)


@pytest.mark.parametrize("stride", [40, 20])
def test_an_array_a_path_and_the_command_give_the_same_cells(tmp_path, folder, checkpoint, model, qa, stride) -> None:
    file = embed(folder, checkpoint, tmp_path / "out", "--stride", stride)
    of_path = model.embed_map(folder, stride=stride)
    of_array = model.embed_map(scene(some_numbers(), QA_PIXEL=qa), stride=stride)
    with rasterio.open(file) as written:
        cells = written.read()
        assert of_path.spatial_ref.attrs["GeoTransform"] == " ".join(map(str, written.transform.to_gdal()))
        middle = written.xy(1, 2)
    assert np.isnan(cells).any() and np.isfinite(cells).any()
    np.testing.assert_allclose(of_path.values, cells, atol=2e-3)  # stored in half precision
    np.testing.assert_array_equal(of_array.values, of_path.values)
    assert (float(of_path.x[2]), float(of_path.y[1])) == middle and of_path.dims == ("band", "y", "x")
    assert of_path.time.values == np.datetime64(WHEN, "ns") and of_path.dtype == np.float32
    xarray.testing.assert_identical(of_array.drop_vars("spatial_ref"), of_path.drop_vars("spatial_ref"))


def test_six_bands_of_an_array_and_of_a_stack(tmp_path, model) -> None:
    path = write_band(tmp_path / "six.tif", some_numbers((90, 90))[1:])
    of_path = model.embed_map(path, sensor="etm")
    array = scene(some_numbers((90, 90)), time=None)
    for six, options in (
        (array.drop_vars("SR_B1"), {"sensor": "oli"}),
        (array.drop_vars("SR_B1").rename(dict(zip(OLI.bands[1:], ETM.bands, strict=True))), {"sensor": "etm"}),
        (array.drop_vars("SR_B1").rename(dict(zip(OLI.bands[1:], OLI.common[1:], strict=True))), {}),
    ):
        made = model.embed_map(six, **options)
        np.testing.assert_array_equal(made.values, of_path.values)
        assert made.attrs["missing_bands"] == of_path.attrs["missing_bands"] == ["coastal"]
    pytest.importorskip("dask")
    np.testing.assert_array_equal(
        model.embed_map(array.drop_vars("SR_B1").chunk(), sensor="oli").values, of_path.values
    )
    with pytest.raises(ConfigError, match="adjust_to_oli: is for a path"):
        model.embed_map(array, adjust_to_oli="rma")


def test_a_model_in_training_stays_so(model) -> None:
    model.train()
    try:
        assert np.isfinite(model.embed_map(scene(some_numbers((80, 80)))).values).any() and model.training
    finally:
        model.eval()


def test_order_orientation_scale_and_names_do_not_matter(model) -> None:
    numbers = some_numbers((90, 90))
    numbers[:, :30, :30] = 0
    expected = model.embed_map(scene(numbers))
    given = scene(numbers)
    flipped = given.isel(y=slice(None, None, -1), x=slice(None, None, -1))[list(reversed(OLI.bands))]
    np.testing.assert_array_equal(model.embed_map(flipped).values, expected.values)
    stacked = given.to_array("band").transpose("y", "band", "x")
    np.testing.assert_array_equal(model.embed_map(stacked).values, expected.values)
    reflectance = (stacked.astype(np.float64) * OLI.scale + OLI.offset).where(stacked > 0)
    np.testing.assert_array_equal(model.embed_map(reflectance, scale=(1, 0)).values, expected.values)
    renamed = given.to_array("band").assign_coords(band=list(OLI.common))
    np.testing.assert_array_equal(model.embed_map(renamed).values, expected.values)


def test_time_place_and_metadata_reach_the_model(model) -> None:
    numbers = some_numbers((80, 80))
    known = model.embed_map(scene(numbers)).values
    assert not np.allclose(model.embed_map(scene(numbers, time=None)).values, known, equal_nan=True)
    np.testing.assert_array_equal(model.embed_map(scene(numbers, time=None), when=WHEN).values, known)
    nowhere = scene(numbers).drop_vars(["spatial_ref"])
    assert not np.allclose(model.embed_map(nowhere).values, known, equal_nan=True)
    without_a_grid = model.embed_map(scene(numbers).drop_vars(["spatial_ref", "x", "y"]))
    assert not {"x", "y"} & set(without_a_grid.coords)
    with pytest.raises(DataError, match="the scene says 2018-07-04"):
        model.embed_map(scene(numbers), when="2019-01-01")


def test_a_series_lies_on_one_lattice_in_the_order_of_time(model) -> None:
    first, second = some_numbers((120, 120)), some_numbers((120, 160), seed=1)
    east = (ORIGIN[0] + 30 * 17, ORIGIN[1] - 30 * 9)  # no multiple of a cell
    later = scene(second, east, datetime.datetime(2020, 7, 4, 9, 52))
    series = model.embed_series([later, scene(first)])
    assert series.dims == ("time", "band", "y", "x") and (np.diff(series.time.values) > np.timedelta64(0)).all()
    assert (np.diff(series.y) == -1200).all() and (np.diff(series.x) == 1200).all()
    for number, alone in enumerate((model.embed_map(scene(first)), model.embed_map(later))):
        own = series.isel(time=number).sel(y=alone.y, x=alone.x)
        np.testing.assert_array_equal(own.values, alone.values)
        assert np.isfinite(series.isel(time=number).values).sum() == np.isfinite(alone.values).sum()
    stack = xarray.concat([scene(first), scene(first[:, ::-1])], "time").assign_coords(
        time=[np.datetime64(WHEN, "ns"), np.datetime64("2019-07-01", "ns")]
    )
    assert model.embed_series(stack).sizes["time"] == 2


def test_scenes_of_a_series_that_do_not_fit_are_refused(model) -> None:
    numbers = some_numbers((80, 80))
    off = scene(numbers, (ORIGIN[0] + 600 + 7, ORIGIN[1]))
    with pytest.raises(DataError, match="scene 2: its grid is not that of the first"):
        model.embed_series([scene(numbers), off])
    with pytest.raises(DataError, match="scene 1: nothing says when"):
        model.embed_series([scene(numbers, time=None)])
    with pytest.raises(DataError, match="one time a scene, 1"):
        model.embed_series([scene(numbers)], when=[WHEN, WHEN])
    with pytest.raises(DataError, match="empty list"):
        model.embed_series([])
    with pytest.raises(DataError, match="no dimension 'time'"):
        model.embed_series(scene(numbers))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda one: one.assign_coords(x=one.x * 2), "60 m wide.*rioxarray"),
        (lambda one: one.assign_coords(x=np.cumsum(np.arange(80.0) + 30)), "'x' is not evenly spaced"),
        (lambda one: one.drop_vars("SR_B6"), "say which: sensor='etm'"),
        (lambda one: one.drop_vars("time").expand_dims(time=2), "2 along 'time'.*embed_series"),
        (lambda one: one / 65_535, "reflectance or normalised"),
        (lambda one: one.assign_coords(spatial_ref=((), 0, {"crs_wkt": "nonsense"})), "nonsense"),
        (lambda one: one.to_array("band").values, "not ndarray"),
        (lambda one: one.isel(y=slice(0, 0)), "no rows"),
    ],
)
def test_what_the_model_does_not_know_is_refused(model, change, words) -> None:
    with pytest.raises(DataError, match=words):
        model.embed_map(change(scene(some_numbers((80, 80)))))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stride": 7}, "stride 7"),
        ({"pool": "all"}, "pool: unknown 'all'"),
        ({"min_clear": 0}, "min_clear"),
        ({"batch_size": 0}, "batch_size"),
        ({"statistics": "mars"}, "statistics"),
        ({"qa": "qa.tif"}, "qa: is for a path"),
    ],
)
def test_impossible_options_are_refused(model, options, words) -> None:
    with pytest.raises(ConfigError, match=words):
        model.embed_map(scene(some_numbers((80, 80))), **options)


def test_what_belongs_to_paths_or_arrays_is_said(model, folder) -> None:
    with pytest.raises(ConfigError, match="nodata: is for arrays"):
        model.embed_map(folder, nodata=0)
    with pytest.raises(ConfigError, match="counted from 1"):
        model.embed_map(folder, bands=["red", 2])
    with pytest.raises(DataError, match="is one scene"):
        model.embed_series(str(folder))
