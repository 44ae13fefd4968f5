"""Whether the Landsat score holds with a second sensor: both sensors' patches of the same places, every figure."""

import csv
import json

import numpy as np
import pytest
import torch
from conftest import ROOT
from tiny import tiny_model

from eval.probing import linear_probe
from models.checkpoint import write_checkpoint
from studies.engine.stages import StageCache
from studies.recipe import second_sensor_scores
from studies.recipe.agreement import alike
from studies.recipe.band_scores import simulated_patches
from studies.recipe.second_sensor import COLUMNS, RESULT, TABLE, TEXT, main, rows_as_csv, tables
from studies.recipe.second_sensor_scores import BASELINES, opened, vectors_of
from utils.errors import ConfigError
from utils.randomness import generator

BOTH = ("oli", "msi")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    cache = StageCache(tmp_path_factory.mktemp("patches"))
    return {sensor: simulated_patches(cache, 6, 3, sensor) for sensor in BOTH}


def test_both_see_the_same_places(folders) -> None:
    oli, msi = (opened(folders[sensor][0], sensor, "test") for sensor in BOTH)
    assert oli.ids == msi.ids and torch.equal(oli.labels, msi.labels)
    assert folders["oli"][1] != folders["msi"][1]


def test_vectors_with_metadata_or_without(folders) -> None:
    model = tiny_model(sensors=BOTH)
    dataset = opened(folders["msi"][0], "msi", "test", model)
    given, withheld = (vectors_of(model, dataset, metadata) for metadata in (True, False))
    assert len(given.x) == 6 and given.ids == dataset.ids and not np.allclose(given.x, withheld.x)


def test_alike_is_by_the_first_ones_mean_and_spread() -> None:
    here = np.random.default_rng(0).normal(5.0, 2.0, (20, 8))
    cosine, nearest = alike(here, here)
    assert np.allclose(cosine, 1.0) and nearest.all()
    cosine, nearest = alike(here, here[::-1])
    assert np.abs(cosine.mean()) < 0.3 and nearest.sum() <= 2


def test_the_stored_tables_are_made_from_the_stored_result() -> None:
    folder = ROOT / "docs/evidence/second_sensor"
    result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    assert (folder / TEXT).read_text(encoding="utf-8") == tables(result)
    assert (folder / TABLE).read_text(encoding="utf-8") == rows_as_csv(result)


@pytest.mark.runs
def test_the_command_writes_every_figure_and_does_nothing_twice(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(linear_probe, "FOLDS", 2)
    write_checkpoint(tmp_path / "one.pth", tiny_model(), epoch=0, best_train_loss=0.0)
    two = tiny_model(sensors=BOTH)
    torch.nn.init.normal_(two.encoder.patch_proj_msi.weight, std=0.1, generator=generator(0, "test"))
    write_checkpoint(tmp_path / "two.pth", two, epoch=0, best_train_loss=0.0)
    asked = ["--out", str(tmp_path / "out"), "--patches", "40", "--weights", str(tmp_path / "one.pth"),
             str(tmp_path / "two.pth"), "--titles", "one", "two"]  # fmt: skip
    assert main(asked) == 0
    result = json.loads((tmp_path / "out" / RESULT).read_text())
    assert list(result["micro_map"]) == ["given", "withheld"]
    for kind, scores in result["micro_map"].items():
        assert list(scores) == [*(name for name, of in BASELINES.items() if of == kind), "one", "two"]
        assert list(scores["two"]) == list(COLUMNS) and list(next(iter(scores.values()))) == ["oli", "msi"]
        assert scores["two"]["oli"]["minus"] == {"one": [0.0, 0.0, 0.0]}, "Landsat's weights are the same"
        assert scores["two"]["msi"]["minus"]["one"] != [0.0, 0.0, 0.0] and scores["one"]["oli"]["minus"] == {}
    assert result["agreement"]["one"]["withheld"]["cosine"][0] > result["agreement"]["two"]["withheld"]["cosine"][0]
    with (tmp_path / "out" / TABLE).open() as file:
        assert {row["what"] for row in csv.DictReader(file)} == {
            "micro_map", "micro_map_difference", "cosine", "nearest"
        }  # fmt: skip
    before = (tmp_path / "out" / RESULT).read_bytes()
    monkeypatch.setattr(second_sensor_scores, "vectors_of", lambda *_: pytest.fail("was done before"))
    capsys.readouterr()
    assert main(asked) == 0 and (tmp_path / "out" / RESULT).read_bytes() == before
    assert tables(result) in capsys.readouterr().out
    with pytest.raises(ConfigError, match="give at least 2"):
        main([*asked[:2], "--patches", "1"])
    with pytest.raises(ConfigError, match="one of its own for each"):
        main([*asked[:2], "--titles", "a", "b"])
