"""A few minutes of the paper's schedule on a simulated pack of its size: `python -m benchmarks.paper_schedule`.

Makes a pack of 269,695 simulated patches (6 GB), runs `pretrain_mae.py` on it with the published recipe, size S,
asks it to stop after some minutes, and keeps the loss curve, the steps/s it reached, and how long the 500 epochs would
take at that speed: a projection, and called one. On a CPU give a smaller pack: `--patches 512 --minutes 1`.
"""

import argparse
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from utils.data_config import BigEarthNetInfo
from utils.errors import ConfigError, UserError, run_script
from utils.reporting import reporter

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parent.parent
PATCHES = BigEarthNetInfo.SPLIT_SIZES["train"]
EPOCHS, BATCH = 500, 128
MINUTES = 5.0
SAVE_EVERY = 10
"""Epochs between two checkpoints: at a few seconds an epoch there is no need for more."""

LOOK_EVERY = 0.05
"""Seconds between two looks at the run's log."""

GRACE = 600.0
"""Seconds that a run may take to begin, and to stop once it is asked to."""

METRICS = "training_metrics_S.csv"


class Progress(NamedTuple):
    """What was seen of a run from outside."""

    began: float
    """Seconds from starting the script until the run began: imports, loading the pack."""
    finished: list[float]
    """Seconds from then until each epoch was logged."""
    stopped: float
    """Seconds from then until the run had ended."""


def main(arguments: list[str] | None = None) -> int:
    """Make the pack, run, report; returns the exit code."""
    options = _parser().parse_args(arguments)
    if options.minutes <= 0 or options.patches < options.batch or options.batch < 1:
        raise ConfigError("--minutes and --batch must be positive, and --patches at least --batch")
    from benchmarks.large_pack import make_large_pack
    from benchmarks.machine import describe
    from benchmarks.report import write_results
    from datasets.pack.format import is_pack, open_header
    from utils.analysis_utils import plot_loss_curve, save_figure
    from utils.devices import select_device
    from utils.files import check_writable

    device = select_device(options.device)
    out = check_writable(options.out)
    with tempfile.TemporaryDirectory() as scratch:
        pack = options.pack or Path(scratch) / "pack"
        if not is_pack(pack):
            started = time.perf_counter()
            make_large_pack(pack, options.patches, seed=0)
            reporter.info(f"{pack}: {options.patches:,} simulated patches in {time.perf_counter() - started:.0f} s")
        patches = open_header(pack).count
        folder = Path(scratch) / "run"
        command = _command(Path(scratch) / "run.yaml", pack, folder, device, options)
        progress = run_for(command, folder, 60 * options.minutes)
        record = summary(progress, patches, options.batch, device)
        stem = out / f"paper_{device.type}_batch{options.batch}_{time.strftime('%Y-%m-%d')}"
        if (folder / METRICS).exists():
            shutil.copyfile(folder / METRICS, stem.with_suffix(".csv"))
            save_figure(plot_loss_curve(folder / METRICS, "simulated patches"), stem.with_suffix(".png"))
    text = describe_run(record)
    reporter.info(text)
    write_results(stem, text, {**record, "machine": describe(device), "set": options.overrides})
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper_schedule", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"how long to train (default {MINUTES:g})")
    parser.add_argument("--patches", type=int, default=PATCHES, metavar="N", help=f"of the pack (default {PATCHES:,})")
    parser.add_argument("--batch", type=int, default=BATCH, metavar="B", help=f"patches a step (default {BATCH})")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1 …")
    parser.add_argument("--pack", type=Path, metavar="DIR", help="where the pack is, or is to be made and kept")
    parser.add_argument("--out", default="benchmarks/results", metavar="DIR", help="where the results go")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
                        help="further settings for pretrain_mae.py")  # fmt: skip
    return parser


def _command(config: Path, pack: Path, folder: Path, device: "torch.device", options: argparse.Namespace) -> list[str]:
    """What a user would type; the recipe is the published one."""
    import yaml

    from benchmarks.large_pack import SPLIT

    training = {
        "dataset_path": str(pack.resolve()),
        "dataset_csv": SPLIT,
        "epochs": EPOCHS,
        "batch_size": options.batch,
        "weight_path": str(folder),
        "save_every_n_epochs": SAVE_EVERY,
    }
    sections = {"published_behaviour": True, "model": {"size": "S", "device": str(device)}, "training": training}
    config.write_text(yaml.safe_dump(sections), encoding="utf-8")
    overrides = [word for text in options.overrides for word in ("--set", text)]
    return [sys.executable, str(ROOT / "pretrain_mae.py"), "--config_yaml", str(config), *overrides]


