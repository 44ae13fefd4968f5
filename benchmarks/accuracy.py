"""Whether learning is the same with all fast paths on and with all off: `python -m benchmarks.accuracy [--seeds 5]`.

Pretrains on the sample once per seed and way, with `configs/sample_pretrain.yaml`, and compares the losses. The ways
differ by rounding only, which grows from step to step; the seeds say how much is little. (192 patches are soon known by
heart, so the lowest validation loss, that of the weights which are kept, says more than the last one.)
"""

import argparse
import csv
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple
from unittest.mock import patch

from pretrain_mae import main as pretrain
from utils.errors import UserError, run_script
from utils.reporting import reporter

CONFIG = "configs/sample_pretrain.yaml"
METRICS = "training_metrics_XXS.csv"


class RunLosses(NamedTuple):
    """Of one run."""

    lowest_validation: float
    last_validation: float
    last_training: float


def main(arguments: list[str] | None = None) -> int:
    """Train, print the losses of every run and their spread, and write them; returns the exit code."""
    parser = argparse.ArgumentParser(description="Losses with all fast paths on and off.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", default="benchmarks/results/accuracy.json", metavar="FILE")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    import torch

    from benchmarks.machine import describe
    from benchmarks.rows_load import make_pack
    from benchmarks.setting import SAMPLE
    from utils.files import write_json

    losses: dict[str, list[RunLosses]] = {"off": [], "on": [], "on, bfloat16": []}
    with tempfile.TemporaryDirectory() as folder:
        pack = make_pack(SAMPLE, Path(folder) / "pack", splits=("bigearthnet-train.csv", "bigearthnet-val.csv"))
        for seed in range(options.seeds):
            for way, found in losses.items():
                target = Path(folder) / f"{way}, seed {seed}"
                found.append(losses_of_run(target, seed, way, pack, options.overrides))
                reporter.info(f"seed {seed}, fast paths {way}: {found[-1]}")
    for way, found in losses.items():
        for name, values in zip(RunLosses._fields, zip(*found, strict=True), strict=True):
            spread = stdev(values) if len(values) > 1 else 0.0
            reporter.info(f"fast paths {way}: {name} {mean(values):.3f}, standard deviation over seeds {spread:.3f}")
    plain_values = {way: [run._asdict() for run in found] for way, found in losses.items()}
    record = {"config": CONFIG, "overrides": options.overrides, "losses": plain_values, **describe(torch.device("cpu"))}
    reporter.info(f"written: {write_json(options.out, record)}")
    return 0


def losses_of_run(folder: Path, seed: int, way: str, pack: Path, overrides: list[str]) -> RunLosses:
    """The losses of one run.

    Args:
        folder: of its files.
        seed: of all randomness.
        way: "off", "on", or "on, bfloat16".
        pack: the packed sample.
        overrides: of the config.
    """
    from benchmarks.setting import SAMPLE

    on = way != "off"
    asked = {
        "training.weight_path": folder,
        "training.seed": seed,
        "training.dataset_path": pack if on else SAMPLE,
        "training.compile": "on" if on else "off",
        "training.amp": "bf16" if way.endswith("bfloat16") else "false",
        "data.resident": "true" if on else "false",
    }
    words = [text for key, value in asked.items() for text in ("--set", f"{key}={value}")]
    words += [text for override in overrides for text in ("--set", override)]
    folder.mkdir()
    with (folder / "log").open("w") as log, redirect_stdout(log), aligned() if on else plain():
        code = pretrain(["--config_yaml", CONFIG, *words])
    if code:
        raise UserError(f"{folder.name}: pretraining ended with code {code}")
    with (folder / METRICS).open(newline="") as file:
        rows = list(csv.DictReader(file))
    validation = [float(row["val_loss"]) for row in rows]
    return RunLosses(min(validation), validation[-1], float(rows[-1]["train_loss"]))


@contextmanager
def plain() -> Iterator[None]:
    """Within it, products are PyTorch's own, attention is its fused kernel, and nothing is padded."""
    from models.kernels import backend

    with patch.object(backend, "CPU", backend.PLAIN), patch.object(backend, "CPU_INFERENCE", backend.PLAIN):
        yield


@contextmanager
def aligned() -> Iterator[None]:
    """Within it, widths are padded as for a GPU."""
    from models.kernels import backend

    with ExitStack() as stack:
        for name in ("CPU", "CPU_INFERENCE", "COMPILED_CPU", "COMPILED_CPU_INFERENCE"):
            wider = getattr(backend, name)
            multiples = {"head_multiple": backend.CUDA.head_multiple, "expert_multiple": max(wider.expert_multiple, 8)}
            stack.enter_context(patch.object(backend, name, wider._replace(**multiples)))
        yield


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
