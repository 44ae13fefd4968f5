"""What fewer bands cost, with weights trained for it and without: `python -m studies.recipe.sensors --out DIR`.

Every set of weights embeds the same simulated patches with the bands of OLI, of TM and ETM+ (no coastal band), of RGB
and near infrared, and of RGB. A linear probe is fitted on each and scored with the same bands; the one that was fitted
with all seven is also used with fewer, as somebody's finished probe is. Beside it, how alike the embeddings of one
place are that ETM+ and OLI saw on the same day (`studies.recipe.agreement`).

    python -m studies.recipe.sensors --out outputs/sensors --weights xxs xxs:rescale xxs_bands

`NAME:rescale` is what a name stands for with another `model.missing_bands`. Differences are to the first.
"""

import csv
import io
import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from utils.arguments import ArgumentParser, user_path
from utils.errors import run_script
from utils.markdown import markdown_table
from utils.reporting import reporter

if TYPE_CHECKING:
    from eval.statistics.bootstrap import Interval

SHIPPED = ("xxs", "xxs:rescale", "xxs_bands")
PERCENT = 100.0
FORMAT = 1
RESULT, TABLE, TEXT = "sensors.json", "sensors.csv", "sensors.md"
TITLES = {"seven": "7, OLI", "six": "6, TM and ETM+", "rgb_nir": "RGB + NIR", "rgb": "RGB"}
"""Of the sets of bands, in the order of the tables."""
COSINE = "cosine similarity"
PROBES = {"own": "fitted with the same bands", "seven": "fitted with 7 bands"}


def main(argv: list[str] | None = None) -> int:
    """Measure what is not measured yet, write and print; returns the exit code."""
    parser = ArgumentParser(prog="python -m studies.recipe.sensors", description="What fewer bands cost.")
    add = parser.add_argument
    add("--out", type=user_path, required=True, metavar="DIR", help="for patches, finished scores and results")
    add("--weights", nargs="+", default=list(SHIPPED), metavar="NAME", help="what MOEMAE.from_pretrained takes, with "
        ":mean or :rescale behind it or without (default: %(default)s)")  # fmt: skip
    add("--patches", type=int, default=2000, metavar="N", help="to fit, and to score (default: %(default)s each)")
    add("--seed", type=int, default=777, help="of the simulated patches (default: %(default)s)")
    arguments = parser.parse_args(argv)
    from studies.engine.stages import StageCache
    from studies.recipe.agreement import agreements
    from studies.recipe.band_scores import scores_of
    from utils.files import check_writable, write_json, write_text
    from utils.locks import held_alone

    folder = check_writable(arguments.out)
    with held_alone(folder, "at work in it; wait for it, or choose --out"):
        cache = StageCache(folder)
        asked = (arguments.weights, arguments.patches, arguments.seed)
        scores, agreement = scores_of(cache, *asked), agreements(cache, *asked)
        results = {"format": FORMAT, "patches": arguments.patches, "seed": arguments.seed, "weights": arguments.weights}
        results |= {"micro_map": scores, "agreement": agreement}
        write_json(folder / RESULT, results)
        write_text(folder / TABLE, rows_as_csv(results))
        write_text(folder / TEXT, text := tables(results))
    reporter.info(text)
    return 0


def plain(found: "Interval", scale: float = PERCENT) -> list[float | None]:
    """Value, lower and upper end, as JSON holds them."""
    return [None if value is None else round(scale * value, 3) for value in found]


def tables(results: Mapping[str, Any]) -> str:
    """The results in Markdown."""
    weights, first = results["weights"], results["weights"][0]
    lines = []
    for probe, title in PROBES.items():
        header = ["bands", *weights, *(f"{name} minus {first}" for name in weights[1:])]
        lines += [f"Micro mAP, %, probe {title}:", "", markdown_table(header, _score_rows(results, probe)), ""]
    header = ["", *weights]
    for metadata, pairs in results["agreement"].items():
        lines += [f"Embeddings of one place, metadata {metadata}:", ""]
        rows = [
            [key, *(shown(found[name], 3 if COSINE in key else 1) for name in weights)] for key, found in pairs.items()
        ]
        lines += [markdown_table(header, rows), ""]
    return "\n".join(lines)


def _score_rows(results: Mapping[str, Any], probe: str) -> list[list[str]]:
    rows = []
    for bands, title in TITLES.items():
        found = [results["micro_map"][name][probe][bands] for name in results["weights"]]
        rows.append([title, *(shown(one["score"]) for one in found), *(shown(one["minus_first"]) for one in found[1:])])
    return rows


def shown(value: Sequence[float | None], digits: int = 1, scale: float = 1.0) -> str:
    """A figure with its interval, times `scale`."""
    figure, low, high = (math.nan if part is None else scale * part for part in value)
    return f"{figure:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def rows_as_csv(results: Mapping[str, Any]) -> str:
    """One figure a line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["what", "setting", "row", "weights", "value", "low", "high"])
    for name, probes in results["micro_map"].items():
        for probe, sets in probes.items():
            for bands, found in sets.items():
                for key, value in found.items():
                    writer.writerow([f"micro_map_{key}", f"probe {PROBES[probe]}", bands, name, *value])
    for metadata, pairs in results["agreement"].items():
        for key, found in pairs.items():
            for name, value in found.items():
                writer.writerow(["agreement", f"metadata {metadata}", key, name, *value])
    return text.getvalue()


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
