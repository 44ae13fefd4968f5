"""Scores of baselines and encoders on the benches: the rows of the ladder."""

import hashlib
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from configs.recipe import RecipeConfig, RowSection
from eval.probing.feature_baselines import COMBINATIONS
from eval.statistics.bootstrap import SHARE, Interval, Resampled, of_runs
from eval.statistics.weighted_metrics import statistics_of
from models.moe_mae import count_parameters
from studies.comparison.baselines import PCA, STRONGEST, baseline, baseline_names
from studies.engine.context import StudyContext
from studies.engine.embedding import Metadata
from studies.engine.masked_losses import losses_over_folds
from studies.engine.runs import Run, SplitRepresentation
from studies.engine.scoring import Representation, Scored, headline, score
from studies.recipe.benches import CHOICE, Bench, by_folds
from utils.errors import DataError
from utils.reporting import reporter

LINEAR, NEAREST, NEAREST_SCALED = "calibrated_probe", "knn5", "knn5_scaled"
PROTOCOLS = (LINEAR, NEAREST, NEAREST_SCALED)

PIXELS_ONLY = "random features + statistics"
"""The strongest baseline where no metadata are given."""


class Setting(NamedTuple):
    """One set of patches, with or without metadata."""

    bench: Bench
    metadata: Metadata

    @property
    def name(self) -> str:
        return f"{self.bench.name}_{'with' if self.given else 'without'}_metadata"

    @property
    def given(self) -> bool:
        """Whether the encoder is given metadata."""
        return self.metadata == "given"

    @property
    def rival(self) -> str:
        """The baseline that an encoder has to be worth more than."""
        return STRONGEST if self.given else PIXELS_ONLY


class Row(NamedTuple):
    """One representation on all benches."""

    name: str
    title: str
    scores: dict[tuple[str, str], list[Scored]]
    """(setting, protocol) to results, one a seed."""
    losses: dict[str, list[dict[str, Resampled]]]
    """Bench to masked losses of the model and of baselines, one a seed."""
    after: str | None = None
    pool: str | None = None
    """None for baselines."""
    runs: Sequence[Run] = ()
    """One a seed; none for baselines."""
    encoder_parameters: int | None = None
    seconds: float | None = None
    """Of pretraining, all seeds; None where it was not done here."""

    def width(self, setting: Setting) -> int | None:
        """Numbers of a vector."""
        several = self.scores.get((setting.name, LINEAR))
        return None if not several else several[0].details[0]["features"]


def settings_of(benches: dict[str, Bench]) -> list[Setting]:
    """What is reported: each bench with metadata, where there are any, then without."""
    reported = [bench for name, bench in benches.items() if name != CHOICE]
    kinds: tuple[Metadata, ...] = ("given", "missing")
    return [Setting(bench, kind) for kind in kinds for bench in reported if bench.metadata or kind == "missing"]


def baseline_rows(context: StudyContext, config: RecipeConfig, benches: dict[str, Bench]) -> list[Row]:
    """The baselines in every setting; without metadata those that need none."""
    settings, found = settings_of(benches), {}
    asked = combinations_of(config)
    for setting in settings:
        source = setting.bench.source
        combinations = [name for name in COMBINATIONS if name in asked or name == setting.rival]
        for name, folder in baseline_names(context, source, 1, combinations).items():
            if name == PCA or (not setting.given and "metadata" in name):
                continue

            row = found.setdefault(name, Row(folder, name, {}, {}))
            row.scores.update(_scores(context, folder, setting, baseline(context, source, name, 1)))
    return list(found.values())


def combinations_of(config: RecipeConfig) -> Sequence[str]:
    """The combinations of simple features that are asked for."""
    return list(COMBINATIONS) if config.baselines is None else config.baselines


