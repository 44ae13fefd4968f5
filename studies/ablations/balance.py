"""Load balancing of the experts: the load loss as published or as by Shazeer et al., and the scale of the main loss."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from eval.statistics.bootstrap import Resampled
from studies.ablations.figures import plot_balance
from studies.ablations.study import Study
from studies.ablations.variants import (
    USAGE_TITLES,
    Variant,
    expert_usage_statistics,
    figure_of,
    has_experts,
    masked_losses,
    minus,
    recipe_model,
    recipe_value,
    run_of,
    usage_cv,
    variant_of,
)
from studies.ablations.wording import PairedDifference
from studies.engine.context import StudyContext
from studies.engine.masked_losses import MODEL
from studies.report_parts.sections import Cell, Section, Table

Usage = Mapping[str, Sequence[Mapping[str, Resampled]]]
"""Title of a variant to its usage statistics, one mapping per pretraining seed."""


def load_loss_section(context: StudyContext) -> Section:
    """The load loss with the thresholds of Shazeer et al. and with the published code's."""
    variants = [
        variant_of(context, "load_shazeer", "load loss by Shazeer et al.", model__load_loss="shazeer"),
        variant_of(context, "load_published", "load loss as published", model__load_loss="published"),
    ]
    claims = {"the load loss by Shazeer et al. keeps experts better in balance": (variants[1], variants[0])}
    return _section(context, "load_loss", "load loss", variants, claims)


def loss_scale_section(context: StudyContext) -> Section:
    """The reconstruction loss summed over a patch's values or averaged, and no balance loss at all."""
    values = recipe_model(context).patch_values
    weight = recipe_value(context, "training.balance_weight")
    variants = [
        variant_of(context, "loss_sum", "summed over a patch", training__reconstruction="sum"),
        variant_of(context, "loss_mean", "averaged over a patch", training__reconstruction="mean"),
        variant_of(context, "no_balance", "summed, no balance loss", training__reconstruction="sum",
               training__balance_weight=0.0),
    ]  # fmt: skip
    remark = (
        f"A patch has {values} values: averaged over them, the balance loss weighs {values} times as much relative "
        f"to the reconstruction, as with training.balance_weight {weight * values:g} in place of {weight:g}. AdamW is "
        "invariant to the scale of a loss, the clipping of gradients is not."
    )
    claims = {
        "averaging over a patch's values keeps experts better in balance": (variants[0], variants[1]),
        "the balance loss keeps experts in balance": (variants[2], variants[0]),
    }
    return _section(context, "loss_scale", "loss summed or averaged", variants, claims, remark)


def _section(
    context: StudyContext,
    name: str,
    title: str,
    variants: Sequence[Variant],
    claims: Mapping[str, tuple[Variant, Variant]],
    *remarks: str,
) -> Section:
    """A study of balance.

    Args:
        context: config, data and stages of this reproduction.
        name: of its tables.
        title: of the study.
        variants: the first one is what the others are compared with.
        claims: that experts are used less evenly in the first variant than in the second.
        remarks: to add.
    """
    study = Study(context, name, f"Study: {title}", context.data.study)
    if not has_experts(context):
        return study.not_run("the studies' model has one expert in every block, so nothing to balance.")
    results = study.probe(variants)
    usage = {variant.title: expert_usage_statistics(context, variant) for variant in variants}
    reference, *others = results.rows
    differences = []
    for other in others:
        differences += [_usage_gap(usage, other, reference, key, digits=3) for key in ("cv", "entropy")]
        differences.append(results.compare(other, reference))
    curves = {
        variant.title: [usage_by_epoch(run_of(context, variant, seed).folder) for seed in context.config.study.seeds]
        for variant in variants
    }
    picture = study.figure(
        curves,
        lambda: plot_balance(curves, "CV of expert usage in training\n(mean over blocks)"),
        "CV of expert usage in training by epoch (0: balanced); the band spans the seeds",
    )
    judged = {
        claim: _usage_gap(usage, first.title, second.title, "cv", digits=3) for claim, (first, second) in claims.items()
    }
    heading = title.capitalize()
    tables = [
        *study.claims(judged),
        _balance_table(study, f"{heading}: balance", usage, variants),
        results.table(name, f"{heading}: probe", "variant", reference),
    ]
    return study.section(differences, tables, [picture], remarks)


def _usage_gap(usage: Usage, first: str, second: str, key: str, digits: int) -> PairedDifference:
    value = figure_of(minus([run[key] for run in usage[first]], [run[key] for run in usage[second]]), digits)
    return PairedDifference(first, second, value, USAGE_TITLES[key], unit="", runs=len(usage[first]))


def _balance_table(study: Study, title: str, usage: Usage, variants: Sequence[Variant]) -> Table:
    losses = {one.title: [run[MODEL] for run in masked_losses(study.context, one)] for one in variants}
    reference = variants[0].title
    rows: list[list[Cell]] = []
    for name, runs in usage.items():
        row: list[Cell] = [name]
        for key in USAGE_TITLES:
            row.append(figure_of([run[key] for run in runs], digits=1 if key == "smallest" else 3))
            if key == "cv":
                row.append(None if name == reference else _usage_gap(usage, name, reference, key, 3).value)
        gap = None if name == reference else figure_of(minus(losses[name], losses[reference]))
        rows.append([*row, figure_of(losses[name]), gap])
    columns = ["variant"]
    for key, heading in USAGE_TITLES.items():
        columns += [heading, f"minus {reference}, CV"] if key == "cv" else [heading]
    columns += ["masked loss", f"minus {reference}, loss"]
    note = (
        "Usage: each expert's share of its block's choices on whole test patches without routing noise, mean over "
        "blocks (of the first fold, where there are several). CV: standard deviation over mean, 0 where all experts "
        "are used equally. Brackets: 95 % intervals."
    )
    return Table(f"study_{study.name}_balance", title, columns, rows, study.source.measured_on(), note)


def usage_by_epoch(folder: Path) -> list[float]:
    """CV of the experts' usage in training, mean over the blocks, epoch by epoch, from the log in a run's folder."""
    log = next(folder.glob("training_log_*.jsonl"))
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [float(np.mean([usage_cv(np.array(block)) for block in row["expert_usage"] if block])) for row in rows]
