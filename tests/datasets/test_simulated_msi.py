"""Patches with the bands of Sentinel-2: the same places and dates as OLI's, what the red edge is, and their reader."""

import numpy as np
import pytest
import rasterio
import torch

from datasets.bigearthnet import BigEarthNetDatasetLS
from datasets.geotiff import GDAL_OPTIONS, read_patch
from datasets.simulated import main
from datasets.simulated_msi import SimulatedMSIDataset
from datasets.simulator.sentinel2 import NOISELESS, seen_by_msi, vegetation
from utils.data_config import BigEarthNetInfo
from utils.errors import ConfigError, DataError
from utils.randomness import generator
from utils.sensors import LIKE_OLI, MSI, OLI


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sensors")
    for sensor in ("oli", "msi"):
        options = ["--patches", "12", "--seed", "4", "--splits", "8", "2", "2", "--sensor", sensor]
        assert main(["--kind", "bigearthnet", "--out", str(folder / sensor), *options]) == 0
    return folder


def opened(folders, sensor: str, reader, **options):
    return reader(folders / sensor, "samples.csv", **options)


def test_places_dates_and_labels_are_those_of_oli(folders) -> None:
    oli = opened(folders, "oli", BigEarthNetDatasetLS, labels="error")
    msi = opened(folders, "msi", SimulatedMSIDataset, labels="error")
    assert oli.ids == msi.ids and torch.equal(oli.labels, msi.labels)
    assert np.array_equal(oli.metadata(), msi.metadata(), equal_nan=True)
    assert msi.simulated and msi.statistics_name == "simulated_msi"
    batch = msi.batch(range(12))
    assert batch.images.shape == (12, 12, 40, 40)
    first, second = (data.gather(range(12)).pixels.swapaxes(0, 1) for data in (oli, msi))
    seen = (first != 0).all(axis=0)
    assert np.array_equal(seen, (second != 0).all(axis=0)) and np.array_equal(seen, (second != 0).any(axis=0))
    land, again = first[:, seen] * OLI.scale + OLI.offset, second[:, seen] * MSI.scale + MSI.offset
    assert np.abs(land - again[list(LIKE_OLI)]).mean() < 0.004, "noise and rounding alone"
    assert np.abs(land - again[list(LIKE_OLI)]).mean() > 0.0005, "noise of their own"


def test_same_seed_same_bits(folders, tmp_path) -> None:
    options = ["--patches", "12", "--seed", "4", "--splits", "8", "2", "2", "--sensor", "msi"]
    assert main(["--kind", "bigearthnet", "--out", str(tmp_path / "again"), *options]) == 0
    for file in sorted((folders / "msi" / "images").iterdir())[:3]:
        assert file.read_bytes() == (tmp_path / "again" / "images" / file.name).read_bytes()
    with rasterio.open(file) as patch:
        assert patch.descriptions == MSI.bands and patch.count == 12


def test_vegetation_rises_through_the_red_edge_and_soil_linearly() -> None:
    names = BigEarthNetInfo.CORINE
    share = dict(zip(names, vegetation().tolist(), strict=True))
    assert share["Broad-leaved forest"] > 0.9 and share["Sea and ocean"] == 0 and share["Bare rock"] < 0.4
    reflectance = np.array([0.03, 0.04, 0.06, 0.05, 0.45, 0.2, 0.1])
    numbers = np.rint((reflectance - OLI.offset) / OLI.scale).astype(np.uint16)
    numbers = np.broadcast_to(numbers[None, :, None, None], (1, 7, 20, 20))
    for cover, expected in (("Broad-leaved forest", (0.13, 0.35, 0.43)), ("Sea and ocean", (0.13, 0.202, 0.286))):
        ground = torch.full((1, 20, 20), names.index(cover), dtype=torch.uint8)
        seen = seen_by_msi(numbers, ground, generator(0, "test")) * MSI.scale + MSI.offset
        red_edge = seen.mean(axis=(0, 2, 3))[4:7]
        assert np.abs(red_edge - expected).max() < 0.05, cover
    assert NOISELESS.noise == (0.0,) * 7


def test_what_is_wrong_is_said(folders, tmp_path) -> None:
    with pytest.raises(DataError, match="has 12 bands, expected 7"):
        opened(folders, "msi", BigEarthNetDatasetLS).batch([0])
    with pytest.raises(DataError, match="has 7 bands, expected 12"):
        opened(folders, "oli", SimulatedMSIDataset).batch([0])
    with pytest.raises(ConfigError, match="no scenes of Sentinel-2 are simulated"):
        main(["--kind", "scene", "--out", str(tmp_path / "scene"), "--size", "100", "--sensor", "msi"])
    with pytest.raises(ConfigError, match="MSI flew from 2015 on"):
        main(["--kind", "bigearthnet", "--out", str(tmp_path / "x"), "--patches", "12", "--sensor", "msi",
              "--year", "2000"])  # fmt: skip
    file = next((folders / "msi" / "images").iterdir())
    turned = tmp_path / "turned.tif"
    with rasterio.open(file) as source, rasterio.open(turned, "w", **source.profile) as out:
        out.write(source.read())
        out.descriptions = MSI.bands[::-1]
    with rasterio.Env(**GDAL_OPTIONS), pytest.raises(DataError, match="calls its B01 B12"):
        read_patch(turned, 12, 12, 40, MSI)
