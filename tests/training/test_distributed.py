"""Several processes that share a run: the same results as one, one writer, one message, and no hanging."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import shared_runs
import torch
from conftest import ROOT
from ranks import Ended, gradients_of_a_step, one_step, run_ranks, script, script_reading_files, training_with_a_signal
from shared_runs import NAMES, one_message, rows, run_config, same_run, write_data
from tiny import TINY_MODEL, write_config

from embed.compute_embed import main as embed
from models.checkpoint import EXTRA_KEY
from pretrain_mae import main as pretrain
from training.run_folder import verify
from training.step import TrainStep
from utils.processes import ALONE

pytestmark = pytest.mark.runs

BALANCE = 3e4
"""A weight with which the balance loss rules the gradient."""

MIDDLE = 6
"""A step in the middle of the second of the epochs, which have 4 steps."""

data, alone = shared_runs.data, shared_runs.alone


@pytest.fixture(scope="module")
def together(tmp_path_factory, data) -> tuple[Path, list[Ended]]:
    """The same of two processes."""
    folder = tmp_path_factory.mktemp("together")
    config = run_config(data, folder)
    return folder, run_ranks(folder, script, "pretrain_mae.py", "--config_yaml", config)


# --------------------------------------------------------------------------- the same results


@pytest.mark.parametrize(
    ("count", "compiled"), [(2, False), (3, False), pytest.param(2, True, marks=pytest.mark.programs)]
)
def test_the_gradient_is_that_of_the_whole_batch(tmp_path, count: int, compiled: bool) -> None:
    """With a large weight on the balance loss, which is no sum over patches: CV is taken of the whole batch's sums."""
    ended = run_ranks(tmp_path, one_step, tmp_path / "found", 6, BALANCE, compiled, count=count)
    assert [process.code for process in ended] == [0] * count, ended
    shared, whole = torch.load(tmp_path / "found"), gradients_of_a_step(6, BALANCE, ALONE)
    assert whole["norm"] > 2 * gradients_of_a_step(6, 0.0, ALONE)["norm"]
    for name, value in whole.items():
        if not name.endswith("k_proj.bias"):
            torch.testing.assert_close(shared[name], value, rtol=1e-4, atol=1e-5 * value.abs().max().item(), msg=name)


def test_the_losses_and_weights_are_those_of_one_process(alone, together) -> None:
    folder, ended = together
    assert [process.code for process in ended] == [0, 0], ended
    assert len(rows(folder)) == 4
    same_run(folder, alone)
    logs = [(at / "run" / "training_log_XXS.jsonl").read_text().splitlines() for at in (folder, alone)]
    for ours, theirs in zip(*(map(json.loads, log) for log in logs), strict=True):
        assert ours["skipped_fill"] == theirs["skipped_fill"] == 2
        assert ours["expert_usage"] == theirs["expert_usage"]
        assert ours["val_moe_loss"] == pytest.approx(theirs["val_moe_loss"], rel=1e-5)


def test_only_the_main_process_writes_and_prints(alone, together) -> None:
    folder, (main, other) = together
    assert (other.said, other.complained, main.complained) == ("", "", "")
    assert "shared by 2 processes" in main.said
    lines = main.said.splitlines()
    assert len(lines) == len(set(lines)) == 6
    assert sorted(p.name for p in (folder / "run").iterdir()) == sorted(p.name for p in (alone / "run").iterdir())
    assert json.loads((folder / "run" / "manifest_XXS.json").read_text())["processes"] == 2


def test_patches_without_metadata(tmp_path) -> None:
    """Every parameter still has a gradient, as the processes need it; one block has one expert and no routing."""
    config = write_config(
        tmp_path / "c.yaml",
        model={**TINY_MODEL, "experts": [1, 3]},
        data={"dataset": "eurosat_ls"},
        training={
            "dataset_path": str(ROOT / "sample_dataset" / "eurosat-l-sample"),
            "dataset_csv": "eurosat-val.txt",
            "epochs": 1,
            "batch_size": 6,
            "weight_path": str(tmp_path / "run"),
        },
    )
    ended = run_ranks(tmp_path, script, "pretrain_mae.py", "--config_yaml", config)
    assert [process.code for process in ended] == [0, 0], ended


# --------------------------------------------------------------------------- stopping and going on


@pytest.mark.faults
def test_stopped_together_and_resumed_alone(tmp_path, data, alone) -> None:
    """SIGTERM reaches the second process only, in mid-epoch."""
    config = run_config(data, tmp_path)
    ended = run_ranks(tmp_path, training_with_a_signal, "SIGTERM", 1, MIDDLE, "--config_yaml", config)
    assert [process.code for process in ended] == [0, 0], ended
    assert ended[0].said.count("stopped by a signal in epoch 2; saved") == 1
    assert ended[1].said == ended[0].complained == ended[1].complained == ""
    saved = torch.load(tmp_path / "run" / "checkpoint_XXS.pth", weights_only=True)[EXTRA_KEY]["run"]
    assert (saved["epoch"], saved["batch_in_epoch"]) == (1, 3)
    assert pretrain(["--config_yaml", str(config), "--resume"]) == 0
    same_run(tmp_path, alone)


