"""Routing noise when patches are embedded, as in the published code, and without."""

import numpy as np

from eval.statistics.bootstrap import Resampled
from eval.statistics.weighted_metrics import Statistic, mean_of
from studies.ablations.study import Study
from studies.ablations.variants import (
    PROTOCOL,
    EmbeddingSpec,
    Variant,
    figure_of,
    has_experts,
    probe,
    recipe_variant,
    representation,
)
from studies.engine.context import StudyContext
from studies.engine.runs import SplitRepresentation
from studies.engine.scoring import Scored, score
from studies.report_parts.sections import Section, Table

OFF = "without noise"
TESTED = "fitted without, tested with noise"
CHANGED = ("cls", "mean")
"""Poolings whose change by noise is measured."""


def noise_section(context: StudyContext) -> Section:
    """Embeddings with several draws of routing noise, and without."""
    study = Study(context, "noise", "Study: routing noise in embedding", context.data.study)
    if not has_experts(context):
        return study.not_run("the studies' model has one expert in every block, and no routing noise.")
    variant, pool = recipe_variant(OFF), context.config.study.pool
    rows = {OFF: probe(context, variant, EmbeddingSpec(pool))}
    for draw in range(1, context.config.study.noise_draws + 1):
        rows[f"noise, draw {draw}"] = probe(context, variant, EmbeddingSpec(pool, noise=draw))
    rows[TESTED] = _tested_with_noise(context, variant, pool)
    results = study.results(rows)
    claims = {
        "routing noise in embedding hurts": results.compare(OFF, "noise, draw 1"),
        "routing noise in testing hurts a probe fitted without": results.compare(OFF, TESTED),
    }
    tables = [*study.claims(claims), _change_table(context, variant),
              results.table("noise", "Routing noise: probe", "embeddings", OFF)]  # fmt: skip
    differences = [results.compare(title, OFF) for title in rows if title != OFF]
    return study.section(differences, tables, [study.figure_of(results, "Probe score with routing noise in embedding")])


def _tested_with_noise(context: StudyContext, variant: Variant, pool: str) -> list[Scored]:
    """A probe fitted on embeddings without noise, tested on the first draw with noise."""
    found = []
    for seed in context.config.study.seeds:
        clean, noisy = (representation(context, variant, seed, EmbeddingSpec(pool, noise=draw)) for draw in (None, 1))

        def either(split: str, fold: int, clean=clean, noisy=noisy) -> SplitRepresentation:
            return (noisy if split == "test" else clean)(split, fold)

        name = f"study/{variant.name}/seed{seed}/{pool}_tested_with_noise1"
        found.append(score(context, name, PROTOCOL, either, source=context.data.study))
    return found


def _change_table(context: StudyContext, variant: Variant) -> Table:
    rows = [
        [f"{pool}, {'two draws' if first else 'one draw and none'}",
         figure_of(_changes(context, variant, pool, first), 1)]
        for pool in CHANGED
        for first in (None, 2)
    ]  # fmt: skip
    columns = ["embeddings", "change, %"]
    note = "Norm of the difference over the norm of the first, mean over test patches; 95 % intervals."
    title, where = "Routing noise: how random embeddings are", context.data.study.measured_on()
    return Table("study_noise_change", title, columns, rows, where, note)


def _changes(context: StudyContext, variant: Variant, pool: str, first: int | None) -> list[Resampled]:
    """For every seed: relative change in per cent between draw 1 and draw `first`, or none."""
    source = context.data.study
    found = []
    for seed in context.config.study.seeds:
        pair = [
            [
                representation(context, variant, seed, EmbeddingSpec(pool, noise=draw))("test", fold)
                for fold in range(len(source.folds))
            ]
            for draw in (first, 1)
        ]

        def find(pair=pair) -> tuple[dict[str, Statistic], np.ndarray]:
            before, after = (np.concatenate([one.vectors.x for one in folds]) for folds in pair)
            ids = [patch_id for one in pair[0] for patch_id in one.vectors.ids]
            return {"change": mean_of(100.0 * relative_change(before, after))}, source.blocks(ids)

        inputs = {"vectors": [[one.digest for one in folds] for folds in pair]}
        name = f"study_noise/{variant.name}/seed{seed}/{pool}_{first or 'none'}"
        found.append(context.resampled(name, inputs, find)["change"])
    return found


def relative_change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(N, D) twice to (N,): norm of the difference over the norm of the first."""
    return np.linalg.norm(after - before, axis=1) / np.linalg.norm(before, axis=1)
