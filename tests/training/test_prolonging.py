"""A run with options of the richer recipe, prolonged and cooled down to the bits of one that was so from the start."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from pretraining import rows, same_weights, train, weights
from tiny import training_config

from models.checkpoint import EXTRA_KEY
from training.run_log import RunLog
from utils.errors import CheckpointError

RECIPE = {
    "batch_size": 2,
    "learning_rate": 1e-2,
    "optimizer": "muon",
    "ema_decay": 0.5,
    "schedule": "stable_sqrt",
}
COOLED_DOWN = ("--set", "training.epochs=4", "--set", "training.decay_fraction=0.5")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Iterator[tuple[Path, Path]]:
    """Folders of a run of four epochs, two at a constant rate, and of one that at first was to have only those two."""
    whole, parts = (tmp_path_factory.mktemp(name) for name in ("whole", "parts"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunLog, "draw_curve", lambda log: None)  # most of the time of such a run
        assert train(training_config(whole, 4, val_csv=str(whole / "train.csv"), **RECIPE), *COOLED_DOWN) == 0
        constant = {"epochs": 2, "decay_fraction": 0, "val_csv": str(parts / "train.csv")}
        config = training_config(parts, 4, **constant, **RECIPE)
        assert train(config) == 0
        assert not same_weights(parts / "run" / "pretrained_XXS_last.pth", whole / "run" / "pretrained_XXS_last.pth")
        assert train(config, *COOLED_DOWN, "--resume") == 0
    yield whole / "run", parts / "run"


@pytest.mark.parametrize("name", ["pretrained_XXS_last.pth", "pretrained_XXS_best.pth", "checkpoint_XXS.pth"])
def test_the_same_bits(runs, name: str) -> None:
    whole, parts = runs
    assert same_weights(whole / name, parts / name)


def test_the_same_metrics_and_a_record_of_the_longer_run(runs) -> None:
    whole, parts = runs
    metrics = "training_metrics_XXS.csv"
    assert len(rows(whole / metrics)) == 4 and (whole / metrics).read_bytes() == (parts / metrics).read_bytes()
    config = yaml.safe_load((parts / "config_XXS.yaml").read_text())
    manifest = json.loads((parts / "manifest_XXS.json").read_text())
    assert config["training"]["epochs"] == manifest["recipe"]["training"]["epochs"] == 4


def test_the_average_is_given_away_and_saved_beside_the_weights(runs) -> None:
    given, saved = runs[0] / "pretrained_XXS_last.pth", runs[0] / "checkpoint_XXS.pth"
    assert not same_weights(given, saved)
    average = torch.load(saved, weights_only=True)[EXTRA_KEY]["run"]["average"]
    assert torch.equal(average["mask_token"], weights(given)["mask_token"])


def test_once_it_is_cooled_down_a_run_cannot_be_prolonged(runs) -> None:
    longer = ("--set", "training.epochs=6", "--set", "training.decay_fraction=0.5")
    with pytest.raises(CheckpointError, match=r"training\.epochs was 4 in the saved run and is 6 now"):
        train(runs[1].parent / "train.yaml", *longer, "--resume")
