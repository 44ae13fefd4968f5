"""Runs that several processes share: their data and config, and whether two runs are the same."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from ranks import Ended
from tiny import some_pixels, training_config, write_bigearthnet

from pretrain_mae import main as pretrain

NAMES = [f"S2A_MSIL2A_20170613T101031_1_{i}" for i in range(13)]
"""Batches of 4: the last one has a single patch, so that the second process's rows of it are all padding."""


def write_data(folder: Path, seed: int = 0) -> None:
    """Two patches without valid pixels and one half full; `val.csv` makes two batches."""
    patches = {name: some_pixels(seed + i) for i, name in enumerate(NAMES)}
    for empty in (3, 9):
        patches[NAMES[empty]] *= 0
    patches[NAMES[5]][:, :20] = 0
    write_bigearthnet(folder, patches, {name: ["Pastures"] for name in NAMES})
    (folder / "val.csv").write_text("\n".join(NAMES[:7]) + "\n")


def run_config(data: Path | str, folder: Path, **training: object) -> Path:
    values = {"epochs": 4, "learning_rate": 3e-3, "balance_weight": 50.0, **training}
    files = {"dataset_path": str(data), "dataset_csv": "split.csv", "val_csv": "val.csv"}
    return training_config(folder, **files, **values)


def rows(folder: Path) -> np.ndarray:
    with (folder / "run" / "training_metrics_XXS.csv").open(newline="") as file:
        return np.array([list(map(float, row.values())) for row in csv.DictReader(file)])


def weights(path: Path) -> dict[str, torch.Tensor]:
    state = torch.load(path, weights_only=True)["model_state"]
    # The gradient of a key's bias is rounding noise, which Adam makes steps of; no output depends on it.
    return {name: value for name, value in state.items() if not name.endswith("k_proj.bias")}


def same_run(ours: Path, theirs: Path) -> None:
    np.testing.assert_allclose(rows(ours), rows(theirs), rtol=2e-5)
    for name in ("last", "best"):
        paths = [folder / "run" / f"pretrained_XXS_{name}.pth" for folder in (ours, theirs)]
        first, second = map(weights, paths)
        assert first.keys() == second.keys()
        for key, value in first.items():
            torch.testing.assert_close(value, second[key], rtol=1e-4, atol=2e-5, msg=f"{name}: {key}")


def one_message(ended: list[Ended], *parts: str) -> None:
    """All have ended, at least one with a code that says so, and one of them said why, in one line."""
    assert any(process.code for process in ended), ended
    lines = "".join(process.complained for process in ended).splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert all(part in lines[0] for part in parts), lines[0]


# --------------------------------------------------------------------------- fixtures, which a test file takes by name


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory, data) -> Path:
    """A run of one process that nobody disturbed."""
    folder = tmp_path_factory.mktemp("alone")
    assert pretrain(["--config_yaml", str(run_config(data, folder))]) == 0
    return folder
