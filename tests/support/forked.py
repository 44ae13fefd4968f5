"""Scripts in processes of their own that are stopped or killed, without the seconds of imports of a new Python.

They are forked from a server that has imported the libraries, as in `ranks.py`.
"""

import multiprocessing
import os
import signal
import tempfile
import threading
from pathlib import Path

import torch
from conftest import ROOT
from ranks import PRELOADED, script
from tqdm import tqdm


class Started:
    """A script that runs; its output, stdout and stderr together, goes to a file."""

    def __init__(self, name: str, *arguments: object) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self._folder = tempfile.TemporaryDirectory()  # removed with this object
        self._said = Path(self._folder.name) / "said"
        self._said.touch()
        self._process = context.Process(target=_begin, args=(self._said, name, tuple(map(str, arguments))))
        self._process.start()

    @property
    def returncode(self) -> int | None:
        """Negative for the signal that ended it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def said(self) -> str:
        return self._said.read_text()

    def send_signal(self, number: int) -> None:
        os.kill(self._process.pid, number)

    def wait(self, timeout: float) -> int:
        """Its exit code; it is killed where it takes longer."""
        self._process.join(timeout)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
            raise TimeoutError(f"still running after {timeout} s: {self.said()}")
        return self._process.exitcode


def _begin(said: Path, name: str, arguments: tuple[str, ...]) -> None:
    for number in (1, 2):
        os.dup2(os.open(said, os.O_APPEND | os.O_WRONLY), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    multiprocessing.set_start_method("fork", force=True)  # as in a process of its own
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())
    os.chdir(ROOT)
    script(name, *arguments)
