"""Variants of the recipe that the studies compare, and their metrics: probes, masked loss, expert usage.

Studies share variants, embeddings and scores where they coincide: each is made once (`studies.engine.stages`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import entr

from configs.schema import ModelSection
from eval.experts.routing import choices_by_image, record_routing
from eval.statistics.bootstrap import POSITIVE, SHARE, Resampled, of_runs
from eval.statistics.weighted_metrics import Statistic
from models.checkpoint import load_model
from models.config import ModelConfig
from models.moe_mae import MOEMAE
from studies.engine.context import StudyContext
from studies.engine.data import Source
from studies.engine.embedding import Metadata
from studies.engine.encoders import MAIN, UNTRAINED
from studies.engine.masked_losses import losses_over_folds
from studies.engine.runs import Run, SplitRepresentation
from studies.engine.scoring import Representation, Scored, score
from studies.report_parts.sections import Value
from training.recipe import DEFAULT_METADATA_DROPOUT

PROTOCOL = "strong_probe"
"""Of all studies."""

RECIPE = "recipe"


class Variant(NamedTuple):
    """A way to get an encoder."""

    name: str
    """For folders; RECIPE for what the studies' recipe gives unchanged, UNTRAINED for none."""
    title: str
    """For tables."""
    changes: Mapping[str, Any]
    """Keys of `configs.schema.Config` that differ from the studies' recipe."""


def variant_of(context: StudyContext, name: str, title: str, **changes: Any) -> Variant:
    """A variant by what it changes, `model__k=1` for `model.k`; the recipe's own where that changes nothing."""
    wanted = {key.replace("__", ".", 1): value for key, value in changes.items()}
    differing = {key: value for key, value in wanted.items() if recipe_value(context, key) != value}
    return Variant(name if differing else RECIPE, title, differing)


def recipe_variant(title: str = "") -> Variant:
    """What the studies' recipe gives unchanged."""
    return Variant(RECIPE, title, {})


def untrained_variant() -> Variant:
    """The weights that pretraining starts from."""
    return Variant(UNTRAINED, "untrained encoder", {})


def _recipe_section(context: StudyContext) -> ModelSection:
    keys = {key: value for key, value in context.study_overrides.items() if key.startswith("model.")}
    given = {key.removeprefix("model."): value for key, value in keys.items()}
    return ModelSection.model_validate({**context.config.model.model_dump(exclude_unset=True), **given})


def recipe_model(context: StudyContext) -> ModelConfig:
    """The model that the studies' recipe builds."""
    section, published = _recipe_section(context), bool(context.config.published_behaviour)
    return ModelConfig.of_size(section.size or "S", **{**section.numbers(), "published_behaviour": published})


def has_experts(context: StudyContext) -> bool:
    """Whether a block of the studies' model has several experts, so that there is a routing to study."""
    return any(count > 1 for count in recipe_model(context).experts)


def recipe_value(context: StudyContext, key: str) -> Any:
    """What the studies' recipe has for a key of `configs.schema.Config`, with defaults filled in."""
    section, name = key.split(".")
    model = recipe_model(context)
    if key == "model.load_loss":
        return "published" if model.published_load else "shazeer"
    masking = _recipe_section(context).masking()
    if (how := {"model.mask_ratio": masking.ratio, "model.mask_strategy": masking.strategy}.get(key)) is not None:
        return how
    if section == "model":
        value = getattr(model, name)
        return list(value) if isinstance(value, tuple) else value
    value = context.study_overrides.get(key, getattr(getattr(context.config, section), name))
    if value is None and name == "metadata_dropout":
        return 0.0 if model.published_behaviour else DEFAULT_METADATA_DROPOUT
    return value


def run_of(context: StudyContext, variant: Variant, seed: int, fold: int = 0) -> Run:
    """The variant's encoder; pretraining happens here, where it has not yet."""
    source = context.data.study
    if variant.name == UNTRAINED:
        model = {key: value for key, value in context.study_overrides.items() if key.startswith("model.")}
        return context.runs.untrained(model, seed, f"study/{UNTRAINED}" if model else UNTRAINED)
    overrides = {**context.study_overrides, **variant.changes}
    name = f"study/{variant.name}" if overrides or source is not context.data.main else MAIN
    return context.runs.pretrained(overrides, seed, name, source=source, fold=fold)


# --------------------------------------------------------------------------- probes


class EmbeddingSpec(NamedTuple):
    """How an encoder embeds patches: pooling, metadata and noise."""

    pool: str
    metadata: Metadata = "given"
    noise: int | None = None
    """Seed of routing noise."""
    bands: str | None = None
    """Those that the encoder is given, a key of `transformation.augmentations.BAND_SETS`; None: all."""

    @property
    def name(self) -> str:
        """For folders."""
        noise = "" if self.noise is None else f"_noise{self.noise}"
        bands = "" if self.bands is None else f"_{self.bands}"
        return f"{self.pool}{'' if self.metadata == 'given' else f'_{self.metadata}'}{noise}{bands}"


