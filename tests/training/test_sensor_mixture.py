"""Pretraining on two sensors: batches of one sensor each, drawn by the seed; resumed bit for bit; what is refused."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from pretraining import same_weights, train
from tiny import TINY_MODEL, some_pixels, tiny_model, training_config, write_bigearthnet, write_config

import eval_mae
from configs.build import build_training_dataset
from configs.schema import read_config
from datasets.loader import BatchLoader
from datasets.mixture import SensorMixture, epoch_order
from models.checkpoint import load_model, write_checkpoint
from models.config import ModelConfig
from training import run_log
from training.recipe import compile_choice
from training.step import TrainStep
from utils.errors import ConfigError
from utils.sensors import MSI

NAMES = [f"S2A_MSIL2A_20170613T101031_1_{i}" for i in range(9)]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    write_bigearthnet(folder / "first", {name: some_pixels(i) for i, name in enumerate(NAMES)})
    wide = {name: some_pixels(20 + i, (12, 43, 43)) // 5 for i, name in enumerate(NAMES[:5])}
    write_bigearthnet(folder / "second", wide)
    return folder


def config_of(data: Path, folder: Path, sensors: tuple[str, ...] = ("oli", "msi"), **training: object) -> Path:
    mixture = {"dataset": "simulated_msi", "dataset_path": str(data / "second"), "dataset_csv": "split.csv"}
    values = {
        "dataset_path": str(data / "first"),
        "dataset_csv": "split.csv",
        "mixture": {**mixture, "share": 0.5},
        "epochs": 2,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "targets": {"metadata": 1, "patch_features": 1},
        "augmentations": {"symmetries": 1.0, "band_sets": 0.5},
        "weight_path": str(folder / "run"),
        **training,
    }
    return write_config(folder / "train.yaml", model={**TINY_MODEL, "sensors": list(sensors)}, training=values)


def mixed(data: Path, folder: Path, sensors: tuple[str, ...] = ("oli", "msi")):
    config = read_config(str(config_of(data, folder, sensors)), [], (), fresh_model=True)
    model = ModelConfig.of_size("XXS", sensors=sensors)
    return build_training_dataset(config, model, str(data / "first"), "split.csv")


def test_every_batch_is_of_one_sensor(data, tmp_path) -> None:
    dataset = mixed(data, tmp_path)
    assert isinstance(dataset, SensorMixture) and len(dataset) == 9 + 8
    order = epoch_order(dataset, seed=3, epoch=0)
    assert sorted(order) == list(range(17)) and order == epoch_order(dataset, 3, 0) != epoch_order(dataset, 3, 1)
    loader = BatchLoader(dataset, 4, 0, torch.device("cpu"))
    found = [(batch.images.shape[0], batch.images.shape[1]) for batch in loader.training_batches(order)]
    assert len(found) == len(loader) == 5 and found[-1] == (1, 7), "what is left over comes last"
    assert sorted(found[:-1]) == [(4, 7), (4, 7), (4, 12), (4, 12)]
    orders = [[index < 9 for index in epoch_order(dataset, seed, 0)] for seed in range(6)]
    assert len({tuple(one) for one in orders}) > 1, "the seed decides which comes when"
    alone = dataset.second.batch([1])
    assert torch.equal(dataset.batch([10]).images, alone.images) and dataset.hold_in_memory()
    assert torch.equal(dataset.batch([10]).images, alone.images)
    assert "patches" in dataset.kind and dataset.fingerprint() != dataset.first.fingerprint()


def test_a_run_trains_both_and_goes_on_bit_for_bit(data, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(run_log, "plot_loss_curve", lambda metrics, kind: "")  # drawing takes most of such a run
    monkeypatch.setattr(run_log, "save_figure", lambda text, path: None)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    assert train(config_of(data, whole)) == 0
    last = whole / "run" / "pretrained_XXS_last.pth"
    model = load_model(last)
    assert model.config.sensors == ("oli", "msi")
    assert np.abs(model.encoder.patch_proj_msi.weight[:, 4].detach().numpy()).max() > 0, "red edge is learned"
    real, config = TrainStep.__call__, config_of(data, broken)
    for stop_at in (1, 6):  # after few steps, of one sensor perhaps; and in the middle of the second epoch

        def interrupting(step, batch, number, lr, at=stop_at):
            if number == at:
                os.kill(os.getpid(), signal.SIGTERM)
            return real(step, batch, number, lr)

        monkeypatch.setattr(TrainStep, "__call__", interrupting)
        train(config, "--resume")
    monkeypatch.setattr(TrainStep, "__call__", real)
    assert train(config, "--resume") == 0
    assert same_weights(last, broken / "run" / last.name)
    shutil.rmtree(broken)


def test_weights_of_one_sensor_go_on_with_two(data, tmp_path) -> None:
    files = {"dataset_path": str(data / "first"), "dataset_csv": "split.csv"}
    assert train(training_config(tmp_path, **files, epochs=1, weight_path=str(tmp_path / "one"))) == 0
    config = config_of(data, tmp_path, epochs=1)
    assert train(config, "--set", f"model.checkpoint_path={tmp_path / 'one' / 'pretrained_XXS_last.pth'}") == 0
    assert load_model(tmp_path / "run" / "pretrained_XXS_last.pth").config.sensors == ("oli", "msi")


def test_what_cannot_be_is_said(data, tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"training\.mixture\.dataset: simulated_msi has the bands of MSI"):
        mixed(data, tmp_path, ("oli",))
    dataset = mixed(data, tmp_path)
    with pytest.raises(ConfigError, match=r"training\.compile: batches of two sensors"):
        compile_choice("on", dataset, 1)
    with pytest.raises(ConfigError, match="two sensors are trained in one process"):
        compile_choice("auto", dataset, 2)
    assert compile_choice("auto", dataset, 1) == "off" and compile_choice("auto", dataset.first, 2) == "auto"
    with pytest.raises(ConfigError, match=r"data\.resident: two sensors"):
        BatchLoader(dataset, 4, 0, torch.device("cpu"), resident=True)
    for change, message in (
        ("data.statistics=eurosat_ls", r"data\.statistics: eurosat_ls is Landsat's"),
        ("embed.backend=auto", r"embed\.backend: auto knows Landsat's bands only"),
        ("model.sensors=[msi]", r"model\.sensors: msi are not known together; use \[oli\] or \[oli, msi\]"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_config(str(config_of(data, tmp_path)), ["data.dataset=simulated_msi", change], (), fresh_model=True)
    assert len(MSI.bands) == 12


def test_patches_of_the_second_sensor_are_embedded_and_evaluated(data, tmp_path) -> None:
    write_checkpoint(tmp_path / "two.pth", tiny_model(sensors=("oli", "msi")), epoch=0, best_train_loss=0.0)
    write_checkpoint(tmp_path / "one.pth", tiny_model(), epoch=0, best_train_loss=0.0)
    split, folder = str(data / "second" / "split.csv"), str(data / "second")
    section = {"dataset": "simulated_msi", "dataset_path": folder, "dataset_csv": split, "missing_labels": "skip"}
    reconstructions = {"reconstructions_dir": str(tmp_path / "panels"), "save_reconstructions_full": 1}
    model = {"checkpoint_path": str(tmp_path / "two.pth"), "device": "cpu"}
    config = str(write_config(tmp_path / "eval.yaml", model=model, data=section, eval=reconstructions))
    assert eval_mae.main(["--config_yaml", config]) == 0
    found = json.loads((tmp_path / "panels" / "metrics.json").read_text())
    assert list(found["psnr"]) == list(MSI.bands) and found["patches"] == 5
    with pytest.raises(ConfigError, match="has the bands of MSI of Sentinel-2"):
        eval_mae.main(["--config_yaml", config, "--set", f"model.checkpoint_path={tmp_path / 'one.pth'}"])
