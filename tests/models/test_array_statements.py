"""What arrays say of themselves counts in `MOEMAE.embed`: masks, fill, coordinates, names, scales, sensors, times."""

import warnings

import numpy as np
import pytest
from scene_files import some_numbers
from tiny import TINY_MODEL

from models import build_model
from utils.errors import DataError
from utils.sensors import OLI

NUMBERS = some_numbers((44, 46))
HIDE = (slice(None), slice(None), slice(0, 22))


@pytest.fixture(scope="module")
def model():
    options = {key: value for key, value in TINY_MODEL.items() if key not in ("size", "device")}
    return build_model("XXS", seed=0, **options).eval()


def cube(values=NUMBERS, **coords):
    xarray = pytest.importorskip("xarray", reason="xarray is not installed")
    return xarray.DataArray(values, dims=("band", "y", "x"), coords=coords)


def with_fill(value: float, kind: type, bands: slice = slice(None)) -> np.ndarray:
    numbers = NUMBERS.astype(kind)
    numbers[(bands, *HIDE[1:])] = value
    return numbers


def test_hidden_is_hidden_however_it_is_said(model) -> None:
    expected = model.embed(with_fill(0, np.uint16))
    mask = np.zeros(NUMBERS.shape, bool)
    mask[(slice(2, 3), *HIDE[1:])] = True
    reflectance = NUMBERS * 2.75e-5 - 0.2
    one = reflectance.copy()
    one[(slice(4, 5), *HIDE[1:])] = -0.2
    other = reflectance.astype(np.float32)
    other[(slice(1, 2), *HIDE[1:])] = -9999
    for values, options in (
        (np.ma.masked_array(NUMBERS, mask), {}),
        ([np.ma.masked_array(NUMBERS, mask)], {}),
        ({"image": np.ma.masked_array(NUMBERS.astype(np.float32), mask)}, {}),
        (with_fill(0, np.uint16, slice(3, 4)), {}),
        (with_fill(0, np.float64, slice(3, 4)), {}),
        (with_fill(0, np.uint16, slice(3, 4)), {"scale": (0.0000275, -0.2)}),
        (with_fill(65535, np.uint16, slice(3, 4)), {"nodata": 65535}),
        (with_fill(-1, np.int32, slice(6, 7)), {"nodata": -1}),
        (cube(with_fill(65535, np.uint16, slice(0, 1))).assign_attrs(_FillValue=65535), {}),
        (one, {"scale": (1, 0)}),
        (other, {"scale": (1, 0)}),
        (np.ma.masked_array(reflectance, mask), {"scale": (1, 0)}),
    ):
        found = model.embed(values, **options)
        found = found["embedding"] if isinstance(found, dict) else np.asarray(found)
        np.testing.assert_array_equal(found.reshape(expected.shape), expected)
    for fill in (np.inf, np.nan):
        with pytest.warns(UserWarning, match="968 pixels hold NaN or an infinite number"):
            np.testing.assert_array_equal(model.embed(with_fill(fill, np.float32, slice(5, 6))), expected)
    lost = with_fill(np.nan, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for values, options in (
            (lost, {"nodata": np.nan}),
            (np.ma.masked_invalid(lost), {}),
            (cube(lost).assign_attrs(_FillValue=np.nan), {}),
            (cube(lost).assign_attrs(_FillValue=0), {}),  # as xarray decodes it
        ):
            np.testing.assert_array_equal(np.asarray(model.embed(values, **options)).reshape(expected.shape), expected)


def test_coordinates_turn_patches_north_up(model) -> None:
    y, x = 5_300_000 - 30 * np.arange(44), 500_000 + 30 * np.arange(46)
    expected = model.embed(NUMBERS)
    for flip_y in (1, -1):
        for flip_x in (1, -1):
            turned = cube(NUMBERS[:, ::flip_y, ::flip_x], y=y[::flip_y], x=x[::flip_x])
            np.testing.assert_array_equal(model.embed(turned).values, expected)
    with pytest.raises(DataError, match="neither up nor down"):
        model.embed(cube(y=np.roll(y, 3), x=x))


def test_a_time_coordinate_is_used(model) -> None:
    when = np.datetime64("2019-07-01T09:52", "ns")
    expected = model.embed(NUMBERS, when=when)
    np.testing.assert_array_equal(model.embed(cube(time=when)).values, expected)
    np.testing.assert_array_equal(model.embed(cube(time=when), when="2019-01-01").values,
                                  model.embed(NUMBERS, when="2019-01-01"))  # fmt: skip
    assert not np.array_equal(expected, model.embed(NUMBERS))


@pytest.mark.parametrize(
    "order", [[6, 5, 4, 3, 2, 1, 0], [0, 2, 1, 3, 4, 5, 6], [4, 1, 2, 3, 0, 5, 6], [0, 3, 2, 1, 4, 6, 5]]
)
def test_bands_in_another_order_are_noticed_or_named(model, order) -> None:
    for values, options in ((NUMBERS, {}), (NUMBERS * 2.75e-5 - 0.2, {"scale": (1, 0)})):
        with pytest.raises(DataError, match=r"another order.*bands="):
            model.embed(values[order], **options)
    names = [OLI.bands[place] for place in order]
    for named in (names, [f"{name}_median" for name in names], [OLI.common[place] for place in order]):
        np.testing.assert_array_equal(model.embed(cube(NUMBERS[order], band=named)).values, model.embed(NUMBERS))


def test_what_is_said_and_what_is_asked_have_to_agree(model) -> None:
    named = cube(band=list(OLI.bands))
    with pytest.raises(DataError, match=r"band 1 is taken for SR_B1.*call it SR_B7"):
        model.embed(named.isel(band=slice(None, None, -1)), bands=OLI.bands)
    scaled = cube(np.rint((NUMBERS * 2.75e-5 - 0.2) * 10_000).astype(np.int16)).assign_attrs(scale_factor=1e-4)
    np.testing.assert_allclose(model.embed(scaled).values, model.embed(NUMBERS), atol=1e-2)
    with pytest.raises(DataError, match=r"scale: .*but the pixels say"):
        model.embed(scaled, scale=(0.0000275, -0.2))
    with pytest.raises(DataError, match="Sentinel-2 has bands at other wavelengths"):
        model.embed(cube().assign_attrs(platform="sentinel-2b"))
    with pytest.raises(DataError, match="gives reflectances of"):
        model.embed(NUMBERS, scale=(1, 0))
