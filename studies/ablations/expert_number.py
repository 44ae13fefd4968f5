"""Number of experts: dense encoders of equal parameters compared with mixtures of several sizes, top 1 and top 2."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.config import ModelConfig
from models.moe_mae import MOEMAE, count_parameters
from studies.ablations.study import Study
from studies.ablations.variants import Variant, figure_of, masked_losses, minus, recipe_model, run_of, variant_of
from studies.engine.context import StudyContext
from studies.engine.masked_losses import MODEL
from studies.report_parts.sections import Section, Table

KINDS = ("active", "total")
"""Which parameters a dense encoder has as many of: those that are active for a token, or all."""

NEAR = 0.01
"""Tolerance of a dense encoder's parameters, as a share of the layers'."""


class Parameters(NamedTuple):
    """Of an encoder."""

    total: int
    active: int
    """Active for one token: all but the W of the experts that it did not choose."""


def expert_number_section(context: StudyContext) -> Section:
    """Dense encoders of equal active and of equal total parameters compared with mixtures."""
    study = Study(context, "expert_number", "Study: number of experts", context.data.study)
    variants = expert_variants(context)
    results = study.probe(variants)
    seed = context.config.study.seeds[0]
    configs = {variant.title: run_of(context, variant, seed).config for variant in variants}
    sizes = {title: encoder_parameters(config) for title, config in configs.items()}
    more = {
        "experts": {title: _experts(config) for title, config in configs.items()},
        "widths": {title: f"{config.expert_widths[0]}–{config.expert_widths[-1]}" for title, config in configs.items()},
        "encoder parameters": {title: size.total for title, size in sizes.items()},
        "active": {title: size.active for title, size in sizes.items()},
    }
    reference = variants[0].title
    compared = {variant.name: results.compare(reference, variant.title) for variant in variants[1:]}
    claims = {
        f"{reference} are better than a dense encoder of equal {kind} parameters": compared[f"dense_{kind}"]
        for kind in KINDS
        if f"dense_{kind}" in compared
    }
    table = results.table("expert_number", "Number of experts", "encoder", reference, more)
    tables = [*study.claims(claims), table, _losses(context, variants)]
    remark = f"The decoder is the same in all. {_dense_words(sizes, reference)}"
    picture = study.figure_of(results, "Probe score by number of experts")
    return study.section(list(compared.values()), tables, [picture], [remark])


def expert_variants(context: StudyContext) -> list[Variant]:
    """The recipe's mixture first, then the same with one expert a token, fixed numbers of experts, and dense ones."""
    model = recipe_model(context)
    mixture = f"{_experts(model)} experts, top {model.k}"
    other = 1 if model.k > 1 else 2
    variants = [
        variant_of(context, "experts", mixture),
        variant_of(context, f"experts_top{other}", f"{_experts(model)} experts, top {other}", model__k=other),
    ]
    for count in context.config.study.experts:
        if model.k < count and set(model.experts) != {count}:
            name, title = f"experts_{count}", f"{count} experts, top {model.k}"
            variants.append(variant_of(context, name, title, model__experts=[count] * model.depth))
    for kind in KINDS:
        first, last = dense_widths(model, kind)
        variants.append(
            variant_of(context, f"dense_{kind}", f"dense, equal {kind} parameters", model__experts=[1] * model.depth,
                   model__dfirsth=first, model__dlasth=last)
        )  # fmt: skip
    return variants


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
        kind: "active" for those used by one token, "total" for all of them.
    """
    dim, depth = config.embed_dim, config.depth
    wanted = np.array([
        layer_parameters(dim, width, experts, (config.k if kind == "active" else experts) if experts > 1 else 1)
        for width, experts in zip(config.expert_widths, config.experts, strict=True)
    ])  # fmt: skip
    most = (max(config.experts) + 2) * max(config.expert_widths) // 3 + dim  # an upper bound of a block's units
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
    """How many parameters the dense encoders have, and how many they should have."""
    dense = [size.total for title, size in sizes.items() if title.startswith("dense")]
    parts = [
        f"{count:,} for the {getattr(sizes[reference], kind):,} {kind} ones"
        for count, kind in zip(dense, KINDS, strict=True)
    ]
    return (
        f"Widths of dense layers are whole numbers that grow evenly, so the parameters of {reference} are met within "
        f"{100 * NEAR:g} %: {' and '.join(parts)}."
    )


def _losses(context: StudyContext, variants: Sequence[Variant]) -> Table:
    losses = {variant.title: [run[MODEL] for run in masked_losses(context, variant)] for variant in variants}
    reference = variants[0].title
    rows = [
        [title, figure_of(runs), None if title == reference else figure_of(minus(runs, losses[reference]))]
        for title, runs in losses.items()
    ]
    columns = ["encoder", "masked loss", f"minus {reference}"]
    note = "Squared error summed over a patch's values, z-scores; lower is better. Brackets: 95 % intervals."
    title, where = "Number of experts, reconstruction", context.data.study.measured_on()
    return Table("study_expert_number_loss", title, columns, rows, where, note)
