"""What recipes are worth: `python -m studies.recipe --config_yaml configs/recipe_ladder.yaml`.

Pretrain every row of the ladder, or take the weights it names, and score it beside baselines that need no training.
Stages with unchanged inputs are reused; after an interruption the same command continues.
"""

import json
import sys
import time
from pathlib import Path

from configs.recipe import RecipeConfig, read_recipe_config
from eval.probing.feature_baselines import COMBINATIONS
from studies.engine.context import StudyContext
from studies.engine.stages import StageCache
from studies.recipe.benches import read_benches
from studies.recipe.report import markdown, sections_of, summary
from studies.recipe.results import results_of
from studies.recipe.scores import baseline_rows, ladder_row, settings_of
from studies.report import report_of, write_report
from training.stopping import StopRequested, StopSignals
from utils.arguments import config_parser
from utils.errors import DataError, run_script
from utils.files import check_writable, write_json, write_text
from utils.locks import held_alone
from utils.reporting import reporter

RESULT, TABLES = "recipe.json", "recipe.md"


def main(argv: list[str] | None = None) -> int:
    """Validate the config, do what is not done yet, write the report; returns the exit code."""
    parser = config_parser("What recipes of pretraining are worth.", reads="every key: configs/recipe.py")
    parser.add_argument("--rows", nargs="*", metavar="NAME", help="only these rows of the ladder; none: baselines only")
    parser.add_argument(
        "--tables", action="store_true", help="only print the README's tables, from the config's `result` file"
    )
    arguments = parser.parse_args(argv)
    started = time.perf_counter()
    config = read_recipe_config(arguments.config_yaml, arguments.overrides, tuple(COMBINATIONS))
    if arguments.tables:
        print(summary(_read_result(config)))
        return 0
    try:
        with StopSignals() as signals:
            folder = check_writable(config.out_dir)
            with held_alone(folder, "at work in it; wait for it, or choose out_dir"):
                report = _measure(config, folder, signals, started, arguments.rows)
    except StopRequested as request:
        reporter.info("stopped by a signal; the same command goes on from here")
        return StopSignals.exit_code(request.number)
    reporter.info(f"report: {report}")
    return 0


def _measure(
    config: RecipeConfig, folder: Path, signals: StopSignals, started: float, chosen: list[str] | None
) -> Path:
    if strange := [name for name in chosen or () if name not in config.ladder]:
        raise DataError(f"--rows: the ladder has no {', '.join(strange)}; it has {', '.join(config.ladder)}")
    context = StudyContext.prepare(config.reproduction(), StageCache(folder), signals)
    benches = read_benches(context, config)
    rows = baseline_rows(context, config, benches)
    for name in config.ladder:
        if chosen is None or name in chosen:
            reporter.info(f"== row {name}: {config.ladder[name].title}")
            rows.append(ladder_row(context, config, name, benches))
    results = results_of(context, config, settings_of(benches), rows)
    write_json(folder / RESULT, results)
    if config.result is not None:
        write_json(Path(config.result), results)
    tables = markdown(results)
    write_text(folder / TABLES, tables)
    reporter.info(tables)
    subtitle = f"Pretrained on {benches['choice'].source.patches()} of another seed, or as the rows say."
    return write_report(report_of(context, config.title, subtitle, sections_of(context, results), started), folder)


def _read_result(config: RecipeConfig) -> dict:
    path = Path(config.result or Path(config.out_dir) / RESULT)
    if not path.is_file():
        raise DataError(f"{path}: no such result; run this command without --tables first")
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
