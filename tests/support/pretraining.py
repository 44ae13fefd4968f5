"""Pretraining, in this process and in others, and what a run leaves."""

import csv
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import warm_python
from conftest import ROOT
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


def start(config: Path, *extra: str) -> warm_python.Process:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return warm_python.start(["pretrain_mae.py", "--config_yaml", config, *extra], cwd=ROOT, env=environment)


def stop_when(process: warm_python.Process, condition: Callable[[], object], number: int) -> str:
    """Send a signal as soon as `condition` holds; the process's output."""
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.stdout + process.stderr
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(number)
    return "".join(process.communicate(timeout=60))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    """A run that nobody disturbed, in a process of its own, as the disturbed ones are."""
    folder = tmp_path_factory.mktemp("unbroken")
    process = start(training_config(folder, epochs=4, val_csv=str(folder / "train.csv")))
    assert process.wait(timeout=120) == 0
    return folder / "run"
