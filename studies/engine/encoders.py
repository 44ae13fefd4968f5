"""The encoders of the main tables: untrained, pretrained by the config's recipe, and those given."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from studies.engine.context import StudyContext
from studies.engine.data import Source
from studies.engine.embedding import Metadata
from studies.engine.runs import Run, SplitRepresentation
from studies.engine.scoring import Representation

MAIN, UNTRAINED = "main", "untrained"

IRRELEVANT = {"dropout": 0.0, "load_loss": None}
"""Fields of `ModelConfig` that change nothing about an untrained encoder."""


class Encoder(NamedTuple):
    """An encoder with all its seeds and folds."""

    name: str
    """For folders."""
    title: str
    """For tables."""
    seeds: tuple[int, ...]
    """Empty where it was not run."""
    run: Callable[[int, int], Run]
    """From seed and fold (of the main dataset) to the run."""

    def representation(
        self, context: StudyContext, source: Source, pool: str, seed: int, metadata: Metadata = "given"
    ) -> Representation:
        """Its embeddings; of another dataset than the main one by the run of the first fold."""

        def vectors(split: str, fold: int) -> SplitRepresentation:
            run = self.run(seed, fold if source is context.data.main else 0)
            return context.runs.embeddings(run, pool, split, source=source, fold=fold, metadata=metadata)

        return vectors


def main_runs(context: StudyContext) -> list[Run]:
    """The pretraining runs of the config's recipe, one a seed, on the main dataset's first fold."""
    encoder = next(one for one in encoders(context) if one.name == MAIN)
    return [encoder.run(seed, 0) for seed in encoder.seeds]


def first_seed(context: StudyContext) -> list[str]:
    """A sentence for results of one seed's run; none where no other seed was run."""
    first, *others = context.config.pretraining_seeds
    if not others:
        return []
    return [f"Measured on the pretraining run of seed {first} only, the first of {1 + len(others)}: the variation "
            "between seeds is not covered."]  # fmt: skip


def encoders(context: StudyContext) -> list[Encoder]:
    """Untrained, pretrained here, given: in the order of a table. Pretraining happens here, where it has not yet."""
    seeds, runs = tuple(context.config.pretraining_seeds), context.runs
    untrained = {seed: runs.untrained(seed=seed) for seed in seeds}
    found = [
        Encoder(UNTRAINED, "untrained encoder", seeds, lambda seed, fold: untrained[seed]),
        Encoder(MAIN, "this model", seeds, lambda seed, fold: runs.pretrained(seed=seed, fold=fold, quiet=False)),
    ]
    for name in context.config.checkpoints:
        given = runs.given(name)
        title = f"{name.replace('_', ' ')} weights"
        seeds_run = () if given is None else (0,)
        found.append(Encoder(f"given_{name}", title, seeds_run, partial(_given_run, given, name)))
    return found


def _given_run(run: Run | None, name: str, seed: int, fold: int) -> Run:
    """A given encoder, the same for every seed and fold."""
    if run is None:
        raise ValueError(f"checkpoints.{name} is not there: its encoder has no seeds to run")
    return run


def untrained_twin(context: StudyContext, encoder: Encoder) -> Encoder:
    """The untrained encoder of an encoder's own architecture: the tables' one where that is the same."""
    plain = encoders(context)[0]
    run, usual = (one.run(one.seeds[0], 0) for one in (encoder, plain))
    if run.config.replace(**IRRELEVANT) == usual.config.replace(**IRRELEVANT):
        return plain
    name = f"{UNTRAINED}_{encoder.name}"
    built = {seed: context.runs.untrained_of(run.config, run.masking, seed, name) for seed in plain.seeds}
    return Encoder(name, f"untrained encoder built as {encoder.title}", plain.seeds, lambda seed, fold: built[seed])


def trained(context: StudyContext) -> list[Encoder]:
    """Of `encoders` those that were pretrained, here or elsewhere, and are there."""
    return [one for one in encoders(context) if one.name != UNTRAINED and one.seeds]
