"""Peak memory of a training step and of embedding: each in its own process, so that nothing else is counted."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.report import Row
from benchmarks.rows_embed import embedding_works
from benchmarks.rows_train import training_works
from benchmarks.setting import Setting
from benchmarks.timing import Ratio
from utils.memory import peak_memory

STEPS = 2
"""Calls before the peak is read: the first optimizer step makes the moments."""

MEBIBYTE = 1 << 20


class Peak(NamedTuple):
    """Bytes."""

    before: int
    """With everything imported and the batch at hand."""
    peak: int

    @property
    def added(self) -> int:
        """What model, optimizer and activations added."""
        return self.peak - self.before


def memory_rows(setting: Setting) -> list[Row]:
    """Peak memory of ours and of the reference, eager."""
    measured = "allocated on the GPU" if setting.kind == "cuda" else "resident memory of the process beyond imports"
    rows = []
    for work, label in (("train", "peak memory, training step"), ("embed", "peak memory, embedding")):
        ours, reference = (peak_in_new_process(setting, work, name) for name in ("eager", "reference"))
        quotient = reference.added / max(1, ours.added)
        rows.append(
            Row(
                label,
                "MiB",
                ours=ours.added / MEBIBYTE,
                reference=reference.added / MEBIBYTE,
                ratio=Ratio(quotient, quotient, quotient),
                note=f"{measured}; one process each",
                details={"bytes": {"ours": ours._asdict(), "reference": reference._asdict()}},
            )
        )
    return rows


def peak_in_new_process(setting: Setting, work: str, name: str) -> Peak:
    """Run a work of `training_works` or `embedding_works` a few times in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure_peak, setting, work, name, torch.get_num_threads()).result()


def measure_peak(setting: Setting, work: str, name: str, threads: int) -> Peak:
    """What `peak_in_new_process` runs there."""
    torch.set_num_threads(threads)
    make = {"train": training_works, "embed": embedding_works}[work]
    before = _peak(setting.device)
    call = make(setting, [name])[name]
    for _ in range(STEPS):
        call()
    return Peak(before, _peak(setting.device))


def _peak(device: torch.device) -> int:
    """Most bytes so far: allocated on a GPU, or resident of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:  # what `getrusage` says includes, on Linux, the process that started this one
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return 1024 * int(status["VmHWM"].split()[0])
    except (OSError, KeyError):
        return peak_memory() or 0
