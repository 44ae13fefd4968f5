"""What one series costs beside as many single runs: whole processes, one after the other, in turns."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from shutil import rmtree
from statistics import median
from typing import Any, NamedTuple

from datasets.simulated import main as simulate
from utils.files import write_json, write_text
from utils.markdown import markdown_table
from utils.project_files import PROJECT
from utils.provenance import provenance
from utils.reporting import reporter

DATES, SIZE = 12, 160
STRIDE = "20"


class Cost(NamedTuple):
    """Of some processes together."""

    wall: float
    """Seconds that passed."""
    processor: float
    """Seconds of the processor: what others do on the machine hardly counts."""
    made: float
    """Seconds of the runs themselves, by their records: without the start of the processes."""


def compare_speed(work: Path, out: Path, checkpoint: str, rounds: int) -> None:
    """Time both in turns, write `speed.json` and `speed.md`."""
    place = work / "speed" / "place"
    if not (place / "series.json").exists():
        simulate(["--kind", "scene", "--size", str(SIZE), "--seed", "0", "--out", str(place), "--dates", str(DATES)])
    scenes = sorted(path for path in place.iterdir() if path.is_dir())
    found: dict[str, list[Cost]] = {"series": [], "single runs": []}
    for number in range(rounds):
        for name in found if number % 2 == 0 else reversed(found):
            found[name].append(_run(name, scenes, work / "speed" / "out", checkpoint))
            reporter.info(f"round {number + 1} of {rounds}, {name}: {found[name][-1]}")
    ratios = {
        field: [getattr(one, field) / getattr(other, field) for one, other in zip(*found.values(), strict=True)]
        for field in Cost._fields
    }
    record: dict[str, Any] = {"dates": DATES, "size": SIZE, "stride": int(STRIDE), "rounds": rounds}
    record |= {name: [cost._asdict() for cost in costs] for name, costs in found.items()}
    write_json(out / "speed.json", {**record, "ratios": ratios, "made_with": made_with()})
    titles = {
        "wall": "seconds, whole processes",
        "processor": "seconds of the processor, whole processes",
        "made": "seconds of the runs, without the start of processes",
    }
    rows = [
        [
            titles[field],
            *(f"{median(getattr(cost, field) for cost in costs):.1f}" for costs in found.values()),
            f"{median(ratios[field]):.2f} ({min(ratios[field]):.2f} to {max(ratios[field]):.2f})",
        ]
        for field in Cost._fields
    ]
    title = (
        f"{DATES} dates of {SIZE} x {SIZE} pixels, stride {STRIDE}, one thread; medians of {rounds} rounds in turns; "
        "ratio with the least and the greatest of a round."
    )
    table = markdown_table(["", "one series", f"{DATES} single runs", "ratio"], rows)
    write_text(out / "speed.md", f"{title}\n\n{table}\n")


def made_with() -> dict[str, Any]:
    """Versions, as far as they may be told."""
    told = provenance()
    return {name: told[name] for name in ("python", "packages", "threads")}


def _run(name: str, scenes: Sequence[Path], out: Path, checkpoint: str) -> Cost:
    rmtree(out, ignore_errors=True)
    common = ["--checkpoint", checkpoint, "--stride", STRIDE]
    if name == "series":
        runs = [(["embed_series.py", "--scenes", *map(str, scenes), "--out", str(out)], out / "series.json")]
    else:
        runs = [
            (["embed_scene.py", "--scene", str(scene), "--out", str(out / scene.name)], out / scene.name / "scene.json")
            for scene in scenes
        ]
    started, used = time.perf_counter(), _processor()
    for words, _ in runs:
        command = [sys.executable, str(PROJECT / words[0]), *words[1:], *common]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    wall, processor = time.perf_counter() - started, _processor() - used
    made = sum(json.loads(record.read_text(encoding="utf-8"))["seconds"] for _, record in runs)
    return Cost(wall, processor, made)


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
