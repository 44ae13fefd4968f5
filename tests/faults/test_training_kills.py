"""Trainings that are killed, stopped, or started twice: the same bits after `--resume`, and one process in a folder."""

import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from faults import Attempt
from pretraining import Forker, rows, same_weights, start, stop_when, train, unbroken  # noqa: F401
from tiny import training_config, write_config

from training.run_folder import record_path, verify
from utils.errors import UserError

METRICS = "training_metrics_XXS.csv"
MOST_KILLS = 6


def test_sigkill_and_resume_gives_the_same_bits(tmp_path, unbroken) -> None:  # noqa: F811
    """Killed in the second epoch, between saves; then again; the weights, the metrics and the best are the same."""
    config = training_config(tmp_path, epochs=4, val_csv=str(tmp_path / "train.csv"))
    folder = tmp_path / "run"
    metrics = folder / "training_metrics_XXS.csv"
    stop_when(start(config), lambda: metrics.exists() and len(rows(metrics)) >= 1, signal.SIGKILL)
    again = start(config, "--resume")
    stop_when(again, lambda: metrics.exists() and len(rows(metrics)) >= 2, signal.SIGKILL)
    assert start(config, "--resume").wait(timeout=120) == 0
    for name in ("pretrained_XXS_last.pth", "pretrained_XXS_best.pth", "checkpoint_XXS.pth"):
        assert same_weights(folder / name, unbroken / name), name
    assert metrics.read_bytes() == (unbroken / metrics.name).read_bytes()
    assert not list(folder.glob(".*"))


def test_sigterm_saves_in_mid_epoch_and_exits_cleanly(tmp_path, unbroken) -> None:  # noqa: F811
    config = training_config(tmp_path, epochs=4, val_csv=str(tmp_path / "train.csv"))
    folder = tmp_path / "run"
    process = start(config)
    said = stop_when(process, lambda: (folder / "manifest_XXS.json").exists(), signal.SIGTERM)
    assert process.returncode == 0, said
    assert verify(folder / "checkpoint_XXS.pth") is None or "nothing to save" in said
    assert start(config, "--resume").wait(timeout=120) == 0
    assert same_weights(folder / "pretrained_XXS_last.pth", unbroken / "pretrained_XXS_last.pth")
    assert (folder / "training_metrics_XXS.csv").read_bytes() == (unbroken / "training_metrics_XXS.csv").read_bytes()


def test_two_trainers_in_one_folder(tmp_path) -> None:
    """The second is refused, whether it resumes or starts afresh; one that was killed is in nobody's way."""
    config = training_config(tmp_path, epochs=500)
    folder = tmp_path / "run"
    first = start(config)
    deadline = time.monotonic() + 120
    while not (folder / METRICS).exists():
        assert first.poll() is None and time.monotonic() < deadline, first.stderr
        time.sleep(0.005)
    for extra in ((), ("--resume",)):
        with pytest.raises(UserError, match=rf"another process is training in it; .* \(process {first.pid} on .*since"):
            train(config, *extra)
    assert first.poll() is None
    first.send_signal(signal.SIGKILL)
    first.wait(60)
    epochs = [int(row["epoch"]) for row in rows(folder / METRICS)]
    assert epochs == list(range(1, len(epochs) + 1))
    assert train(training_config(tmp_path, epochs=1)) == 0
    assert not list(folder.glob(".*"))


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    forker = Forker()
    yield forker
    forker.close()


def small_training(folder: Path) -> Path:
    """Nine steps, a save after every second one and at the end of each epoch."""
    folder.mkdir()
    config = training_config(folder, val_csv=str(folder / "train.csv"), save_every_n_steps=2)
    content = yaml.safe_load(config.read_text())
    content["model"]["depth"] = 1
    return write_config(config, **content)


def test_killed_at_random_and_resumed(campaign, forker, tmp_path) -> None:
    """A run that is killed again and again, at any moment, ends with the bits of one that nobody disturbed."""
    expected, began = tmp_path / "expected", time.monotonic()
    assert forker.train(small_training(expected), log=expected / "log") == 0, (expected / "log").read_text()
    lasts = time.monotonic() - began

    def one(attempt: Attempt) -> str:
        nonlocal lasts
        place = tmp_path / str(attempt.number)
        config, folder, log, kills = small_training(place), place / "run", place / "log", 0
        for more in ([], *[["--resume"]] * MOST_KILLS):
            kill_after = attempt.random.uniform(0, 0.7 * lasts) if kills < MOST_KILLS else None
            ended = forker.train(config, *more, log=log, kill_after=kill_after)
            attempt.keep(place, "run")
            assert ended in (0, -signal.SIGKILL), log.read_text()
            lasts *= 1.05 if ended else 0.9  # the machine has more or less to do than it had before
            if ended == 0:
                break
            kills += 1
        for name in ("pretrained_XXS_last.pth", "pretrained_XXS_best.pth", "checkpoint_XXS.pth"):
            assert same_weights(folder / name, expected / "run" / name), name
        assert (folder / METRICS).read_bytes() == (expected / "run" / METRICS).read_bytes()
        assert not list(folder.glob(".*"))
        assert verify(folder / "checkpoint_XXS.pth") is None and record_path(folder / "checkpoint_XXS.pth").exists()
        shutil.rmtree(place)
        return f"after {kills} kills"

    campaign("random kills of a training", 4, 200).run(one)
