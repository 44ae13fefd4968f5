"""Whether experts are worth their parameters: dense encoders beside mixtures of several sizes, top 1 and top 2."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.config import ModelConfig
from models.moe_mae import MOEMAE, count_parameters
from studies.ablations.figures import plot_groups
from studies.ablations.variants import Arm, How, arm_of, figure_of, masked_losses, minus, probe, recipe_model, run_of
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
from studies.engine.masked_losses import MODEL
from studies.report_parts.sections import Section, Table

KINDS = ("active", "total")
"""What a dense encoder has as many of: the parameters that a token meets, or all."""

NEAR = 0.01
"""Share of the layers' parameters by which a dense encoder may be off."""


class Parameters(NamedTuple):
    """Of an encoder."""

    total: int
    active: int
    """That a token meets: all but the W of the experts that it did not choose."""


def expert_number_section(bench: Bench) -> Section:
    """Dense encoders of equal active and of equal total parameters beside mixtures."""
    source, arms = bench.data.study, expert_arms(bench)
    how = How(bench.config.study.pool)
    results = {arm.title: probe(bench, arm, how) for arm in arms}
    reference = arms[0].title
    configs = {arm.title: run_of(bench, arm, bench.config.study.seeds[0]).config for arm in arms}
    sizes = {title: encoder_parameters(config) for title, config in configs.items()}
    more = {
        "experts": {title: _experts(config) for title, config in configs.items()},
        "widths": {title: f"{config.expert_widths[0]}–{config.expert_widths[-1]}" for title, config in configs.items()},
        "encoder parameters": {title: size.total for title, size in sizes.items()},
        "active": {title: size.active for title, size in sizes.items()},
    }
    table = score_table(bench, "expert_number", "Number of experts", results, reference, first="encoder", more=more)
    shown = shown_scores(bench, results)
    picture = figure(
        bench, "expert_number", shown, lambda: plot_groups({"": shown}, headline_title(source)),
        f"What a probe scores by number of experts: {source.measured_on()}.",
    )  # fmt: skip
    compared = {
        arm.name: compare(bench, (reference, results[reference]), (arm.title, results[arm.title])) for arm in arms[1:]
    }
    claims = {
        f"{reference} are worth more than a dense encoder of equal {kind} parameters": compared[f"dense_{kind}"]
        for kind in KINDS
        if f"dense_{kind}" in compared
    }
    said = summary(list(compared.values()))
    said.append(f"The decoder is the same in all. {_dense_words(sizes, reference)}")
    tables = [*([claims_of(bench, "expert_number", claims)] if claims else []), table, _losses(bench, arms)]
    return Section("Study: number of experts", [*said, *recipe_words(bench)], tables, [picture])


def expert_arms(bench: Bench) -> list[Arm]:
    """The recipe's mixture first, then the same with one expert a token, fixed numbers of experts, and dense ones."""
    model = recipe_model(bench)
    mixture = f"{_experts(model)} experts, top {model.k}"
    other = 1 if model.k > 1 else 2
    arms = [
        arm_of(bench, "experts", mixture),
        arm_of(bench, f"experts_top{other}", f"{_experts(model)} experts, top {other}", model__k=other),
    ]
    for count in bench.config.study.experts:
        if model.k < count and set(model.experts) != {count}:
            name, title = f"experts_{count}", f"{count} experts, top {model.k}"
            arms.append(arm_of(bench, name, title, model__experts=[count] * model.depth))
    for kind in KINDS:
        first, last = dense_widths(model, kind)
        arms.append(
            arm_of(bench, f"dense_{kind}", f"dense, equal {kind} parameters", model__experts=[1] * model.depth,
                   model__dfirsth=first, model__dlasth=last)
        )  # fmt: skip
    return arms


def encoder_parameters(config: ModelConfig) -> Parameters:
    """Counted on the model itself; in evaluation the noise of a gate is off, but its parameters count."""
    total = count_parameters(MOEMAE(config).encoder)
    idle = sum(
        (experts - config.k) * width * (config.embed_dim + 1)
        for experts, width in zip(config.experts, config.expert_widths, strict=True)
        if experts > 1
    )
    return Parameters(total, total - idle)


def layer_parameters(dim: int, width: int, experts: int, counted: int) -> int:
    """Of one layer of experts: `counted` of the W, the shared V and W2, and gate and noise where there are several.

    W and V take (dim + 1) * width each, W2 (width + 1) * dim, gate and noise (dim + 1) * experts each.
    """
    gate = 2 * (dim + 1) * experts if experts > 1 else 0
    return (counted + 1) * (dim + 1) * width + (width + 1) * dim + gate


def dense_widths(config: ModelConfig, kind: str) -> tuple[int, int]:
    """`dfirsth` and `dlasth` of a dense encoder with as many parameters.

    Of the pairs of whole numbers whose total is off by no more than `NEAR` (or as little as can be), the one whose
    blocks are nearest one by one.

    Args:
        config: of the mixture.
        kind: "active" for as many as a token meets, "total" for all of them.
    """
    dim, depth = config.embed_dim, config.depth
    wanted = np.array([
        layer_parameters(dim, width, experts, (config.k if kind == "active" else experts) if experts > 1 else 1)
        for width, experts in zip(config.expert_widths, config.experts, strict=True)
    ])  # fmt: skip
    most = (max(config.experts) + 2) * max(config.expert_widths) // 3 + dim  # no block is worth more units than that
    firsts, lasts = np.meshgrid(np.arange(1, most + 1), np.arange(1, most + 1), indexing="ij")
    steps = np.arange(depth - 1, -1, -1) / max(depth - 1, 1)
    widths = np.trunc(steps * (firsts - lasts)[..., None]).astype(int) + lasts[..., None]  # as ModelConfig has them
    parameters = 2 * (dim + 1) * widths + (widths + 1) * dim
    off = np.abs(parameters.sum(axis=-1) - wanted.sum())
    apart = np.square((parameters - wanted).astype(float)).sum(axis=-1)
    best = np.where(off <= max(off.min(), NEAR * wanted.sum()), apart, np.inf).argmin()
    return int(firsts.ravel()[best]), int(lasts.ravel()[best])


def _experts(config: ModelConfig) -> str:
    low, high = min(config.experts), max(config.experts)
    return str(low) if low == high else f"{low}–{high}"


def _dense_words(sizes: dict[str, Parameters], reference: str) -> str:
    """How many parameters the dense encoders have, beside what they were to have."""
    dense = [size.total for title, size in sizes.items() if title.startswith("dense")]
    parts = [
        f"{count:,} for the {getattr(sizes[reference], kind):,} {kind} ones"
        for count, kind in zip(dense, KINDS, strict=True)
    ]
    return (
        f"Widths of dense layers are whole numbers that grow evenly, so the parameters of {reference} are met within "
        f"{100 * NEAR:g} %: {' and '.join(parts)}."
    )


def _losses(bench: Bench, arms: Sequence[Arm]) -> Table:
    losses = {arm.title: [run[MODEL] for run in masked_losses(bench, arm)] for arm in arms}
    reference = arms[0].title
    rows = [
        [title, figure_of(runs), None if title == reference else figure_of(minus(runs, losses[reference]))]
        for title, runs in losses.items()
    ]
    columns = ["encoder", "masked loss", f"minus {reference}"]
    note = "Squared error summed over a patch's values, z-scores; lower is better. Brackets: 95 % intervals."
    title, where = "Number of experts, reconstruction", bench.data.study.measured_on()
    return Table("study_expert_number_loss", title, columns, rows, where, note)
