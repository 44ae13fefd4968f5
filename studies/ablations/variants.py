"""Ways to pretrain that the studies compare, and what is measured of each: probes, masked loss, use of the experts.

Arms, embeddings and scores are shared by all studies where they coincide: each is made once (`studies.engine.stages`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from configs.schema import ModelSection
from eval.experts.routing import choices_by_image, record_routing
from eval.statistics.bootstrap import POSITIVE, SHARE, Resampled, of_runs
from eval.statistics.weighted_metrics import Statistic
from models.checkpoint import load_model
from models.config import ModelConfig
from models.moe_mae import MOEMAE
from studies.engine.context import Bench
from studies.engine.data import Source
from studies.engine.embedding import Metadata
from studies.engine.encoders import MAIN, UNTRAINED
from studies.engine.masked_losses import losses_over_folds
from studies.engine.resampling import resampled_stage
from studies.engine.runs import Run
from studies.engine.scoring import Describe, Scored, score
from studies.report_parts.sections import Value
from training.recipe import DEFAULT_METADATA_DROPOUT

PROTOCOL = "strong_probe"
"""Of all studies."""

RECIPE = "recipe"


class Arm(NamedTuple):
    """A way to get an encoder."""

    name: str
    """For folders; RECIPE for what the studies' recipe gives unchanged, UNTRAINED for none."""
    title: str
    """For tables."""
    changes: Mapping[str, Any]
    """Keys of `configs.schema.Config` that differ from the studies' recipe."""


def arm_of(bench: Bench, name: str, title: str, **changes: Any) -> Arm:
    """An arm by what it changes, `model__k=1` for `model.k`; the recipe's own arm where that changes nothing."""
    wanted = {key.replace("__", ".", 1): value for key, value in changes.items()}
    differing = {key: value for key, value in wanted.items() if recipe_value(bench, key) != value}
    return Arm(name if differing else RECIPE, title, differing)


def untrained_arm() -> Arm:
    """The weights that pretraining starts from."""
    return Arm(UNTRAINED, "untrained encoder", {})


def _recipe_section(bench: Bench) -> ModelSection:
    keys = {key: value for key, value in bench.short.items() if key.startswith("model.")}
    given = {key.removeprefix("model."): value for key, value in keys.items()}
    return ModelSection.model_validate({**bench.config.model.model_dump(exclude_unset=True), **given})


def recipe_model(bench: Bench) -> ModelConfig:
    """The model that the studies' recipe builds."""
    section, published = _recipe_section(bench), bool(bench.config.published_behaviour)
    return ModelConfig.of_size(section.size or "S", **{**section.numbers(), "published_behaviour": published})


def recipe_value(bench: Bench, key: str) -> Any:
    """What the studies' recipe has for a key of `configs.schema.Config`, with what is left open filled in."""
    section, name = key.split(".")
    model = recipe_model(bench)
    if key == "model.load_loss":
        return "published" if model.published_load else "shazeer"
    masking = _recipe_section(bench).masking()
    if (how := {"model.mask_ratio": masking.ratio, "model.mask_strategy": masking.strategy}.get(key)) is not None:
        return how
    if section == "model":
        value = getattr(model, name)
        return list(value) if isinstance(value, tuple) else value
    value = bench.short.get(key, getattr(getattr(bench.config, section), name))
    if value is None and name == "metadata_dropout":
        return 0.0 if model.published_behaviour else DEFAULT_METADATA_DROPOUT
    return value


def run_of(bench: Bench, arm: Arm, seed: int, fold: int = 0) -> Run:
    """The arm's encoder; pretraining happens here, where it has not yet."""
    source = bench.data.study
    if arm.name == UNTRAINED:
        model = {key: value for key, value in bench.short.items() if key.startswith("model.")}
        return bench.runs.untrained(model, seed, f"study/{UNTRAINED}" if model else UNTRAINED)
    overrides = {**bench.short, **arm.changes}
    name = f"study/{arm.name}" if overrides or source is not bench.data.main else MAIN
    return bench.runs.pretrained(overrides, seed, name, source=source, fold=fold)


# --------------------------------------------------------------------------- probes


class How(NamedTuple):
    """How patches are described by an encoder."""

    pool: str
    metadata: Metadata = "given"
    noise: int | None = None
    """Seed of routing noise."""

    @property
    def name(self) -> str:
        """For folders."""
        noise = "" if self.noise is None else f"_noise{self.noise}"
        return f"{self.pool}{'' if self.metadata == 'given' else f'_{self.metadata}'}{noise}"


