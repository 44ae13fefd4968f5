"""The published code itself, from a folder that the user names, in a process of its own: `--published DIR`."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.reference_work import by_field
from benchmarks.setting import SampleBatch
from utils.errors import ConfigError, UserError

NEEDED = ("models/moe_mae.py", "pretrain_mae.py", "embed/compute_embed.py", "scheduler/schedulers.py")
"""Files of the published code that are run."""

NOTE = "the reference is the published code itself"
STAND_IN = "the reference is a stand-in for the published code; `--published DIR` runs the code itself"


def check_published(folder: Path) -> Path:
    """The folder, as an absolute path.

    Raises:
        ConfigError: where it does not hold the published code.
    """
    for name in NEEDED:
        if not (folder / name).is_file():
            raise ConfigError(f"--published {folder}: has no {name}; give the folder of the published code")
    return folder.resolve()


class PublishedWork:
    """One kind of work of the published code, on one batch; a call does it once.

    Args:
        work: "train" or "embed".
        folder: of the published code.
        batch: patches with metadata, on the CPU.
        size: of the model.

    Raises:
        UserError: with the published code's own last words, where it does not start or stops.
    """

    def __init__(self, work: str, folder: Path, batch: SampleBatch, size: str = "S") -> None:
        self._work, self._folder = work, folder
        self._files = tempfile.TemporaryDirectory()
        data, self._errors = Path(self._files.name) / "batch.npz", Path(self._files.name) / "stderr"
        arrays: dict[str, Any] = {name: value.numpy() for name, value in by_field(batch.meta).items()}
        arrays["images"] = batch.images.numpy()
        np.savez(data, **arrays)
        worker = Path(__file__).with_name("published_worker.py")
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-P", worker, folder, data, str(torch.get_num_threads()), size],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._await("ready")

    def __call__(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{self._work}\n")
        self._process.stdin.flush()
        self._await("done")

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
        self._files.cleanup()

    def _await(self, answer: str) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() == answer:
            return
        self._process.kill()
        self._process.wait()
        words = self._errors.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no message"]
        raise UserError(f"--published {self._folder}: the published code stops with {words[-1][:200]}")
