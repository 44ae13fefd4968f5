"""How much scores on real patches owe to their division: `python -m studies.recipe.divisions --config_yaml FILE`.

The ladder cross-validates the real patches in one division into folds of whole areas. Here the same representations
are scored in several divisions, metadata given, by the linear probe: the mean over the divisions with its 95 % interval
over blocks of neighbouring patches, the spread over divisions, and paired differences to the best baseline.
"""

import csv
import io
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from studies.recipe.sensors import plain, shown
from utils.arguments import config_parser
from utils.errors import ConfigError, DataError, run_script
from utils.markdown import markdown_table
from utils.reporting import reporter

TABLE, TEXT = "divisions.csv", "divisions.md"
PERCENT = 100.0


class Divided(NamedTuple):
    """One representation in several divisions."""

    title: str
    seeds: int | None
    """Of an encoder; None of a baseline."""
    by_division: np.ndarray
    """(divisions,) micro mAP, mean over seeds."""
    resampled: Any
    """`eval.statistics.bootstrap.Resampled` of the mean over divisions and seeds."""


def main(argv: list[str] | None = None) -> int:
    """Score in every division what is not scored yet, write and print; returns the exit code."""
    parser = config_parser("What the division into folds changes.", reads="as python -m studies.recipe")
    parser.add_argument("--rows", nargs="*", metavar="NAME", help="only these rows of the ladder; none: baselines only")
    parser.add_argument("--divisions", type=int, default=10, metavar="N", help="how many (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if arguments.divisions < 2:
        raise ConfigError(f"--divisions {arguments.divisions}: give at least 2")
    from configs.recipe import read_recipe_config
    from eval.probing.feature_baselines import COMBINATIONS
    from studies.recipe.ladder import require_rows
    from training.stopping import StopRequested, StopSignals
    from utils.files import check_writable, write_text
    from utils.locks import held_alone

    config = read_recipe_config(arguments.config_yaml, arguments.overrides, tuple(COMBINATIONS))
    require_rows(config, arguments.rows)
    if config.real is None or config.real.folds is None:
        raise DataError(f"{arguments.config_yaml}: has no real patches in folds; give real.dataset_path and real.folds")
    try:
        with StopSignals() as signals:
            folder = check_writable(config.out_dir)
            with held_alone(folder, "at work in it; wait for it, or choose out_dir"):
                found = divided_scores(config, folder, signals, arguments.divisions, arguments.rows)
                write_text(folder / TABLE, rows_as_csv(found))
                write_text(folder / TEXT, text := table(found))
    except StopRequested as request:
        reporter.info("stopped by a signal; the same command goes on from here")
        return StopSignals.exit_code(request.number)
    reporter.info(text)
    return 0


def divided_scores(config: Any, folder: Any, signals: Any, count: int, chosen: list[str] | None) -> list[Divided]:
    """Every baseline and row; the arguments are those of `studies.recipe.ladder.measure`, and how many divisions."""
    from studies.comparison.baselines import PCA, baseline, baseline_names
    from studies.engine.context import StudyContext
    from studies.engine.data import read_source
    from studies.engine.stages import StageCache
    from studies.recipe.benches import CHOICE, REAL, read_benches
    from studies.recipe.scores import Setting, best_pool, combinations_of, embedded, runs_of_row

    context = StudyContext.prepare(config.reproduction(), StageCache(folder), signals)
    benches = read_benches(context, config)
    bench = benches[REAL]
    sources = []
    for seed in range(count):
        seeded = context.config.model_copy(update={"seed": seed})
        sources.append(read_source(f"{REAL}_division{seed}", config.real, seeded, context.cache))
    found = []
    for name, place in baseline_names(context, bench.source, 1, combinations_of(config)).items():
        if name != PCA:
            reporter.info(f"== {name}")
            whole = baseline(context, bench.source, name, 1)
            found.append(_scored(context, sources, name, place, [whole])._replace(seeds=None))
    setting = Setting(bench, "given")
    for name, section in config.ladder.items():
        if (chosen is None or name in chosen) and REAL not in section.seen:
            reporter.info(f"== {section.title}")
            runs = runs_of_row(context, config, name, section)
            pool = section.pool or best_pool(context, config, name, runs[0], benches[CHOICE])
            several = [embedded(context, setting, run, pool) for run in runs]
            found.append(_scored(context, sources, section.title, f"divisions/{name}", several))
    return found


def _scored(context: Any, sources: Sequence[Any], title: str, place: str, several: Sequence[Any]) -> Divided:
    """One representation, an encoder's of every seed, in all divisions."""
    from eval.statistics.bootstrap import SHARE, resample
    from eval.statistics.weighted_metrics import micro_map
    from studies.engine.scoring import headline, score
    from studies.recipe.benches import by_folds
    from studies.recipe.scores import LINEAR

    statistics, values = [], []
    names: list[str] = []
    for seed, representation in enumerate(several):
        for source in sources:
            one = score(context, f"{place}/seed{seed}", LINEAR, by_folds(source, representation), source=source)
            order = np.argsort(one.ids)  # every division tests the patches in another order
            statistics.append(micro_map(one.labels[order], one.scores[order]))
            values.append(one.metrics[headline(source)])
            names = [one.ids[row] for row in order]
    blocks = sources[0].blocks(names)

    def mean_of_all(weights: np.ndarray) -> float:
        return float(np.mean([statistic(weights) for statistic in statistics]))

    mean = resample(mean_of_all, blocks, context.config.seed, limits=SHARE)
    by_division = np.array(values).reshape(len(several), len(sources)).mean(axis=0)
    return Divided(title, len(several), by_division, mean)


def _best(found: Sequence[Divided]) -> Divided:
    """The baseline with the highest mean."""
    return max((one for one in found if one.seeds is None), key=lambda one: one.resampled.value)


def table(found: Sequence[Divided]) -> str:
    """The results in Markdown."""
    best, rows = _best(found), []
    for one in found:
        share = PERCENT * one.by_division
        difference = "–" if one is best else shown(plain(one.resampled.minus(best.resampled).interval()))
        rows.append([one.title, str(one.seeds or ""), shown(plain(one.resampled.interval())),
                     f"{share.std():.1f}", f"{share.min():.1f} to {share.max():.1f}", difference])  # fmt: skip
    header = ["representation", "seeds", "mean of the divisions", "standard deviation over divisions",
              "least and greatest", "minus the best baseline"]  # fmt: skip
    text = f"Micro mAP of the linear probe on real patches, metadata given, %, {len(found[0].by_division)} divisions:"
    return "\n".join([text, "", markdown_table(header, rows), ""])


def rows_as_csv(found: Sequence[Divided]) -> str:
    """One division a line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["representation", "seeds", "division", "map_micro"])
    for one in found:
        for division, value in enumerate(one.by_division):
            writer.writerow([one.title, one.seeds or "", division, f"{PERCENT * value:.3f}"])
    return text.getvalue()


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
