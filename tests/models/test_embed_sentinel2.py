"""`model.embed` on patches of Sentinel-2: by sensor and by names, in any unit, and what is refused."""

import numpy as np
import pytest
import torch
from tiny import tiny_model

from transformation.transformer import ZScoreNormalize
from utils.data_config import SimulatedMSIInfo
from utils.errors import ConfigError, DataError
from utils.sensors import MSI

PIXELS = np.random.default_rng(0).integers(1_200, 6_000, (3, 12, 40, 40), dtype=np.uint16)


@pytest.fixture(scope="module")
def model():
    return tiny_model(sensors=("oli", "msi"))


def test_it_is_the_encoder_on_z_scores_of_its_own(model) -> None:
    images, _ = ZScoreNormalize(SimulatedMSIInfo.STATISTICS)(torch.from_numpy(PIXELS))
    with torch.no_grad():
        expected = model.encode(images).pre_norm[:, 4].numpy()  # CLS
    found = model.embed(PIXELS, sensor="msi", pool="cls")
    assert np.allclose(found, expected, atol=1e-5)
    assert np.allclose(model.embed(PIXELS[1], sensor="msi", pool="cls"), expected[1], atol=1e-5)
    assert np.allclose(model.embed(torch.from_numpy(PIXELS), sensor="MSI", pool="cls"), expected, atol=1e-5)


def test_names_say_the_order_and_the_sensor(model) -> None:
    found, turned = model.embed(PIXELS, sensor="msi"), PIXELS[:, ::-1]
    assert np.array_equal(model.embed(turned, bands=MSI.bands[::-1]), found)
    assert np.array_equal(model.embed(turned, bands=MSI.common[::-1]), found)
    more = np.concatenate([turned, turned[:, :1]], axis=1)
    assert np.array_equal(model.embed(more, bands=(*MSI.bands[::-1], "B10")), found)
    assert [MSI.band(name) for name in ("b8a", "B8", "nir", "nir08", "B05", "B10")] == [
        "B8A", "B08", "B08", "B8A", "B05", None
    ]  # fmt: skip


def test_reflectance_and_hidden_pixels(model) -> None:
    found = model.embed(PIXELS, sensor="msi")
    reflectance = PIXELS * MSI.scale + MSI.offset
    assert np.array_equal(model.embed(reflectance, sensor="msi", scale=(1, 0)), found)
    filled, named = PIXELS.copy(), PIXELS.astype(np.float32)
    filled[:, 3, :20], named[:, 3, :20] = 0, np.nan
    other = model.embed(filled, sensor="msi")
    assert not np.array_equal(other, found) and np.array_equal(model.embed(named, sensor="msi"), other)
    assert np.array_equal(model.embed(np.where(filled == 0, 77, filled), sensor="msi", nodata=77), other)


def test_landsat_goes_its_own_way_in_the_same_weights(model) -> None:
    landsat = np.random.default_rng(1).integers(8_000, 20_000, (2, 7, 40, 40), dtype=np.uint16)
    assert np.array_equal(model.embed(landsat), tiny_model().embed(landsat))


def test_what_is_refused_is_one_line_with_the_cure(model) -> None:
    with pytest.raises(ConfigError, match=r"needs weights with a projection of MSI .*continue_msi\.yaml"):
        tiny_model().embed(PIXELS, sensor="msi")
    with pytest.raises(DataError, match="are Sentinel-2's"):
        tiny_model().embed(PIXELS, bands=MSI.bands)
    with pytest.raises(DataError, match="11 bands, MSI of Sentinel-2, Level-2A has 12"):
        model.embed(PIXELS[:, 1:], sensor="msi")
    with pytest.raises(DataError, match="B12 is missing"):
        model.embed(PIXELS[:, 1:], bands=MSI.bands[:-1])
    with pytest.raises(DataError, match="B01 is named twice"):
        model.embed(PIXELS, sensor="msi", bands=("B01", *MSI.bands[:-1]))
    with pytest.raises(DataError, match="are not 12 names"):
        model.embed(PIXELS, sensor="msi", bands="B01")
    with pytest.raises(DataError, match="hold reflectance"):
        model.embed(PIXELS / 10_000, sensor="msi")
    with pytest.raises(DataError, match="they give reflectances"):
        model.embed(PIXELS * 9, sensor="msi")
    with pytest.raises(DataError, match=r"baseline 04\.00"):
        model.embed(PIXELS // 10, sensor="msi")
    with pytest.raises(ConfigError, match="folded knows Landsat's bands only"):
        model.embed(PIXELS, sensor="msi", backend="folded")
    with pytest.raises(ConfigError, match="crop: unknown"):
        model.embed(PIXELS, sensor="msi", crop="left")
