"""Everything that waits for a GPU in one go: `benchmarks/gpu.sh [--out DIR]`.

Whether a captured step does what an eager one does, the table with its best batch and a profile, and some minutes of
the paper's schedule. One JSON, written after every part; a part that is in it, made by the same revision, is not made
again. What the time does not suffice for is left *not measured*.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from utils.arguments import ArgumentParser, user_path
from utils.errors import ConfigError, DataError, run_script
from utils.parsing import parse_json
from utils.reporting import reporter

if TYPE_CHECKING:
    import torch

MINUTES = 8.0
SCHEDULE_MINUTES, SCHEDULE_PATCHES = 3.0, 65_536
"""Of the paper's schedule: more patches would take longer to make than to train on."""
STEPS = 12
"""Of the comparison: more than are done before a capture."""
LARGEST_DIFFERENCE = 1e-4
"""Between weights of captured and of eager float32 steps, as a share of the largest weight: rounding."""


class Run(NamedTuple):
    """What every part is given."""

    device: "torch.device"
    quick: bool
    seconds: float
    """Left."""
    scratch: Path


def captured_step(run: Run) -> dict[str, Any]:
    """Eager and captured steps of the same seed on the same patches: largest difference of weights."""
    import torch

    from benchmarks.ours import OurTraining, forget_compiled
    from benchmarks.reference_work import BATCH
    from benchmarks.setting import sample_batch
    from models.config import ModelConfig

    config = ModelConfig.of_size("S", depth=2 if run.quick else None)
    batch = sample_batch(4 if run.quick else BATCH).to(run.device).training()
    said: list[str] = []
    weights, seconds = [], []
    for compiled in (False, True):
        forget_compiled()
        training = OurTraining(config, batch, compiled, seed=0, amp=False)
        started = time.perf_counter()
        for _ in range(STEPS):
            training()
        weights.append(torch.cat([one.detach().flatten().cpu() for one in training.train.model.parameters()]))
        seconds.append(time.perf_counter() - started)
        said += training.said
    difference = float((weights[0] - weights[1]).abs().max() / weights[0].abs().max())
    return {
        "steps": STEPS,
        "largest_difference": difference,
        "alike": difference <= LARGEST_DIFFERENCE,
        "said": said,
        "seconds": {"eager": seconds[0], "compiled and captured": seconds[1]},
    }


def table(run: Run) -> dict[str, Any]:
    """The rows of training and embedding, with the best batch and a profile."""
    return _module(run, "benchmarks.run", "--only", "train,embed", "--profile", *(["--quick"] * run.quick))


def schedule(run: Run) -> dict[str, Any]:
    """The paper's schedule at batch 128 on a simulated pack."""
    from benchmarks.reference_work import BATCH

    minutes, patches = (0.1, 2 * BATCH) if run.quick else (SCHEDULE_MINUTES, SCHEDULE_PATCHES)
    tiny = ["--set", "model.size=XXS", "--set", "training.compile=off"] if run.quick else []
    return _module(run, "benchmarks.paper_schedule", "--minutes", str(minutes), "--patches", str(patches), *tiny)


PARTS: dict[str, Callable[[Run], dict[str, Any]]] = {
    "captured_step": captured_step,
    "table": table,
    "schedule": schedule,
}


def main(arguments: list[str] | None = None) -> int:
    """Make what is not there yet; returns the exit code, 1 where captured steps are not like eager ones."""
    options = _parser().parse_args(arguments)
    from benchmarks.machine import describe
    from benchmarks.report import NOT_MEASURED
    from utils.devices import select_device
    from utils.files import check_writable, write_json

    device = select_device(options.device)
    if device.type != "cuda" and options.device == "auto":
        reporter.info(f"no GPU here: {NOT_MEASURED}")
        return 0
    parts = list(PARTS) if options.only is None else options.only.split(",")
    if unknown := [name for name in parts if name not in PARTS]:
        raise ConfigError(f"--only {','.join(unknown)}: choose some of {','.join(PARTS)}")
    machine = describe(device)
    path = check_writable(options.out) / f"gpu_{time.strftime('%Y-%m-%d')}.json"
    record = _earlier(path, machine)
    until = time.monotonic() + 60 * options.minutes
    for name in parts:
        if name in record["parts"]:
            reporter.info(f"{name}: there already")
            continue
        seconds = until - time.monotonic()
        if seconds <= 0:
            break
        with tempfile.TemporaryDirectory() as scratch:
            try:
                record["parts"][name] = PARTS[name](Run(device, options.quick, seconds, Path(scratch)))
            except subprocess.TimeoutExpired:
                break
        reporter.info(f"{name}: {time.monotonic() - until + 60 * options.minutes:.0f} s after the start")
        write_json(path, record)
    missing = [name for name in parts if name not in record["parts"]]
    for name in missing:
        reporter.info(f"{name}: {NOT_MEASURED}, the {options.minutes:g} minutes are over; the same command goes on")
    reporter.info(f"written to {path}")
    step = record["parts"].get("captured_step")
    if step is not None and not step["alike"]:
        reporter.info(
            f"captured steps differ from eager ones by {step['largest_difference']:.2g} of the largest weight"
        )
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(prog="benchmarks/gpu.sh", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--device", default="auto", help="auto (default: a GPU), cuda:1, … or cpu, to see that it runs")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"in all (default {MINUTES:g})")
    parser.add_argument("--only", metavar="PART,…", help=f"some of {','.join(PARTS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument("--out", type=user_path, default=Path("benchmarks/results"), metavar="DIR")
    return parser


def _earlier(path: Path, machine: dict[str, Any]) -> dict[str, Any]:
    """What an earlier call of the same code on the same machine has made."""
    fresh = {"machine": machine, "parts": {}}
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
        same = all(found["machine"].get(name) == machine.get(name) for name in ("device", "processor", "git_revision"))
        return found if same and isinstance(found["parts"], dict) else fresh
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return fresh


def _module(run: Run, module: str, *arguments: str) -> dict[str, Any]:
    """Run a benchmark in a process of its own; returns the JSON that it writes.

    Raises:
        DataError: with its last words, when it fails.
        TimeoutExpired: when the time that is left does not suffice.
    """
    command = [sys.executable, "-m", module, "--device", str(run.device), "--out", str(run.scratch), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=run.seconds)
    written = sorted(run.scratch.glob("*.json"))
    if done.returncode != 0 or not written:
        words = (done.stderr or done.stdout).strip().rpartition("\n")[2]
        raise DataError(f"{module} ended with exit code {done.returncode}: {words}")
    return json.loads(written[0].read_text(encoding="utf-8"))


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
