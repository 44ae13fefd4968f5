"""Labelled images: one label each, or several."""

import json

import pytest
import yaml
from conftest import SAMPLE
from scene_files import six_band_folder, tiny_checkpoint
from tiny import sample_ids

from configs.finetuning import read_finetuning_config
from finetune import main
from models import MOEMAE
from utils.errors import ConfigError, DataError


def image_config(folder, **changes):
    ids = sample_ids(30)
    for part, names in (("train", ids[:18]), ("val", ids[18:24]), ("test", ids[24:])):
        (folder / f"{part}.csv").write_text("\n".join(names) + "\n")
    values = {
        "task": "multilabel",
        "model": {"checkpoint_path": str(tiny_checkpoint(folder / "tiny.pth")), "device": "cpu"},
        "data": {
            "dataset_path": str(SAMPLE),
            "splits": {part: str(folder / f"{part}.csv") for part in ("train", "val", "test")},
        },
        "training": {"epochs": 2, "batch_size": 6, "weight_path": str(folder / "run")},
        **changes,
    }
    path = folder / "images.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


@pytest.mark.parametrize("mode", ["frozen", "lora", "whole"])
def test_several_labels(tmp_path, mode: str) -> None:
    assert main(["--config_yaml", image_config(tmp_path, encoder={"mode": mode, "rank": 2})]) == 0
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert 0 < scores["test"]["map_micro"] <= 1 and len(scores["test"]["per_class"]) == 19


def test_one_label(tmp_path) -> None:
    data = {
        "dataset": "eurosat_ls",
        "dataset_path": str(SAMPLE.parent / "eurosat-l-sample"),
        "splits": {"train": "eurosat-train.txt", "val": "eurosat-val.txt", "test": "eurosat-test.txt"},
    }
    assert main(["--config_yaml", image_config(tmp_path, task="multiclass", data=data)]) == 0
    assert 0 <= json.loads((tmp_path / "run" / "scores.json").read_text())["test"]["accuracy"] <= 1


@pytest.mark.parametrize("mode", ["frozen", "whole"])
def test_bands_that_images_lack_are_missing_to_the_encoder(tmp_path, monkeypatch, mode: str) -> None:
    given = []
    encode = MOEMAE.encode

    def noted(self, *arguments, bands=None, **options):
        given.append(bands)
        return encode(self, *arguments, bands=bands, **options)

    monkeypatch.setattr(MOEMAE, "encode", noted)
    data = {
        "dataset": "labelled_folder",
        "dataset_path": str(six_band_folder(tmp_path / "images")),
        **{"sensor": "etm", "scale": 2.75e-5, "offset": -0.2, "crop": "center", "statistics": "auto"},
        "splits": {"train": "0-60%", "val": "60-80%", "test": "80-100%"},
    }
    path = image_config(tmp_path, task="multiclass", data=data, encoder={"mode": mode})
    assert main(["--config_yaml", path]) == 0
    assert given and all(bands is not None and bands[0].tolist() == [False] + [True] * 6 for bands in given)


def test_no_map_of_images_and_no_other_task(tmp_path) -> None:
    path = image_config(tmp_path)
    assert main(["--config_yaml", path]) == 0
    with pytest.raises(ConfigError, match="maps need one of task segmentation"):
        main(["--predict", "scene", "--run", str(tmp_path / "run"), "--out", str(tmp_path / "map"), "--device", "cpu"])
    with pytest.raises(DataError, match="set task: multilabel"):
        main(["--config_yaml", path, "--set", "task=multiclass"])


def test_a_config_survives_being_written(tmp_path) -> None:
    given = image_config(tmp_path, encoder={"mode": "lora"})
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(read_finetuning_config(given, []).resolved()))
    again = read_finetuning_config(str(tmp_path / "again.yaml"), [])
    assert again.model_dump() == read_finetuning_config(given, []).model_dump()