def run_for(command: list[str], folder: Path, seconds: float) -> Progress:
    """Start a run, note when its epochs end, and ask it to stop after some seconds of training.

    Args:
        command: starts it.
        folder: where it writes; its config appears there when it begins.
        seconds: to train for.

    Raises:
        UserError: when it fails, or takes longer than `GRACE` to begin or to stop.
    """
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=sys.stderr)
    try:
        while not (folder / "config_S.yaml").exists():
            _require_running(process, command)
            if time.perf_counter() - started > GRACE:
                raise UserError(f"the run did not begin within {GRACE:.0f} s")
            time.sleep(LOOK_EVERY)
        began = time.perf_counter()
        finished: list[float] = []
        while (passed := time.perf_counter() - began) < seconds and process.poll() is None:
            finished += [passed] * (_epochs(folder) - len(finished))
            time.sleep(LOOK_EVERY)
        process.send_signal(signal.SIGTERM)
        if process.wait(GRACE) != 0:
            _require_running(process, command)
        return Progress(began - started, finished, time.perf_counter() - began)
    except subprocess.TimeoutExpired:
        raise UserError(f"the run did not stop within {GRACE:.0f} s") from None
    finally:
        process.kill()


def _require_running(process: subprocess.Popen, command: list[str]) -> None:
    if process.poll() is not None:
        raise UserError(f"the run ended with exit code {process.returncode}; see above (config: {command[3]})")


def _epochs(folder: Path) -> int:
    """Lines of the metrics, without the header."""
    try:
        return max(0, (folder / METRICS).read_bytes().count(b"\n") - 1)
    except FileNotFoundError:
        return 0


def summary(progress: Progress, patches: int, batch: int, device: "torch.device") -> dict[str, Any]:
    """Figures of a run; what is projected has it in its name, and is None before two epochs are finished."""
    from benchmarks.goals import goal

    steps = -(-patches // batch)
    each = [later - earlier for earlier, later in zip(progress.finished, progress.finished[1:], strict=False)]
    epoch = statistics.median(each) if each else None
    first = progress.began + progress.finished[0] if progress.finished else None
    projected = None if epoch is None or first is None else first + (EPOCHS - 1) * epoch
    target = goal("paper", device.type)
    most = None if target is None else target.most
    return {
        "patches": patches,
        "batch": batch,
        "steps_per_epoch": steps,
        "seconds_of_training": progress.stopped,
        "epochs_finished": len(progress.finished),
        "seconds_to_the_end_of_the_first_epoch": first,
        "seconds_an_epoch": epoch,
        "steps_per_second": None if epoch is None else steps / epoch,
        "patches_per_second": None if epoch is None else patches / epoch,
        "projected_seconds_of_500_epochs": projected,
        "goal": None if target is None else target.text,
        "projection_meets_goal": None if most is None or projected is None else projected <= most,
        "epoch_ends": progress.finished,
    }


def describe_run(record: dict[str, Any]) -> str:
    """The figures in a few lines."""
    lines = [
        f"The paper's schedule on {record['patches']:,} simulated patches, size S, batch {record['batch']}: "
        f"{record['seconds_of_training']:.0f} s of training, {record['epochs_finished']} of {EPOCHS} epochs finished."
    ]
    if record["seconds_an_epoch"] is None:
        lines.append("Fewer than two epochs: no rate and no projection. Train longer, or on fewer patches.")
        return "\n".join(lines)
    lines.append(
        f"Measured: {record['seconds_an_epoch']:.2f} s an epoch (median, with logging and checkpoints), "
        f"{record['steps_per_second']:,.1f} steps/s, {record['patches_per_second']:,.0f} patches/s; the first epoch "
        f"ended {record['seconds_to_the_end_of_the_first_epoch']:.0f} s after the start."
    )
    hours = record["projected_seconds_of_500_epochs"] / 3600
    lines.append(f"PROJECTED, not measured: {EPOCHS} epochs in {hours:,.2f} h ({60 * hours:,.1f} min).")
    if record["goal"] is not None:
        lines.append(
            f"Goal: {record['goal']}; the projection {'meets' if record['projection_meets_goal'] else 'misses'} it."
        )
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
