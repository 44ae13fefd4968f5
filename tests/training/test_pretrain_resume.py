"""Pretraining stopped, killed and resumed: the same bits, and what cannot be resumed."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from pretraining import finished, rows, train, unbroken, weights  # noqa: F401
from tiny import some_pixels, training_config, write_bigearthnet

import training.pretrain
from models.checkpoint import EXTRA_KEY, load_model
from training.run_folder import RunFolder, verify
from training.step import TrainStep
from utils.errors import CheckpointError


@pytest.mark.parametrize(("last", "saved_at"), [(4, (1, 2)), (5, (1, 3))])
def test_stop_in_the_middle_of_an_epoch(tmp_path, unbroken, monkeypatch, capsys, last, saved_at) -> None:  # noqa: F811
    """The same in this process, at a known step: the second, and the last, of the second epoch."""
    config = training_config(tmp_path, epochs=4, val_csv=str(tmp_path / "train.csv"))
    real, seen = TrainStep.__call__, []

    def interrupting(step, batch, number, lr):
        seen.append(number)
        if number == last:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(step, batch, number, lr)

    monkeypatch.setattr(TrainStep, "__call__", interrupting)
    assert train(config) == 0
    assert seen == list(range(last + 1))
    saved = torch.load(tmp_path / "run" / "checkpoint_XXS.pth", weights_only=True)[EXTRA_KEY]["run"]
    assert (saved["epoch"], saved["batch_in_epoch"]) == saved_at
    assert "stopped by a signal in epoch 2; saved" in capsys.readouterr().out
    monkeypatch.setattr(TrainStep, "__call__", real)
    assert train(config, "--resume") == 0
    metrics = tmp_path / "run" / "training_metrics_XXS.csv"
    assert metrics.read_bytes() == (unbroken / metrics.name).read_bytes()


def test_resuming_a_finished_run_and_an_empty_folder(tmp_path, capsys) -> None:
    config = training_config(tmp_path, epochs=1)
    assert train(config, "--resume") == 0
    assert "nothing to resume" in capsys.readouterr().out
    before = (tmp_path / "run" / "training_metrics_XXS.csv").read_bytes()
    assert train(config, "--resume") == 0
    assert "this run is finished (1 epochs)" in capsys.readouterr().out
    assert (tmp_path / "run" / "training_metrics_XXS.csv").read_bytes() == before


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, capsys) -> None:
    config = training_config(tmp_path)
    train(config)
    current = tmp_path / "run" / "checkpoint_XXS.pth"
    expected = weights(current)
    current.write_bytes(current.read_bytes()[:-100])
    assert train(config, "--resume") == 0
    said = capsys.readouterr().out
    assert "checkpoint_XXS.pth: does not match checkpoint_XXS.json; looking for another" in said
    assert "resuming from" in said
    assert all(torch.equal(value, expected[name]) for name, value in weights(current).items())
    current.write_bytes(b"x")
    (tmp_path / "run" / "checkpoint_XXS.prev.pth").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="no checkpoint here verifies"):
        train(config, "--resume")


def test_a_verified_older_checkpoint_survives_a_damaged_newer_one(tmp_path) -> None:
    """Saving over a damaged checkpoint must not push out the good one before it."""
    config = training_config(tmp_path)
    train(config)
    folder = RunFolder(tmp_path / "run", "XXS", with_validation=False)
    good = folder.previous.read_bytes()
    folder.checkpoint.write_bytes(b"damaged")
    model = load_model(folder.last)
    folder.save(model, {}, epoch=9, best_train_loss=0.0)
    assert folder.previous.read_bytes() == good
    assert verify(folder.checkpoint) is None


@pytest.mark.parametrize(
    "change", ["training.learning_rate=2e-3", "training.epochs=9", "model.k=1", "data.crop=resize"]
)
def test_another_recipe_cannot_be_resumed(finished, change: str) -> None:  # noqa: F811
    with pytest.raises(CheckpointError, match=change.partition("=")[0]):
        train(finished / "train.yaml", "--resume", "--set", change)


def test_other_data_cannot_be_resumed(tmp_path) -> None:
    names = [f"S2A_MSIL2A_20170613T101031_{i}_1" for i in range(5)]
    write_bigearthnet(tmp_path, {name: some_pixels(i) for i, name in enumerate(names)})
    config = training_config(tmp_path, epochs=1, dataset_path=str(tmp_path), dataset_csv="split.csv")
    train(config)
    write_bigearthnet(tmp_path, {name: some_pixels(i + 1) for i, name in enumerate(names)})
    with pytest.raises(CheckpointError, match="other data"):
        train(config, "--resume")


def test_starting_afresh_keeps_the_earlier_run(tmp_path, finished, capsys) -> None:  # noqa: F811
    config = training_config(tmp_path, epochs=1)
    shutil.copytree(finished / "run", tmp_path / "run")
    expected = (tmp_path / "run" / "pretrained_XXS_last.pth").read_bytes()
    train(config)
    assert "an earlier run was in" in capsys.readouterr().out
    (moved,) = (tmp_path / "run").glob("replaced_*/pretrained_XXS_last.pth")
    assert moved.read_bytes() == expected
    assert len(rows(tmp_path / "run" / "training_metrics_XXS.csv")) == 1


def test_a_signal_before_the_first_step(tmp_path, monkeypatch, capsys) -> None:
    def interrupted(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr(training.pretrain, "build_training_dataset", interrupted)
    assert train(training_config(tmp_path)) == 0
    assert "before the first step; nothing to save" in capsys.readouterr().out


def test_killed_before_the_first_save_starts_over_in_place(tmp_path) -> None:
    config = training_config(tmp_path, epochs=1)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "training_metrics_XXS.csv").write_text("a row of an attempt that was never saved\n")
    (tmp_path / "run" / ".checkpoint_S.new.x.tmp.pth").write_text("another run's file in the making")
    assert train(config, "--resume") == 0
    assert len(rows(tmp_path / "run" / "training_metrics_XXS.csv")) == 1
    assert not list((tmp_path / "run").glob("replaced_*"))
    assert (tmp_path / "run" / ".checkpoint_S.new.x.tmp.pth").exists()


def test_resuming_needs_the_initial_weights_no_more(tmp_path, finished) -> None:  # noqa: F811
    training_config(tmp_path, epochs=1)
    first = Path(shutil.copy(finished / "run" / "pretrained_XXS_last.pth", tmp_path))
    more = ("--set", f"model.checkpoint_path={first}", "--set", f"training.weight_path={tmp_path / 'more'}")
    train(tmp_path / "train.yaml", *more)
    first.unlink()
    assert train(tmp_path / "train.yaml", *more, "--resume") == 0