@pytest.mark.faults
def test_stopped_alone_and_resumed_together(tmp_path, data, alone, monkeypatch) -> None:
    config = run_config(data, tmp_path, save_every_n_steps=2)
    real = TrainStep.__call__

    def interrupting(step, batch, number, lr):
        if number == MIDDLE:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(step, batch, number, lr)

    monkeypatch.setattr(TrainStep, "__call__", interrupting)
    assert pretrain(["--config_yaml", str(config)]) == 0
    assert len(rows(tmp_path)) == 1
    ended = run_ranks(tmp_path, script, "pretrain_mae.py", "--config_yaml", config, "--resume")
    assert [process.code for process in ended] == [0, 0], ended
    assert ended[0].said.count("resuming from") == 1
    same_run(tmp_path, alone)


@pytest.mark.faults
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_others(tmp_path, data, alone, rank: int) -> None:
    config = run_config(data, tmp_path)
    started = time.monotonic()
    ended = run_ranks(tmp_path, training_with_a_signal, "SIGKILL", rank, MIDDLE, "--config_yaml", config)
    assert time.monotonic() - started < 90, "it waited for a process that is gone"
    assert ended[rank].code == -signal.SIGKILL
    assert ended[1 - rank].code == 2
    one_message(ended, "another process of this run is gone", "--resume")
    assert verify(tmp_path / "run" / "checkpoint_XXS.pth") is None
    assert pretrain(["--config_yaml", str(config), "--resume"]) == 0
    same_run(tmp_path, alone)


@pytest.mark.faults
def test_a_process_that_does_not_answer_is_given_up(tmp_path, data) -> None:
    """The time that a process waits for the others is 5 s here."""
    ended = run_ranks(tmp_path, training_with_a_signal, "SIGSTOP", 1, 2, "--config_yaml", run_config(data, tmp_path))
    assert (ended[0].code, ended[1].code) == (2, -signal.SIGKILL)
    one_message(ended, "does not answer", "Timed out")


# --------------------------------------------------------------------------- embedding


def embed_config(data: Path, folder: Path, weights: Path, **data_section: object) -> Path:
    folder.mkdir()
    return write_config(
        folder / "embed.yaml",
        model={"checkpoint_path": str(weights), "device": "cpu"},
        data={"dataset_path": str(data), "batch_size": 3, **data_section},
        embed={"pool": "mean", "out_dir": str(folder / "out"), "name": "e"},
    )


def test_embeddings_have_the_same_bytes(tmp_path, data, alone) -> None:
    """A split of five batches, one of three, one of a single patch."""
    (data / "one.csv").write_text(NAMES[0])
    options = {"splits": {"train": "split.csv", "one": "one.csv", "val": "val.csv"}}
    checkpoint = alone / "run" / "pretrained_XXS_last.pth"
    assert embed(["--config_yaml", str(embed_config(data, tmp_path / "a", checkpoint, **options))]) == 0
    config = embed_config(data, tmp_path / "b", checkpoint, **options)
    main, other = run_ranks(tmp_path / "b", script, "embed/compute_embed.py", "--config_yaml", config)
    assert (main.code, other.code, main.complained, other.complained, other.said) == (0, 0, "", "", ""), (main, other)
    for split, patches in (("train", 11), ("one", 1), ("val", 6)):
        ours, theirs = (tmp_path / name / "out" / f"e_{split}.npz" for name in "ab")
        assert ours.read_bytes() == theirs.read_bytes()
        assert np.load(ours)[f"x_{split}"].shape == (patches, 24)
        assert main.said.count(f"e_{split}.npz: {patches} patches x 24 numbers") == 1
        first, second = (json.loads(path.with_suffix(".json").read_text()) for path in (ours, theirs))
        for key in ("x_shape", "y_shape", "skipped_fill", "skipped_without_labels", "dataset_fingerprint"):
            assert first[key] == second[key], key
    assert len(list((tmp_path / "b" / "out").iterdir())) == 6


@pytest.mark.parametrize("bad", [0, 12])
def test_a_bad_file_in_one_process_ends_both_and_leaves_nothing(tmp_path, alone, bad: int) -> None:
    """Met in the first or the last batch, when the other process has work left or waits for this one."""
    write_data(tmp_path / "d")
    path = tmp_path / "d" / "images" / f"{NAMES[bad]}.tif"
    path.write_bytes(path.read_bytes()[:999])
    options = {"splits": {"train": "split.csv"}, "num_workers": 1}
    config = embed_config(tmp_path / "d", tmp_path / "e", alone / "run" / "pretrained_XXS_last.pth", **options)
    ended = run_ranks(tmp_path / "e", script_reading_files, "embed/compute_embed.py", "--config_yaml", config)
    one_message(ended, NAMES[bad])
    assert not list((tmp_path / "e" / "out").iterdir())
