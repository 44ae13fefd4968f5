"""The published code itself as the reference: from a folder that the user names, in a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.setting import SampleBatch, Setting
from utils.errors import ConfigError

WORKER = Path(__file__).with_name("published_worker.py")
MODEL_FILE = Path("models") / "moe_mae.py"
SHOWN = 200
"""Characters of the published code's last words in a message."""


def published_folder(path: Path) -> Path:
    """The folder, made absolute. Raises ConfigError where it holds no published code."""
    folder = path.expanduser().resolve()
    if not (folder / MODEL_FILE).is_file():
        raise ConfigError(f"--published {path}: holds no {MODEL_FILE}; give the folder of the published repository")
    return folder


class PublishedWork:
    """One kind of work of the published code, a call at a time; the process ends with the object.

    Args:
        folder: of the published code.
        work: "train", a step in training, or "embed", all tokens of the batch.
        batch: on the CPU.
        setting: of the run.

    Attributes:
        parameters: of the published model.

    Raises:
        ConfigError: with the published code's last words, when it cannot be started.
    """

    def __init__(self, folder: Path, work: str, batch: SampleBatch, setting: Setting) -> None:
        self.folder = folder
        with tempfile.TemporaryDirectory() as scratch:
            saved = Path(scratch) / "batch.npz"
            np.savez(saved, images=batch.images.numpy(), meta=batch.meta.numpy())
            asked = {
                "work": work,
                "batch": str(saved),
                "size": setting.config.size,
                "patch": setting.config.patch_size,
                "device": str(setting.device),
                "threads": torch.get_num_threads() if setting.kind == "cpu" else None,
                "seed": setting.seed,
            }
            self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - kept open
            self._process = subprocess.Popen(
                [sys.executable, str(WORKER), str(folder), json.dumps(asked)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                text=True,
                env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            )
            weakref.finalize(self, _end, self._process)
            self.parameters: int = self._answer()["parameters"]

    def __call__(self) -> Any:
        """Do it once; returns what the worker answers."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except OSError:
            pass  # it has ended: its last words say why
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._said.seek(0)
            words = self._said.read().strip().rpartition("\n")[2][:SHOWN]
            raise ConfigError(f"--published {self.folder}: the published code ended ({words or 'without a word'})")
        return json.loads(line)


def _end(process: subprocess.Popen) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    process.kill()
    process.wait()
