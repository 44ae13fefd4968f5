"""The scripts as a user meets them: one line and exit code 2 for what can be mended."""

import os
from pathlib import Path

import pytest
import warm_python
from conftest import ROOT
from scripts import is_one_clear_line, run
from tiny import some_pixels, training_config, write_bigearthnet, write_config

SCRIPTS = {
    "pretrain_mae.py": ["--config_yaml", "--set", "--resume"],
    "eval_mae.py": ["--config_yaml", "--set"],
    "embed.compute_embed": ["--config_yaml", "--set"],
    "train_logistic_regression.py": ["--train", "--val", "--test", "--multilabel", "--pool", "--feature-slice"],
    "datasets.simulated": ["--kind", "--out", "--patches", "--seed", "--dates"],
    "temporal.pretrain": ["--config_yaml", "--set", "--resume"],
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_names_the_options(script: str) -> None:
    done = run(script, "--help")
    assert done.returncode == 0
    assert all(option in done.stdout for option in SCRIPTS[script])


def test_a_bad_config(tmp_path) -> None:
    done = run("pretrain_mae.py", "--config_yaml", write_config(tmp_path / "c.yaml", training={"epoch": 1}))
    assert done.returncode == 2
    assert "did you mean training.epochs?" in done.stderr
    assert "training.dataset_path: is required" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bad_geotiff_in_training(tmp_path) -> None:
    name = "S2A_MSIL2A_20170613T101031_1_1"
    write_bigearthnet(tmp_path, {name: some_pixels(shape=(7, 30, 30))})
    config = training_config(tmp_path, dataset_path=str(tmp_path), dataset_csv="split.csv")
    is_one_clear_line(run("pretrain_mae.py", "--config_yaml", config), f"{name}.tif", "30 x 30 pixels")
    assert not list((tmp_path / "run").glob("*"))


def test_a_missing_folder_and_a_missing_checkpoint(tmp_path) -> None:
    config = training_config(tmp_path, dataset_path=str(tmp_path / "nowhere"))
    is_one_clear_line(run("pretrain_mae.py", "--config_yaml", config), "nowhere", "no such folder")
    config = write_config(
        tmp_path / "e.yaml",
        model={"checkpoint_path": str(tmp_path / "absent.pth")},
        data={"dataset_path": "sample_dataset/bigearthnet-l", "dataset_csv": "bigearthnet-test.csv"},
        eval={"reconstructions_dir": str(tmp_path / "out")},
    )
    is_one_clear_line(run("eval_mae.py", "--config_yaml", config), "absent.pth", "no such checkpoint")


def test_output_that_cannot_be_written(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    config = training_config(tmp_path, weight_path=str(tmp_path / "file" / "run"))
    is_one_clear_line(run("pretrain_mae.py", "--config_yaml", config), str(tmp_path / "file"))
    if os.geteuid() != 0:  # root may write anywhere
        locked = tmp_path / "locked"
        locked.mkdir()
        locked.chmod(0o500)
        config = training_config(tmp_path, weight_path=str(locked))
        is_one_clear_line(run("pretrain_mae.py", "--config_yaml", config), "locked", "permission")


def test_scripts_run_from_anywhere(tmp_path) -> None:
    done = warm_python.run([ROOT / "eval_mae.py", "--config_yaml", "absent.yaml"], cwd=tmp_path)
    is_one_clear_line(done, "absent.yaml")


@pytest.mark.parametrize(
    "folder",
    ["configs", "models", "classification_models", "datasets", "transformation", "utils", "eval", "embed", "scheduler"],
)
def test_every_room_can_be_imported_and_says_what_it_is(folder: str) -> None:
    package = __import__(folder)
    assert package.__doc__
    assert Path(package.__file__).parent == ROOT / folder
