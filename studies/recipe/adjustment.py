"""What turning ETM+'s reflectance into OLI's does to embeddings: `python -m studies.recipe.adjustment --out DIR`.

Simulated places that ETM+ and OLI see on the same day under the same sky are embedded as `embed_scene.py` does, ETM+ as
it is and turned into OLI's reflectance by either of the published lines (`transformation.cross_sensor`). The simulator
makes ETM+ of OLI by the regression the other way, so that no line is the exact way back; real sensors differ by surface
and air, which no line knows.

Figures: the mean cosine similarity of a cell's two vectors, standardised by OLI's mean and spread, and the share of
cells whose vector is nearest to OLI's of the same cell, among all cells of all places; 95 % intervals over places.
"""

import csv
import io
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from studies.recipe.sensors import shown
from utils.arguments import ArgumentParser, user_path
from utils.errors import run_script
from utils.markdown import markdown_table
from utils.reporting import reporter

WAYS = {"as it is": None, "turned by RMA": "rma", "turned by OLS": "ols"}
"""Titles to `adjust_to_oli`."""
FIGURES = {"cosine similarity": 3, "nearest to itself, %": 1}
"""To the digits shown."""
TABLE, TEXT = "adjustment.csv", "adjustment.md"
LEAST_PLACES = 3


def main(argv: list[str] | None = None) -> int:
    """Simulate, embed, compare, write and print; returns the exit code."""
    parser = ArgumentParser(prog="python -m studies.recipe.adjustment", description="ETM+ turned into OLI.")
    add = parser.add_argument
    add("--out", type=user_path, required=True, metavar="DIR", help="for scenes and results")
    add("--weights", nargs="+", default=["xxs", "xxs_bands"], metavar="NAME", help="what MOEMAE.from_pretrained takes")
    add("--places", type=int, default=12, metavar="N", help="seeds 0 to N - 1 (default: %(default)s)")
    add("--size", type=int, default=400, metavar="PIXELS", help="along a side of a scene (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if arguments.places < LEAST_PLACES:
        parser.error(f"argument --places: expected {LEAST_PLACES} or more, got {arguments.places}")
    from models import MOEMAE
    from utils.files import check_writable, write_text

    folder = check_writable(arguments.out)
    scenes = [simulated_pair(folder / f"place_{seed}", arguments.size, seed) for seed in range(arguments.places)]
    found = {name: compared(MOEMAE.from_pretrained(name), scenes) for name in arguments.weights}
    write_text(folder / TABLE, rows_as_csv(found))
    write_text(folder / TEXT, text := table(found))
    reporter.info(text)
    return 0


def simulated_pair(folder: Path, size: int, seed: int) -> tuple[Path, Path]:
    """One place on one day as OLI and as ETM+ see it."""
    from datasets.simulator.instruments import Observation
    from datasets.simulator.scene import SimulatedScene
    from datasets.simulator.scene_writer import write_scene
    from utils.sensors import ETM, OLI

    made = []
    for sensor in (OLI, ETM):
        made.append(folder / sensor.name)
        if not made[-1].exists():
            write_scene(made[-1], SimulatedScene(size, seed, observation=Observation(sensor)))
    return made[0], made[1]


def compared(model: Any, scenes: list[tuple[Path, Path]]) -> dict[str, dict[str, list[float]]]:
    """Way to figure to its value and interval."""
    from eval.statistics.bootstrap import SHARE, resample
    from eval.statistics.weighted_metrics import mean_of
    from studies.recipe.agreement import alike

    cells = {title: [model.embed_map(etm, adjust_to_oli=way) for _, etm in scenes] for title, way in WAYS.items()}
    oli = [model.embed_map(place) for place, _ in scenes]
    # Thin cloud hides nothing on ETM+, which has no cirrus band.
    seen = [np.isfinite(here[0]).values & np.isfinite(there[0]).values
            for here, there in zip(oli, cells["as it is"], strict=True)]  # fmt: skip
    place = np.repeat(np.arange(len(scenes)), [part.sum() for part in seen])

    def vectors(maps: list[Any]) -> np.ndarray:
        return np.concatenate([one.values[:, part].T for one, part in zip(maps, seen, strict=True)])

    found = {}
    for title, maps in cells.items():
        similar, nearest = alike(vectors(oli), vectors(maps))
        found[title] = {
            name: [scale * _number(value) for value in resample(mean_of(values), place, 0, limits=SHARE).interval()]
            for (name, scale), values in zip(
                (("cosine similarity", 1.0), ("nearest to itself, %", 100.0)), (similar, nearest), strict=True
            )
        }
    return found


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def table(found: dict[str, dict[str, dict[str, list[float]]]]) -> str:
    """The figures in Markdown."""
    weights = list(found)
    rows = [
        [f"{title}: {figure}", *(shown(found[name][title][figure], digits) for name in weights)]
        for figure, digits in FIGURES.items()
        for title in WAYS
    ]
    return markdown_table(["ETM+, beside OLI on the same day", *weights], rows) + "\n"


def rows_as_csv(found: dict[str, dict[str, dict[str, list[float]]]]) -> str:
    """One figure a line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["weights", "etm", "figure", "value", "low", "high"])
    for name, ways in found.items():
        for title, figures in ways.items():
            for figure, value in figures.items():
                writer.writerow([name, title, figure, *(f"{number:.4f}" for number in value)])
    return text.getvalue()


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
