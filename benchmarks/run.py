"""Time this project against the reference and the machine: `python -m benchmarks.run [--device cpu|cuda|auto]`.

Prints one table and writes it, with every number behind it, to `benchmarks/results/<device>_<date>.{md,json}`.
What is compared takes turns within this one run.
"""

import argparse
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from utils.arguments import user_path
from utils.entry_points import load_named
from utils.errors import ConfigError, run_script
from utils.reporting import progress, reporter

if TYPE_CHECKING:
    import torch

    from benchmarks.machine import Limits
    from benchmarks.report import Row
    from benchmarks.setting import Setting

WORKS = {
    "train": "benchmarks.rows_train:train_rows",
    "embed": "benchmarks.rows_embed:embed_rows",
    "load": "benchmarks.rows_load:load_rows",
    "pack": "benchmarks.rows_load:pack_rows",
    "probe": "benchmarks.rows_probe:probe_rows",
    "memory": "benchmarks.rows_memory:memory_rows",
}
"""Functions from a `Setting` to rows of the table."""

ROUNDS, QUICK_ROUNDS = 7, 2
RESULTS = "benchmarks/results"
BUSY = 0.1
"""With a larger share of the time spent waiting for a processor, the run says that the machine was busy."""


def main(arguments: list[str] | None = None) -> int:
    """Measure what was asked for, print the table, keep it; returns the exit code."""
    options = _parser().parse_args(arguments)
    works = _works(options.only)
    from benchmarks.machine import describe, measure_limits
    from benchmarks.profile import profile_table
    from benchmarks.published import check_published
    from benchmarks.report import results_table, write_results
    from benchmarks.rows_train import profile_steps
    from benchmarks.setting import Setting
    from benchmarks.timing import Waiting
    from utils.files import check_writable

    device = _device(options.device)
    _set_threads(options.threads, device)
    if options.rounds is not None and options.rounds < 1:
        raise ConfigError(f"--rounds {options.rounds}: give at least 1")
    published = None if options.published is None else check_published(options.published)
    if published is not None and device.type != "cpu":
        raise ConfigError("--published: is timed on a CPU; use --device cpu")
    folder = check_writable(options.out)
    waiting = Waiting()
    setting = Setting(
        device=device,
        limits=measure_limits(device, options.quick),
        rounds=options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS),
        quick=options.quick,
        published=published,
    )
    rows: list[Row] = []
    for name in works:
        progress(f"measuring: {name}")
        measured = load_named(WORKS[name])(setting)
        progress("\n".join(f"  {row.sentence}" for row in measured))
        rows += measured
    profiles = profile_steps(setting) if options.profile else {}
    limits = setting.limits.best(measure_limits(device, options.quick))
    busy = waiting.share()
    machine = describe(device)
    text = "\n\n".join(filter(None, [
        _heading(limits, machine, busy, options.quick),
        results_table(rows, limits, on_gpu=setting.kind == "cuda") if rows else "",
        "One training step, by kind of work:\n\n" + profile_table(profiles) if profiles else "",
    ]))  # fmt: skip
    record = {
        "machine": machine,
        "limits": _limits_record(limits),
        "waited_for_a_processor": busy,
        "quick": options.quick,
        "rounds": setting.rounds,
        "rows": [row.as_dict(limits) for row in rows],
        "profiles": {name: [part._asdict() for part in parts] for name, parts in profiles.items()},
    }
    reporter.info(text)
    written = write_results(folder / _stem(setting, works, options.only is not None), text, record)
    progress("\nwritten to " + " and ".join(map(str, written)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 … or auto (default): cuda if there is one")
    parser.add_argument("--only", metavar="WORK,…", help=f"some of {','.join(WORKS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of torch (default: 2 on a CPU)")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"turns of each side (default {ROUNDS})")
    parser.add_argument("--profile", action="store_true", help="a profile of one training step, too")
    parser.add_argument("--published", type=user_path, metavar="DIR", help="folder of the published code, "
                        "the reference in place of the stand-in")  # fmt: skip
    parser.add_argument("--out", default=RESULTS, metavar="DIR", help=f"where the results go (default {RESULTS})")
    return parser


def _works(only: str | None) -> list[str]:
    names = list(WORKS) if only is None else [name.strip() for name in only.split(",") if name.strip()]
    if unknown := [name for name in names if name not in WORKS]:
        raise ConfigError(f"--only {','.join(unknown)}: choose some of {','.join(WORKS)}")
    if not names:
        raise ConfigError(f"--only names nothing: choose some of {','.join(WORKS)}")
    return names


def _device(name: str) -> "torch.device":
    """Unlike training, a benchmark never falls back to another device."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"--device {name}: use cpu, cuda, cuda:N or auto") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"--device {name}: use cpu, cuda, cuda:N or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"--device {name}: this machine has {torch.cuda.device_count()} such GPUs; use --device cpu")
    return device


def _set_threads(asked: int | None, device: "torch.device") -> None:
    """On a CPU two by default: the goals, and the published code's own timings, are for two cores."""
    import torch

    from benchmarks.check import PUBLISHED_CORES

    cores = os.cpu_count() or 1
    if asked is None and device.type == "cpu":
        asked = min(PUBLISHED_CORES, cores)
    if asked is not None and not 1 <= asked <= cores:
        raise ConfigError(f"--threads {asked}: give 1 to {cores}, the cores of this machine")
    if asked is not None:
        torch.set_num_threads(asked)


def _stem(setting: "Setting", works: list[str], chosen: bool) -> str:
    """`<device>_<date>`, with what is particular about a partial or a quick run."""
    parts = [setting.kind, time.strftime("%Y-%m-%d"), *(works if chosen else []), *(["quick"] * setting.quick)]
    return "_".join(parts)


def _heading(limits: "Limits", machine: dict[str, Any], busy: float | None, quick: bool) -> str:
    """What was measured on, in a few lines."""
    packages = machine["packages"]
    lines = [
        f"{machine['device']} · {machine['processor']}, {machine['cores']} cores, {machine['threads']} threads · "
        f"PyTorch {packages['torch']}, Python {machine['python']} · {time.strftime('%Y-%m-%d')}",
        f"Limits measured in this run: float32 {limits.float32 / 1e9:,.0f} GFLOP/s "
        f"({limits.linear / 1e9:,.0f} as `nn.Linear` computes it), bfloat16 {limits.bfloat16 / 1e9:,.0f} GFLOP/s, "
        f"memory {limits.bandwidth / 1e9:,.0f} GB/s.",
    ]
    if quick:
        lines.append("**Quick run: sizes so small that the figures mean nothing.**")
    if busy is not None and busy > BUSY:
        lines.append(
            f"**Busy machine: for {busy:.0%} of the run something waited for a processor. Of a benchmark on all cores "
            "some of that is its own; with other work going on, the times are too long and the ratios uncertain.**"
        )
    return "\n\n".join(lines)


def _limits_record(limits: "Limits") -> dict[str, Any]:
    library, shape = limits.float32_by
    return {**limits._asdict(), "float32_by": {"library": library, "shape": list(shape)}}


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
