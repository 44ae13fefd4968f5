"""Pretraining in this process, and what a run leaves."""

import csv
from pathlib import Path

import pytest
import torch
from tiny import training_config

from pretrain_mae import main


def train(config: Path, *extra: str) -> int:
    return main(["--config_yaml", str(config), *extra])


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["model_state"]


def same_weights(a: Path, b: Path) -> bool:
    ours, theirs = weights(a), weights(b)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of a run of one epoch, which a test file takes by name; a test that writes into it takes a copy."""
    folder = tmp_path_factory.mktemp("finished")
    assert train(training_config(folder, epochs=1)) == 0
    return folder
