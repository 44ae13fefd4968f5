"""Pretraining, in this process and in others, and what a run leaves."""

import csv
import os
import select
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import warm_python
from conftest import ROOT
from tiny import training_config

from pretrain_mae import main
from training import run_log
from utils.files import write_text


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


class Forker:
    """A process that has imported everything and trains nothing itself, so that a training costs a fork of it.

    For trainings that are killed by the hundred; `start` runs the script itself. PyTorch runs no backward pass in a
    fork of a process that has run one, so that this cannot be the process of the tests. The loss curve is not drawn,
    which takes a third of such a run: a text is written in its place.
    """

    def __init__(self) -> None:
        context = warm_python.server()
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_fork_trainings, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        assert self._pipe.recv() == "ready"

    def train(self, config: Path, *extra: str, log: Path, kill_after: float | None = None) -> int:
        """The exit code of a training; minus 9 where it was killed, so many seconds after the fork."""
        self._pipe.send((["--config_yaml", str(config), *extra], str(log), kill_after))
        return self._pipe.recv()

    def close(self) -> None:
        self._pipe.close()
        self._process.join(60)


def _fork_trainings(pipe: Any) -> None:
    torch.set_num_threads(1)
    run_log.plot_loss_curve = lambda metrics, kind: metrics.read_text()
    run_log.save_figure = lambda text, path: write_text(path, text)
    pipe.send("ready")
    while True:
        try:
            arguments, log, kill_after = pipe.recv()
        except EOFError:
            return
        child = os.fork()
        if child == 0:
            os._exit(_training(arguments, log))
        descriptor = os.pidfd_open(child)
        if not select.select([descriptor], [], [], kill_after)[0]:
            os.kill(child, signal.SIGKILL)  # it has not been waited for, so that the number is still its own
        os.close(descriptor)
        pipe.send(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _training(arguments: list[str], log: str) -> int:
    streams = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    os.dup2(streams, 1)
    os.dup2(streams, 2)
    try:
        return main(arguments)
    except BaseException:
        os.write(2, traceback.format_exc().encode())
        return 1
