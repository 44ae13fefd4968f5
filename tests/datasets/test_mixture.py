"""Two datasets as one: shares, order, metadata, fingerprints, and a run on both."""

import numpy as np
import pytest
import torch
from pretraining import train
from tiny import some_pixels, training_config, write_bigearthnet, write_tif

from configs.build import build_training_dataset
from configs.schema import read_config
from models.config import ModelConfig
from utils.errors import ConfigError

NAMES = [f"S2A_MSIL2A_20170613T101031_1_{i}" for i in range(6)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six patches with metadata, and three windows of a labelled folder without."""
    folder = tmp_path_factory.mktemp("mixture")
    write_bigearthnet(folder / "first", {name: some_pixels(i) for i, name in enumerate(NAMES)})
    for i in range(3):
        write_tif(folder / "second" / "here" / f"{i}.tif", some_pixels(10 + i, (7, 40, 40)))
    return folder


def config_of(data, folder, **mixture):
    section = {"dataset": "labelled_folder", "dataset_path": str(data / "second"), "dataset_csv": "0-100%",
               "scale": 2.75e-5, "offset": -0.2, "share": 0.4, **mixture}  # fmt: skip
    files = {"dataset_path": str(data / "first"), "dataset_csv": "split.csv"}
    return training_config(folder, **files, mixture=section, epochs=1)


def mixed(data, folder, **mixture):
    config = read_config(str(config_of(data, folder, **mixture)), [], (), fresh_model=True)
    return build_training_dataset(config, ModelConfig.of_size("XXS"), str(data / "first"), "split.csv")


def test_the_share_is_reached_by_going_round(data, tmp_path) -> None:
    dataset = mixed(data, tmp_path)
    assert len(dataset) == 10 and dataset.ids[:6] == NAMES  # 4 of 10, of 3 windows
    assert dataset.ids[6] == dataset.ids[9] != dataset.ids[7]
    assert len(mixed(data, tmp_path, share=0.01)) == 7  # one at least


@pytest.mark.parametrize("held", [False, True])
def test_patches_come_in_the_order_asked_for(data, tmp_path, held: bool) -> None:
    dataset = mixed(data, tmp_path)
    if held:
        assert dataset.hold_in_memory() and dataset.random_access
    batch = dataset.batch([7, 0, 9, 3])
    alone = [dataset.second.batch([1]), dataset.first.batch([0]), dataset.second.batch([0]), dataset.first.batch([3])]
    assert torch.equal(batch.images, torch.cat([one.images for one in alone]))
    assert (batch.meta[[0, 2]] == 0).all() and (batch.meta[[1, 3]] != 0).any(dim=-1).all()
    assert dataset.path_of(7) == dataset.second.path_of(1)


def test_the_fingerprint_is_that_of_both_and_the_share(data, tmp_path) -> None:
    found = {mixed(data, tmp_path, share=share).fingerprint() for share in (0.4, 0.5)}
    assert len(found) == 2 and mixed(data, tmp_path).first.fingerprint() not in found


def test_a_run_on_both(data, tmp_path, capfd) -> None:
    assert train(config_of(data, tmp_path)) == 0
    assert (tmp_path / "run" / "pretrained_XXS_last.pth").exists()


def test_other_statistics_and_bands_are_refused(data, tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"training\.mixture\.scale: is required of a labelled folder"):
        mixed(data, tmp_path, scale=None)
    with pytest.raises(ConfigError, match=r"training\.mixture\.offset: is for dataset: labelled_folder"):
        mixed(data, tmp_path, dataset="bigearthnet_ls", scale=None)
    config = read_config(str(config_of(data, tmp_path)), ["data.statistics=eurosat_ls"], (), fresh_model=True)
    with pytest.raises(ConfigError, match=r"training\.mixture: .*normalised with"):
        build_training_dataset(config, ModelConfig.of_size("XXS"), str(data / "first"), "split.csv")
    with pytest.raises(ConfigError, match=r"training\.mixture\.bands"):
        mixed(data, tmp_path, bands="red, purple")
    with pytest.raises(ConfigError, match=r"training\.mixture\.share"):
        mixed(data, tmp_path, share=1.0)


def test_simulated_patches_are_never_called_real(data, tmp_path) -> None:
    dataset = mixed(data, tmp_path)
    dataset.first.simulated = True
    assert "6 simulated patches and 4 patches" in dataset.kind and not dataset.simulated
    assert np.isfinite(dataset.batch([0]).images.numpy()).all()