def ladder_row(context: StudyContext, config: RecipeConfig, name: str, benches: dict[str, Bench]) -> Row:
    """One row of the ladder: pretrained where that is not done yet, pooled, scored.

    Raises:
        DataError: where its checkpoint is not there.
    """
    section, started = config.ladder[name], time.perf_counter()
    runs = runs_of_row(context, config, name, section)
    pool = section.pool or best_pool(context, config, name, runs[0], benches[CHOICE])
    size = count_parameters(context.runs.model(runs[0]).encoder)
    row = Row(name, section.title, {}, {}, section.after, pool, runs, size)
    for setting in settings_of(benches):
        if setting.bench.name in section.seen:
            continue
        for run in runs:
            place = f"ladder/{name}/seed{run.seed}/{pool}/{setting.metadata}"
            vectors = embedded(context, setting, run, pool)
            for key, several in _scores(context, place, setting, vectors).items():
                row.scores[key] = [*row.scores.get(key, []), *several]
    for bench in benches.values():
        if bench.name != CHOICE and bench.name not in section.seen:
            row.losses[bench.name] = [
                losses_over_folds(
                    context, f"losses/{name}/seed{run.seed}/{bench.name}", bench.source, [run] * len(bench.source.folds)
                )
                for run in runs
            ]
    reporter.info(f"== {section.title}: scored in {time.perf_counter() - started:.0f} s")
    return row._replace(seconds=None if section.checkpoint else _seconds(context, runs))


def resampled_headline(context: StudyContext, several: Sequence[Scored], bench: Bench) -> list[Resampled]:
    """The headline metric on the test patches and on their resampled versions, one a seed."""
    metric = headline(bench.source)

    def one(scored: Scored) -> Resampled:
        cut = hashlib.sha256(scored.blocks.astype(np.int64).tobytes()).hexdigest()
        return context.resampled(
            f"headlines/{scored.source}/{scored.name}/{scored.protocol}",
            {"scores": scored.digest, "blocks": cut},
            lambda: ({metric: statistics_of(scored.metrics, scored.labels, scored.scores)[metric]}, scored.blocks),
            limits=SHARE,
        )[metric]

    return [one(scored) for scored in several]


def paired(context: StudyContext, first: Sequence[Scored], second: Sequence[Scored], bench: Bench) -> Interval:
    """`first` minus `second` on the same resampled patches, seed by seed.

    Where they have different numbers of seeds, those of the shorter one come round again.
    """
    ones, others = (resampled_headline(context, several, bench) for several in (first, second))
    count = max(len(ones), len(others))
    return of_runs([ones[at % len(ones)].minus(others[at % len(others)]) for at in range(count)])


def _scores(
    context: StudyContext, name: str, setting: Setting, representation: Representation
) -> dict[tuple[str, str], list[Scored]]:
    """One representation by every protocol."""
    source = setting.bench.source
    return {
        (setting.name, protocol): [score(context, name, protocol, by_folds(source, representation), source=source)]
        for protocol in PROTOCOLS
    }


def embedded(context: StudyContext, setting: Setting, run: Run, pool: str) -> Representation:
    """An encoder's vectors of the patches of a setting."""
    source = setting.bench.source
    # Of a dataset without metadata there is one way to embed it, whatever the setting is called.
    metadata: Metadata = setting.metadata if setting.bench.metadata else "given"

    def vectors(split: str, fold: int) -> SplitRepresentation:
        return context.runs.embeddings(run, pool, split, source=source, fold=fold, metadata=metadata)

    return vectors


def best_pool(context: StudyContext, config: RecipeConfig, name: str, run: Run, bench: Bench) -> str:
    """The pooling with the best linear score on the patches for choices, by the first seed's encoder."""

    source, given = bench.source, Setting(bench, "given")

    def found(pool: str) -> float:
        vectors = embedded(context, given, run, pool)
        # C is chosen on the patches that are scored, for all poolings alike: a quarter of the fits.
        scored = score(
            context,
            f"choice/{name}/seed{run.seed}/{pool}",
            LINEAR,
            lambda split, fold: vectors("test" if split == "val" else split, fold),
            source=source,
        )
        return scored.metrics[headline(source)]

    return max(config.embed.pools, key=found)


def runs_of_row(context: StudyContext, config: RecipeConfig, name: str, section: RowSection) -> list[Run]:
    """The encoders of a row, one a seed: pretrained where that is not done yet, or the weights that it names.

    Raises:
        DataError: where its checkpoint is not there.
    """
    if section.checkpoint is None:
        changes = config.changes(name)
        return [context.runs.pretrained(changes, seed, f"ladder/{name}") for seed in section.seeds]
    given = context.runs.given(name)
    if given is None:
        raise DataError(f"{section.checkpoint}: no such checkpoint; correct ladder.{name}.checkpoint, or leave it out")
    return [given]


def _seconds(context: StudyContext, runs: Sequence[Run]) -> float:
    """That pretraining took, all seeds together."""
    folders = {run.folder.parent for run in runs}
    return sum(stage.seconds for stage in context.cache.stages if stage.folder in folders)