def describe(bench: Bench, arm: Arm, seed: int, how: How, source: Source | None = None) -> Describe:
    """An arm's vectors as a description; on another dataset than the studies' by the encoder of the first fold."""
    source = source or bench.data.study

    def vectors(split: str, fold: int):
        run = run_of(bench, arm, seed, fold if source is bench.data.study else 0)
        return bench.runs.embeddings(
            run, how.pool, split, source=source, fold=fold, metadata=how.metadata, noise=how.noise
        )

    return vectors


def probe(bench: Bench, arm: Arm, how: How, source: Source | None = None) -> list[Scored]:
    """What a probe scores on an arm's vectors, for every seed."""
    source = source or bench.data.study
    return [
        score(
            bench,
            f"study/{arm.name}/seed{seed}/{how.name}",
            PROTOCOL,
            describe(bench, arm, seed, how, source),
            source=source,
        )
        for seed in bench.config.study.seeds
    ]


# --------------------------------------------------------------------------- masked loss and use of the experts


def masked_losses(bench: Bench, arm: Arm, mask_ratio: float | None = None) -> list[dict[str, Resampled]]:
    """For every seed: masked loss on the test patches of the model (`masked_losses.MODEL`) and of the baselines.

    Args:
        bench: where.
        arm: whose encoder and decoder.
        mask_ratio: to measure at; None is the arm's own.
    """
    source = bench.data.study

    def losses(seed: int) -> dict[str, Resampled]:
        runs = [run_of(bench, arm, seed, fold) for fold in range(len(source.folds))]
        own = runs[0].masking.ratio
        ratio = own if mask_ratio is None else mask_ratio

        def load(run: Run) -> MOEMAE:
            return load_model(run.checkpoint, {"mask_ratio": ratio}, device=bench.runs.device)

        at = "" if ratio == own else f"/mask{round(100 * ratio)}"
        name = f"study_loss/{arm.name}/seed{seed}{at}"
        return losses_over_folds(bench, name, source, runs, {"mask_ratio": ratio}, load)

    return [losses(seed) for seed in bench.config.study.seeds]


USAGE_TITLES = {
    "entropy": "entropy of usage, share of maximum",
    "cv": "CV of usage",
    "smallest": "smallest share of an expert, %",
}
"""What `expert_use` finds: means over the blocks, the smallest share over all of them."""

USAGE_LIMITS = {"entropy": SHARE, "cv": POSITIVE, "smallest": (0.0, 100.0)}


def expert_use(bench: Bench, arm: Arm) -> list[dict[str, Resampled]]:
    """For every seed: how evenly the experts are chosen on whole test patches of the first fold, without noise."""
    source = bench.data.study

    def use(seed: int) -> dict[str, Resampled]:
        run = run_of(bench, arm, seed)

        def find() -> tuple[dict[str, Statistic], np.ndarray]:
            record = record_routing(bench.runs.model(run), source.loader("test", bench.runs.device, run.config))
            counts = [choices_by_image(one.expert_idx, one.experts) for one in record.blocks]
            return use_statistics(counts), source.blocks(record.ids)

        inputs = {"weights": run.digest, "data": source.digest("test", run.config)}
        return resampled_stage(bench, f"study_usage/{arm.name}/seed{seed}", inputs, find, limits=USAGE_LIMITS)

    return [use(seed) for seed in bench.config.study.seeds]


def use_statistics(counts: Sequence[np.ndarray]) -> dict[str, Statistic]:
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
    """Entropy of (E,) shares over ln E: 1 uses all experts alike."""
    used = shares[shares > 0]
    return float(-(used * np.log(used)).sum() / np.log(len(shares)))


def usage_cv(shares: np.ndarray) -> float:
    """Population standard deviation over mean of (E,) shares: 0 uses all experts alike."""
    return float(shares.std() / shares.mean())


def figure_of(runs: Sequence[Resampled], digits: int = 2) -> Value:
    """The mean of runs with its interval, for a table's cell; for a paired difference give differences."""
    return Value(*of_runs(runs), digits=digits)


def minus(first: Sequence[Resampled], second: Sequence[Resampled]) -> list[Resampled]:
    """Paired differences, seed by seed."""
    return [one.minus(other) for one, other in zip(first, second, strict=True)]
