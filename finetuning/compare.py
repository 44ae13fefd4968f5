"""Fine-tuned maps beside what single pixels tell: mean IoU with intervals, and paired differences.

    python -m finetuning.compare --run outputs/finetuned_map [--run DIR …] --out outputs/compared

Reads the ground of the first run again, fits the baselines of `finetuning.baselines` on its training pixels, and
compares all of them on the test squares with the runs, which must be of the same ground. Writes `comparison.json` and
`comparison.csv`.
"""

import argparse
import csv
import io
import sys
from pathlib import Path
from typing import Any

from utils.arguments import ArgumentParser, user_path
from utils.errors import DataError, run_script


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = ArgumentParser(prog="python -m finetuning.compare", description="Maps beside per-pixel baselines.")
    parser.add_argument("--run", dest="runs", action="append", required=True, type=user_path, metavar="NAME=DIR|DIR",
                        help="folder of a finished run of task segmentation; may be repeated")  # fmt: skip
    parser.add_argument("--out", required=True, type=user_path, metavar="DIR", help="folder for the table")
    parser.add_argument("--only-runs", action="store_true", help="without the baselines, which take minutes")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Compare; returns the exit code."""
    arguments = parse_arguments(argv)
    from utils.files import make_folder, write_json, write_text
    from utils.markdown import markdown_table
    from utils.reporting import reporter

    record = compare([_named(run) for run in arguments.runs], arguments.out, not arguments.only_runs)
    folder = make_folder(arguments.out)
    write_json(folder / "comparison.json", record)
    rows = list(_rows(record))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(folder / "comparison.csv", text.getvalue())
    reporter.info(markdown_table(rows[0], rows[1:]))
    return 0


def compare(runs: list[tuple[str, Path]], scratch: Path, baselines: bool = True) -> dict[str, Any]:
    """The whole table, JSON-ready.

    Args:
        runs: name and folder of each; the first is what differences are of.
        scratch: folder for what is not kept.
        baselines: whether they are rows.

    Raises:
        DataError: for a run that is not finished, or of other ground than the first.
    """
    import torch

    from configs.finetuning import read_finetuning_config
    from finetuning.baselines import fitted_baselines
    from finetuning.folder import FinetuningFolder, load_finetuned
    from finetuning.ground import read_ground
    from finetuning.scores import resampled_miou, scored
    from models.checkpoint import read_checkpoint
    from transformation.transformer import ZScoreNormalize
    from utils.data_config import DATASETS
    from utils.provenance import provenance

    first = FinetuningFolder(runs[0][1])
    config = read_finetuning_config(str(first.config), [])
    confusions = {name: _confusions(FinetuningFolder(folder).confusions) for name, folder in runs}
    tuned = load_finetuned(first.folder, torch.device("cpu"))
    statistics, seed = DATASETS[tuned.about["statistics"]].STATISTICS, config.training.seed
    model = read_checkpoint(first.best).config
    ground = read_ground(config.ground, model, statistics, scratch / ".unfinished", seed)
    powers: dict[str, float] = {}
    for row in fitted_baselines(ground, ZScoreNormalize(statistics), seed) if baselines else ():
        confusions[row.name], powers[row.name] = row.confusions, row.power
    main_name = runs[0][0]
    reference = confusions[main_name]
    for name, values in confusions.items():
        if values.shape != reference.shape or (values.sum(axis=2) != reference.sum(axis=2)).any():
            raise DataError(f"{name}: was scored on other squares than {main_name}; compare runs of the same ground")
    ours, rows = resampled_miou(reference, seed), {}
    for name, values in confusions.items():
        rows[name] = scored(values, ground.classes, seed)
        if name != main_name:
            difference = ours.minus(resampled_miou(values, seed)).interval()
            rows[name]["first_minus"] = difference._asdict()
        if name in powers:
            rows[name]["share_power"] = powers[name]
    return {
        "first": main_name,
        "simulated": any(area.source.simulated for area in ground.areas),
        "classes": list(ground.classes),
        "pixels": {part: ground.counts(part).tolist() for part in ("train", "val", "test")},
        "block": config.ground.block,
        "rows": rows,
        "provenance": {key: value for key, value in provenance().items() if key != "command"},  # it names folders
    }


def _named(run: Path) -> tuple[str, Path]:
    name, equals, folder = str(run).partition("=")
    return (name, Path(folder)) if equals else (run.name, run)


def _confusions(path: Path) -> Any:
    import numpy as np

    if not path.is_file():
        raise DataError(f"{path}: is not there; give the folder of a finished run of task segmentation")
    with np.load(path) as arrays:
        return arrays["confusions"]


def _rows(record: dict[str, Any]) -> Any:
    yield ["row", "mIoU", "low", "high", "accuracy", f"{record['first']} minus it", "low", "high", *record["classes"]]
    for name, row in record["rows"].items():
        difference = row.get("first_minus") or {}
        figures = [row[key] for key in ("miou", "low", "high", "accuracy")]
        figures += [difference.get(key) for key in ("value", "low", "high")]
        figures += [row["per_class"][kind]["iou"] for kind in record["classes"]]
        yield [name, *("" if value is None else f"{100 * value:.1f}" for value in figures)]


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
