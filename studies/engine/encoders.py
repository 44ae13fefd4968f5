"""The encoders of the main tables: untrained, pretrained by the config's recipe, and those given."""

from collections.abc import Callable
from typing import NamedTuple

from studies.engine.context import Bench
from studies.engine.data import Source
from studies.engine.runs import Run
from studies.engine.scoring import Describe

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

    def describe(self, bench: Bench, source: Source, pool: str, seed: int) -> Describe:
        """Its vectors as a description; on another dataset than the main one by the run of the first fold."""

        def vectors(split: str, fold: int):
            run = self.run(seed, fold if source is bench.data.main else 0)
            return bench.runs.embeddings(run, pool, split, source=source, fold=fold)

        return vectors


def main_runs(bench: Bench) -> list[Run]:
    """The pretraining runs of the config's recipe, one a seed, on the main dataset's first fold."""
    encoder = next(one for one in encoders(bench) if one.name == MAIN)
    return [encoder.run(seed, 0) for seed in encoder.seeds]


def first_seed(bench: Bench) -> list[str]:
    """A sentence for what is looked at in the run of one seed only; none where no other seed was run."""
    first, *others = bench.config.pretraining_seeds
    if not others:
        return []
    return [f"Looked at in the pretraining run of seed {first} only, the first of {1 + len(others)}: what other seeds "
            "would give is not known."]  # fmt: skip


def encoders(bench: Bench) -> list[Encoder]:
    """Untrained, pretrained here, given: in the order of a table. Pretraining happens here, where it has not yet."""
    seeds, runs = tuple(bench.config.pretraining_seeds), bench.runs
    untrained = {seed: runs.untrained(seed=seed) for seed in seeds}
    found = [
        Encoder(UNTRAINED, "untrained encoder", seeds, lambda seed, fold: untrained[seed]),
        Encoder(MAIN, "this model", seeds, lambda seed, fold: runs.pretrained(seed=seed, fold=fold, quiet=False)),
    ]
    for name in bench.config.checkpoints:
        given = runs.given(name)
        title = f"{name.replace('_', ' ')} weights"
        found.append(Encoder(f"given_{name}", title, () if given is None else (0,), lambda seed, fold, run=given: run))
    return found


def untrained_twin(bench: Bench, encoder: Encoder) -> Encoder:
    """The untrained encoder of an encoder's own architecture: the tables' one where that is the same."""
    plain = encoders(bench)[0]
    run, usual = (one.run(one.seeds[0], 0) for one in (encoder, plain))
    if run.config.replace(**IRRELEVANT) == usual.config.replace(**IRRELEVANT):
        return plain
    name = f"{UNTRAINED}_{encoder.name}"
    built = {seed: bench.runs.untrained_of(run.config, run.masking, seed, name) for seed in plain.seeds}
    return Encoder(name, f"untrained encoder built as {encoder.title}", plain.seeds, lambda seed, fold: built[seed])


def trained(bench: Bench) -> list[Encoder]:
    """Of `encoders` those that were pretrained, here or elsewhere, and are there."""
    return [one for one in encoders(bench) if one.name != UNTRAINED and one.seeds]