def representation(
    context: StudyContext, variant: Variant, seed: int, spec: EmbeddingSpec, source: Source | None = None
) -> Representation:
    """A variant's embeddings; of another dataset than the studies' by the encoder of the first fold."""
    source = source or context.data.study

    def vectors(split: str, fold: int) -> SplitRepresentation:
        run = run_of(context, variant, seed, fold if source is context.data.study else 0)
        return context.runs.embeddings(
            run,
            spec.pool,
            split,
            source=source,
            fold=fold,
            metadata=spec.metadata,
            noise=spec.noise,
            bands=spec.bands,
        )

    return vectors


def probe(context: StudyContext, variant: Variant, spec: EmbeddingSpec, source: Source | None = None) -> list[Scored]:
    """What a probe scores on a variant's vectors, for every seed."""
    source = source or context.data.study
    return [
        score(
            context,
            f"study/{variant.name}/seed{seed}/{spec.name}",
            PROTOCOL,
            representation(context, variant, seed, spec, source),
            source=source,
        )
        for seed in context.config.study.seeds
    ]


# --------------------------------------------------------------------------- masked loss and use of the experts


def masked_losses(
    context: StudyContext, variant: Variant, mask_ratio: float | None = None
) -> list[dict[str, Resampled]]:
    """For every seed: masked loss on the test patches of the model (`masked_losses.MODEL`) and of the baselines.

    Args:
        context: config, data and stages of this reproduction.
        variant: whose encoder and decoder.
        mask_ratio: to measure at; None is the variant's own.
    """
    source = context.data.study

    def losses(seed: int) -> dict[str, Resampled]:
        runs = [run_of(context, variant, seed, fold) for fold in range(len(source.folds))]
        own = runs[0].masking.ratio
        ratio = own if mask_ratio is None else mask_ratio

        def load(run: Run) -> MOEMAE:
            return load_model(run.checkpoint, {"mask_ratio": ratio}, device=context.runs.device)

        at = "" if ratio == own else f"/mask{round(100 * ratio)}"
        name = f"study_loss/{variant.name}/seed{seed}{at}"
        return losses_over_folds(context, name, source, runs, {"mask_ratio": ratio}, load)

    return [losses(seed) for seed in context.config.study.seeds]


USAGE_TITLES = {
    "entropy": "entropy of usage, share of maximum",
    "cv": "CV of usage",
    "smallest": "smallest share of an expert, %",
}
"""What `expert_usage_statistics` finds: means over the blocks, the smallest share over all of them."""

USAGE_LIMITS = {"entropy": SHARE, "cv": POSITIVE, "smallest": (0.0, 100.0)}


def expert_usage_statistics(context: StudyContext, variant: Variant) -> list[dict[str, Resampled]]:
    """For every seed: how evenly the experts are chosen on whole test patches of the first fold, without noise."""
    source = context.data.study

    def use(seed: int) -> dict[str, Resampled]:
        run = run_of(context, variant, seed)

        def find() -> tuple[dict[str, Statistic], np.ndarray]:
            record = record_routing(context.runs.model(run), source.loader("test", context.runs.device, run.config))
            counts = [choices_by_image(one.expert_idx, one.experts) for one in record.blocks]
            return usage_statistics(counts), source.blocks(record.ids)

        inputs = {"weights": run.digest, "data": source.digest("test", run.config)}
        return context.resampled(f"study_usage/{variant.name}/seed{seed}", inputs, find, limits=USAGE_LIMITS)

    return [use(seed) for seed in context.config.study.seeds]


def usage_statistics(counts: Sequence[np.ndarray]) -> dict[str, Statistic]:
    """The figures of `USAGE_TITLES` from (n, E) choices of each expert by image, one array a block."""

    def of_shares(figure: Callable[[np.ndarray], float], over: Callable[[list[float]], float]) -> Statistic:
        def statistic(weights: np.ndarray) -> float:
            totals = [weights @ block for block in counts]
            return float(over([figure(total / total.sum()) for total in totals]))

        return statistic

    return {
        "entropy": of_shares(usage_entropy, np.mean),
        "cv": of_shares(usage_cv, np.mean),
        "smallest": of_shares(lambda shares: 100.0 * shares.min(), min),
    }


def usage_entropy(shares: np.ndarray) -> float:
    """Entropy of (E,) shares over ln E: 1 uses all experts equally."""
    return float(entr(shares).sum() / np.log(len(shares)))


def usage_cv(shares: np.ndarray) -> float:
    """Population standard deviation over mean of (E,) shares: 0 uses all experts equally."""
    return float(shares.std() / shares.mean())


def figure_of(runs: Sequence[Resampled], digits: int = 2) -> Value:
    """The mean of runs with its interval, for a table's cell; for a paired difference give differences."""
    return Value.of(of_runs(runs), digits=digits)


def minus(first: Sequence[Resampled], second: Sequence[Resampled]) -> list[Resampled]:
    """Paired differences, seed by seed."""
    return [one.minus(other) for one, other in zip(first, second, strict=True)]
