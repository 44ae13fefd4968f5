"""Whether the experts are kept in balance: the load loss as published or by its source, the size of the main loss."""

import json
from collections.abc import Mapping, Sequence

import numpy as np

from studies.ablations.figures import plot_balance
from studies.ablations.variants import (
    USAGE_TITLES,
    Arm,
    How,
    arm_of,
    expert_use,
    figure_of,
    masked_losses,
    minus,
    probe,
    recipe_model,
    recipe_value,
    run_of,
    usage_cv,
)
from studies.ablations.wording import Compared, claims_of, compare, figure, recipe_words, score_table, summary
from studies.engine.context import Bench
from studies.engine.masked_losses import MODEL
from studies.engine.runs import Run
from studies.report_parts.sections import Section, Table


def load_loss_section(bench: Bench) -> Section:
    """The load loss with the thresholds of its source beside the published code's."""
    arms = [
        arm_of(bench, "load_shazeer", "load loss by Shazeer et al.", model__load_loss="shazeer"),
        arm_of(bench, "load_published", "load loss as published", model__load_loss="published"),
    ]
    claims = {"the load loss by Shazeer et al. keeps experts better in balance": (arms[1], arms[0])}
    return _section(bench, "load_loss", "Study: load loss", arms, claims)


def loss_scale_section(bench: Bench) -> Section:
    """The reconstruction loss summed over a patch's values or averaged, beside no balance loss at all."""
    values = recipe_model(bench).patch_values
    weight = recipe_value(bench, "training.balance_weight")
    arms = [
        arm_of(bench, "loss_sum", "summed over a patch", training__reconstruction="sum"),
        arm_of(bench, "loss_mean", "averaged over a patch", training__reconstruction="mean"),
        arm_of(bench, "no_balance", "summed, no balance loss", training__reconstruction="sum",
               training__balance_weight=0.0),
    ]  # fmt: skip
    said = (
        f"A patch has {values} values: averaged over them, the balance loss weighs {values} times as much beside the "
        f"reconstruction, as with training.balance_weight {weight * values:g} in place of {weight:g}. AdamW does not "
        "see the scale of a loss, but the clipping of gradients does."
    )
    claims = {
        "averaging over a patch's values keeps experts better in balance": (arms[0], arms[1]),
        "the balance loss keeps experts in balance": (arms[2], arms[0]),
    }
    return _section(bench, "loss_scale", "Study: loss summed or averaged", arms, claims, said)


def _section(
    bench: Bench, name: str, title: str, arms: Sequence[Arm], claims: Mapping[str, tuple[Arm, Arm]], *words: str
) -> Section:
    """A study of balance.

    Args:
        bench: where.
        name: of its tables.
        title: of the section.
        arms: the first one is what the others are compared with.
        claims: that experts are used less evenly in the first arm than in the second.
        words: to add.
    """
    if all(count == 1 for count in recipe_model(bench).experts):
        return Section(title, ["Not run: the studies' model has one expert in every block, so nothing to balance."])
    how, what = How(bench.config.study.pool), title.partition(": ")[2].capitalize()
    results = {arm.title: probe(bench, arm, how) for arm in arms}
    uses = {arm.title: expert_use(bench, arm) for arm in arms}
    reference = arms[0].title
    scores = score_table(
        bench, name, f"{title.partition(': ')[2].capitalize()}: probe", results, reference, first="arm"
    )
    said = []
    for other in [arm.title for arm in arms[1:]]:
        said += [_gap(uses, other, reference, key, digits=3) for key in ("cv", "entropy")]
        said.append(compare(bench, (other, results[other]), (reference, results[reference])))
    curves = {arm.title: [usage_by_epoch(run_of(bench, arm, seed)) for seed in bench.config.study.seeds]
              for arm in arms}  # fmt: skip
    picture = figure(
        bench, name, curves, lambda: plot_balance(curves, "CV of expert usage in training\n(mean over blocks)"),
        "How unevenly experts are chosen in training, by epoch (0: all alike); the band spans the seeds.",
    )  # fmt: skip
    judged = {claim: _gap(uses, *(arm.title for arm in pair), "cv", digits=3) for claim, pair in claims.items()}
    balance = _balance_table(bench, name, f"{what}: balance", uses, reference, arms)
    tables = [claims_of(bench, name, judged), balance, scores]
    return Section(title, [*summary(said), *words, *recipe_words(bench)], tables, [picture])


def _gap(uses: dict[str, list[dict]], first: str, second: str, key: str, digits: int) -> Compared:
    value = figure_of(minus([run[key] for run in uses[first]], [run[key] for run in uses[second]]), digits)
    return Compared(first, second, value, USAGE_TITLES[key], unit="", runs=len(uses[first]))


def _balance_table(
    bench: Bench, name: str, title: str, uses: dict[str, list[dict]], reference: str, arms: Sequence[Arm]
) -> Table:
    source = bench.data.study
    losses = {arm.title: [run[MODEL] for run in masked_losses(bench, arm)] for arm in arms}
    rows = []
    for arm in arms:
        row = [arm.title]
        for key in USAGE_TITLES:
            row.append(figure_of([run[key] for run in uses[arm.title]], digits=1 if key == "smallest" else 3))
            if key == "cv":
                row.append(None if arm.title == reference else _gap(uses, arm.title, reference, key, 3).value)
        loss = losses[arm.title]
        row += [figure_of(loss), None if arm.title == reference else figure_of(minus(loss, losses[reference]))]
        rows.append(row)
    columns = ["arm"]
    for key, heading in USAGE_TITLES.items():
        columns += [heading, f"minus {reference}, CV"] if key == "cv" else [heading]
    columns += ["masked loss", f"minus {reference}, loss"]
    note = (
        "Usage: each expert's share of its block's choices on whole test patches without routing noise, mean over "
        "blocks (of the first fold, where there are several). CV: standard deviation over mean, 0 where all experts "
        "are used alike. Brackets: 95 % intervals."
    )
    return Table(f"study_{name}_balance", title, columns, rows, source.measured_on(), note)


def usage_by_epoch(run: Run) -> list[float]:
    """CV of the experts' usage in training, mean over the blocks, epoch by epoch, from the run's log."""
    log = next(run.folder.glob("training_log_*.jsonl"))
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [float(np.mean([usage_cv(np.array(block)) for block in row["expert_usage"] if block])) for row in rows]
