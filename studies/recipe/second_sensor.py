"""Whether the Landsat score holds with a second sensor beside it: `python -m studies.recipe.second_sensor --out DIR`.

The same simulated places and dates as OLI and as Sentinel-2's MSI see them. Every set of weights embeds both, with
metadata and without; a linear probe is fitted on each, and the one of Landsat's vectors scores Sentinel-2's as well.
Weights without a second sensor get the untrained one, which begins with what the first has learned of the bands that
both have. Beside them features that need no training, and how alike a place is to itself seen by both.

    python -m studies.recipe.second_sensor --out outputs/second_sensor --weights xxs LANDSAT_ONLY.pth BOTH.pth

Differences are to every earlier one of the weights, on the same resampled patches.
"""

import csv
import io
import sys
from collections.abc import Mapping
from typing import Any

from studies.recipe.sensors import shown
from utils.arguments import ArgumentParser, user_path
from utils.errors import run_script
from utils.markdown import markdown_table
from utils.reporting import reporter

FORMAT = 1
RESULT, TABLE, TEXT = "second_sensor.json", "second_sensor.csv", "second_sensor.md"
COLUMNS = {
    "oli": "Landsat",
    "msi": "Sentinel-2",
    "transfer": "Sentinel-2, probe of Landsat's vectors",
}
"""Scores of the table."""
ALIKE = {"cosine": "cosine similarity", "nearest": "nearest to itself, %"}


def main(argv: list[str] | None = None) -> int:
    """Measure what is not measured yet, write and print; returns the exit code."""
    parser = ArgumentParser(
        prog="python -m studies.recipe.second_sensor", description="What a second sensor costs the first."
    )
    add = parser.add_argument
    add("--out", type=user_path, required=True, metavar="DIR", help="for patches, finished scores and results")
    add("--weights", nargs="+", default=["xxs"], metavar="NAME",
        help="what MOEMAE.from_pretrained takes (default: %(default)s)")  # fmt: skip
    add("--titles", nargs="+", metavar="TEXT", help="of the weights in the tables (default: their names)")
    add("--patches", type=int, default=2000, metavar="N", help="to fit, and to score (default: %(default)s each)")
    add("--seed", type=int, default=777, help="of the simulated patches (default: %(default)s)")
    arguments = parser.parse_args(argv)
    from studies.engine.stages import StageCache
    from studies.recipe.second_sensor_scores import measured
    from utils.errors import ConfigError
    from utils.files import check_writable, write_json, write_text
    from utils.locks import held_alone

    titles = arguments.titles or arguments.weights
    if len(titles) != len(set(titles)) or len(titles) != len(arguments.weights):
        raise ConfigError("--titles: give one of its own for each of --weights")
    folder = check_writable(arguments.out)
    with held_alone(folder, "at work in it; wait for it, or choose --out"):
        cases = dict(zip(titles, arguments.weights, strict=True))
        results = {"format": FORMAT, "patches": arguments.patches, "seed": arguments.seed, "weights": titles}
        results |= measured(StageCache(folder), cases, arguments.patches, arguments.seed)
        write_json(folder / RESULT, results)
        write_text(folder / TABLE, rows_as_csv(results))
        write_text(folder / TEXT, text := tables(results))
    reporter.info(text)
    return 0


def tables(results: Mapping[str, Any]) -> str:
    """The results in Markdown."""
    lines = []
    for kind, scores in results["micro_map"].items():
        rows = [
            [name, *(shown(found[key]["score"]) if key in found else "" for key in COLUMNS)]
            for name, found in scores.items()
        ]
        rows += [
            [f"{name} minus {other}", *(shown(found[key]["minus"][other]) for key in COLUMNS)]
            for name, found in scores.items()
            for other in found["oli"]["minus"]
        ]
        lines += [f"Micro mAP, %, metadata {kind}:", "", markdown_table(["", *COLUMNS.values()], rows), ""]
    header = ["", *(f"{title}, metadata {kind}" for kind in ("given", "withheld") for title in ALIKE.values())]
    rows = [
        [name, *(shown(found[kind][key], 3 if key == "cosine" else 1) for kind in found for key in ALIKE)]
        for name, found in results["agreement"].items()
    ]
    return "\n".join([*lines, "A place seen by both:", "", markdown_table(header, rows), ""])


def rows_as_csv(results: Mapping[str, Any]) -> str:
    """One figure a line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["what", "setting", "row", "value", "low", "high"])
    for kind, scores in results["micro_map"].items():
        for name, found in scores.items():
            for key, one in found.items():
                setting = f"{key}, metadata {kind}"
                writer.writerow(["micro_map", setting, name, *one["score"]])
                for other, value in one["minus"].items():
                    writer.writerow(["micro_map_difference", setting, f"{name} minus {other}", *value])
    for name, kinds in results["agreement"].items():
        for kind, found in kinds.items():
            for key, value in found.items():
                writer.writerow([key, f"metadata {kind}", name, *value])
    return text.getvalue()


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
