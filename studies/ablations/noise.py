"""Routing noise when patches are embedded, as the published code has it, and without."""

import numpy as np

from eval.statistics.bootstrap import Resampled
from eval.statistics.weighted_metrics import mean_of
from studies.ablations.figures import plot_groups
from studies.ablations.variants import PROTOCOL, RECIPE, Arm, How, describe, figure_of, probe, recipe_model
from studies.ablations.wording import (
    claims_of,
    compare,
    figure,
    headline_title,
    recipe_words,
    score_table,
    shown_scores,
    summary,
)
from studies.engine.context import Bench
from studies.engine.resampling import resampled_stage
from studies.engine.scoring import Scored, score
from studies.report_parts.sections import Section, Table

OFF = "without noise"
TESTED = "fitted without, tested with noise"
CHANGED = ("cls", "mean")
"""Pools whose change by noise is measured."""


def noise_section(bench: Bench) -> Section:
    """Embeddings with several draws of routing noise, and without."""
    title, source = "Study: routing noise in embedding", bench.data.study
    if all(count == 1 for count in recipe_model(bench).experts):
        return Section(title, ["Not run: the studies' model has one expert in every block, and no routing noise."])
    arm, pool = Arm(RECIPE, OFF, {}), bench.config.study.pool
    draws = range(1, bench.config.study.noise_draws + 1)
    results = {OFF: probe(bench, arm, How(pool))}
    results |= {f"noise, draw {draw}": probe(bench, arm, How(pool, noise=draw)) for draw in draws}
    results[TESTED] = _tested_with_noise(bench, arm, pool)
    table = score_table(bench, "noise", "Routing noise: probe", results, OFF, first="embeddings")
    shown = shown_scores(bench, results)
    picture = figure(
        bench, "noise", shown, lambda: plot_groups({"": shown}, headline_title(source)),
        f"What a probe scores with routing noise in embedding: {source.measured_on()}.",
    )  # fmt: skip
    said = summary(
        [compare(bench, (name, scored), (OFF, results[OFF])) for name, scored in results.items() if name != OFF]
    )
    claims = {
        claim: compare(bench, (OFF, results[OFF]), (name, results[name]))
        for claim, name in {
            "routing noise in embedding hurts": f"noise, draw {draws[0]}",
            "routing noise in testing hurts a probe fitted without": TESTED,
        }.items()
    }
    tables = [claims_of(bench, "noise", claims), _change_table(bench, arm), table]
    return Section(title, [*said, *recipe_words(bench)], tables, [picture])


def _tested_with_noise(bench: Bench, arm: Arm, pool: str) -> list[Scored]:
    """A probe fitted on embeddings without noise, tested on the first draw with noise."""
    found = []
    for seed in bench.config.study.seeds:
        calm, noisy = (describe(bench, arm, seed, How(pool, noise=noise)) for noise in (None, 1))

        def either(split: str, fold: int, calm=calm, noisy=noisy):
            return (noisy if split == "test" else calm)(split, fold)

        name = f"study/{arm.name}/seed{seed}/{pool}_tested_with_noise1"
        found.append(score(bench, name, PROTOCOL, either, source=bench.data.study))
    return found


def _change_table(bench: Bench, arm: Arm) -> Table:
    source = bench.data.study
    rows = [
        [f"{pool}, {'two draws' if first else 'a draw and none'}", figure_of(_changes(bench, arm, pool, first), 1)]
        for pool in CHANGED
        for first in (None, 2)
    ]
    columns = ["vectors", "change, %"]
    note = "Length of the difference over the length of the first, mean over test patches; 95 % intervals."
    title = "Routing noise: how random embeddings are"
    return Table("study_noise_change", title, columns, rows, source.measured_on(), note)


def _changes(bench: Bench, arm: Arm, pool: str, first: int | None) -> list[Resampled]:
    """For every seed: relative change in per cent between draw 1 and draw `first`, or none."""
    source = bench.data.study
    found = []
    for seed in bench.config.study.seeds:
        several = [
            [describe(bench, arm, seed, How(pool, noise=noise))("test", fold) for fold in range(len(source.folds))]
            for noise in (first, 1)
        ]

        def find(several=several):
            before, after = (np.concatenate([one.vectors.x for one in parts]) for parts in several)
            changes = relative_change(before, after)
            ids = [patch_id for one in several[0] for patch_id in one.vectors.ids]
            return {"change": mean_of(100.0 * changes)}, source.blocks(ids)

        inputs = {"vectors": [[one.digest for one in parts] for parts in several]}
        name = f"study_noise/{arm.name}/seed{seed}/{pool}_{first or 'none'}"
        found.append(resampled_stage(bench, name, inputs, find)["change"])
    return found


def relative_change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(N, D) twice to (N,): length of the difference over the length of the first."""
    return np.linalg.norm(after - before, axis=1) / np.linalg.norm(before, axis=1)
