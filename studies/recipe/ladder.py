"""The ladder of recipes from its config to its report: every row pretrained, or its weights taken, and scored."""

import json
from pathlib import Path

from configs.recipe import RecipeConfig
from studies.engine.context import StudyContext
from studies.engine.stages import StageCache
from studies.recipe.benches import read_benches
from studies.recipe.report import markdown, sections_of, summary
from studies.recipe.results import results_of
from studies.recipe.scores import baseline_rows, ladder_row, settings_of
from studies.report import report_of, write_report
from training.stopping import StopSignals
from utils.errors import DataError
from utils.files import write_json, write_text
from utils.reporting import reporter

RESULT, TABLES = "recipe.json", "recipe.md"


def tables(config: RecipeConfig) -> str:
    """The README's tables, from the result that the config names.

    Raises:
        DataError: without one.
    """
    return summary(_read_result(config))


def require_rows(config: RecipeConfig, chosen: list[str] | None) -> None:
    """Raise DataError for a row that the ladder does not have."""
    if strange := [name for name in chosen or () if name not in config.ladder]:
        raise DataError(f"--rows: the ladder has no {', '.join(strange)}; it has {', '.join(config.ladder)}")


def measure(config: RecipeConfig, folder: Path, signals: StopSignals, started: float, chosen: list[str] | None) -> Path:
    """Do what is not done yet and write results, tables and report, whose path is returned.

    Args:
        config: of the ladder.
        folder: for stages and results.
        signals: watched between stages.
        started: seconds of `time.perf_counter`.
        chosen: the rows to make; None: all.
    """
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
    text = markdown(results)
    write_text(folder / TABLES, text)
    reporter.info(text)
    subtitle = f"Pretrained on {benches['choice'].source.patches()} of another seed, or as the rows say."
    return write_report(report_of(context, config.title, subtitle, sections_of(context, results), started), folder)


def _read_result(config: RecipeConfig) -> dict:
    path = Path(config.result or Path(config.out_dir) / RESULT)
    if not path.is_file():
        raise DataError(f"{path}: no such result; run this command without --tables first")
    return json.loads(path.read_text(encoding="utf-8"))
