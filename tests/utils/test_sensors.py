"""The table of sensors: names of bands in every spelling, and why six-band data are refused."""

import numpy as np
import pytest
from scene_files import PRODUCT, some_numbers, write_band, write_product
from tiny import TINY_MODEL

from datasets.image_bands import band_names, usual_bands
from models import build_model
from scenes.input.product import find_scene
from utils.errors import DataError
from utils.sensors import ETM, HLS_L30, OLI, SENSORS, TM, refusal, sensor_of_product, sensor_with_bands

SIX = ("blue", "green", "red", "nir08", "swir16", "swir22")
NUMBERS = {key: value for key, value in TINY_MODEL.items() if key not in ("size", "device")}


@pytest.mark.parametrize(
    ("name", "oli", "etm", "hls"),
    [
        ("SR_B5", "SR_B5", "SR_B5", "B05"),
        ("sr_b5", "SR_B5", "SR_B5", "B05"),
        ("B5", "SR_B5", "SR_B5", "B05"),
        ("B05", "SR_B5", "SR_B5", "B05"),
        (" Band 5 ", "SR_B5", "SR_B5", "B05"),
        ("nir", "SR_B5", "SR_B4", "B05"),
        ("NIR08", "SR_B5", "SR_B4", "B05"),
        ("swir1", "SR_B6", "SR_B5", "B06"),
        ("swir22", "SR_B7", "SR_B7", "B07"),
        ("coastal", "SR_B1", None, "B01"),
        ("SR_B6", "SR_B6", None, "B06"),  # thermal on ETM+
        ("rededge", None, None, None),
        ("B8A", None, None, None),
        ("ST_B10", None, None, None),
        ("", None, None, None),
    ],
)
def test_one_dictionary_of_band_names(name, oli, etm, hls) -> None:
    assert (OLI.band(name), ETM.band(name), HLS_L30.band(name)) == (oli, etm, hls)


def test_the_rows() -> None:
    for name, sensor in SENSORS.items():
        assert sensor.name == name and len(sensor.bands) == len(sensor.common)
        assert [sensor.band(common) for common in sensor.common] == list(sensor.bands)
        assert set(sensor.rgb) <= set(sensor.common)
    assert (len(OLI.bands), len(ETM.bands), len(TM.bands), len(HLS_L30.bands)) == (7, 6, 6, 7)
    assert OLI.listed == "SR_B1..SR_B7" and "SR_B7" in ETM.listed and ".." not in ETM.listed
    assert OLI.rgb_bands == ("SR_B4", "SR_B3", "SR_B2")


@pytest.mark.parametrize(
    ("product", "sensor"),
    [
        (PRODUCT, OLI),
        ("LC09_L2SP_043024_20220802_20220914_02_T1", OLI),
        ("LE07_L2SP_043024_20020802_20200914_02_T1", ETM),
        ("LT05_L2SP_043024_19900802_20200914_02_T1_SR_B1.TIF", TM),
        ("HLS.L30.T17SLU.2020209T155956.v2.0.B02.tif", HLS_L30),
        ("S2A_MSIL2A_20170613T101031_11_66", None),
    ],
)
def test_sensor_of_a_product(product, sensor) -> None:
    assert sensor_of_product(product) is sensor


def test_sensor_of_named_bands() -> None:
    assert sensor_with_bands(SIX) is ETM
    assert sensor_with_bands(("coastal", *SIX)) is None and sensor_with_bands(("red", "nir")) is None
    assert "no coastal" in refusal(ETM) and "0.0001" in refusal(HLS_L30)


def test_hls_in_other_numbers_is_refused_with_the_reason(tmp_path) -> None:
    for band in HLS_L30.bands:
        write_band(tmp_path / f"HLS.L30.T17SLU.2020209T155956.v2.0.{band}.tif", some_numbers((60, 60))[:1])
    with pytest.raises(DataError, match=r"scaled otherwise .*0\.0001.*-9999"):
        find_scene(tmp_path)


def test_six_bands_in_python_without_names_are_refused_with_the_way_to_name_them() -> None:
    model = build_model("XXS", seed=0, **NUMBERS).eval()
    with pytest.raises(DataError, match=r"6 bands, .*sensor='etm'"):
        model.embed(some_numbers((40, 40))[1:])


def test_six_bands_of_a_labelled_folder_have_to_be_named(tmp_path) -> None:
    path = write_band(tmp_path / "six.tif", some_numbers((60, 60))[1:])
    with pytest.raises(DataError, match=r"6 bands; .*data\.sensor: etm; .*data\.bands"):
        usual_bands(path)
    assert band_names(list(SIX)) == OLI.bands[1:]


def test_a_dataset_and_a_scene_have_a_sensor(tmp_path, sample) -> None:
    from datasets.bigearthnet import BigEarthNetDatasetLS

    assert BigEarthNetDatasetLS(sample, "bigearthnet-test.csv").sensor is OLI
    scene = find_scene(write_product(tmp_path / "scene", some_numbers((60, 60))))
    assert scene.sensor is OLI and len(scene.bands) == len(OLI.bands)
    assert np.isclose(OLI.scale, 0.0000275)
