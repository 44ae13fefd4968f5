"""Whether metadata help: on or off in pretraining, given, missing or shuffled when patches are described."""

from typing import get_args

import numpy as np

from eval.probing.protocols import Vectors
from studies.ablations.figures import plot_groups
from studies.ablations.variants import PROTOCOL, Arm, How, arm_of, describe, probe
from studies.ablations.wording import (
    Compared,
    claims_of,
    compare,
    figure,
    headline_title,
    recipe_words,
    score_table,
    shown_scores,
    summary,
)
from studies.comparison.baselines import baseline
from studies.engine.context import Bench
from studies.engine.data import Source
from studies.engine.embedding import Metadata
from studies.engine.runs import Described
from studies.engine.scoring import Describe, Scored, score
from studies.report_parts.sections import Section

METADATA = "metadata"
BESIDE = "beside"


def metadata_section(bench: Bench) -> Section:
    """Encoders pretrained with and without metadata, each told the truth, nothing, or what is true of another patch."""
    source, title = bench.data.study, "Study: metadata"
    if not has_metadata(source):
        return Section(title, [f"Not run: {source.patches()} have no metadata."])
    arms = metadata_arms(bench)
    results = {
        f"{arm.title}; {metadata}": probe(bench, arm, How(bench.config.study.pool, metadata))
        for arm in arms.values()
        for metadata in get_args(Metadata)
    }
    beside = f"{arms['without'].title}; missing, the {_numbers(bench, source)} numbers beside"
    results[beside] = _with_numbers(bench, source, arms["without"])
    claims = _claims(bench, results, arms, beside)
    table = score_table(bench, "metadata", "Metadata in pretraining; in describing", results, first="encoder")
    shown = shown_scores(bench, results)
    picture = figure(
        bench, "metadata", shown, lambda: plot_groups({"": shown}, headline_title(source)),
        f"What a probe scores, by metadata in pretraining; in describing: {source.measured_on()}.",
    )  # fmt: skip
    said = summary(list(claims.values()))
    said.append(
        "A probe is fitted and tested under the same condition; shuffled metadata are those of another patch of the "
        "split. An encoder pretrained without metadata has never been told any: given ones are new to it."
    )
    return Section(title, [*said, *recipe_words(bench)], [claims_of(bench, "metadata", claims), table], [picture])


def metadata_arms(bench: Bench) -> dict[str, Arm]:
    """With metadata as the recipe has them, and without any."""
    return {
        "with": arm_of(bench, "metadata_on", "pretrained with metadata"),
        "without": arm_of(bench, "metadata_off", "pretrained without", training__metadata_dropout=1.0),
    }


def has_metadata(source: Source) -> bool:
    """Whether a dataset's patches have metadata."""
    return source.dataset("test").gather(range(1)).columns is not None


def _claims(bench: Bench, results: dict[str, list[Scored]], arms: dict[str, Arm], beside: str) -> dict[str, Compared]:
    def row(arm: str, metadata: str) -> str:
        return f"{arms[arm].title}; {metadata}"

    told = row("with", "given")
    pairs = {
        "metadata help in describing": (told, row("with", "missing")),
        "a patch's own metadata help more than another patch's": (told, row("with", "shuffled")),
        "metadata help, in pretraining and describing together": (told, row("without", "missing")),
        "metadata in pretraining help where they are missing in describing":
            (row("with", "missing"), row("without", "missing")),
        "the encoder makes more of metadata than a probe": (told, beside),
    }  # fmt: skip
    return {claim: compare(bench, (a, results[a]), (b, results[b])) for claim, (a, b) in pairs.items()}


def _numbers(bench: Bench, source: Source) -> int:
    return baseline(bench, source, METADATA, 1)("test", 0).vectors.x.shape[1]


def _with_numbers(bench: Bench, source: Source, arm: Arm) -> list[Scored]:
    """A probe on the vectors of an encoder that is told nothing, with the metadata's numbers beside them."""
    numbers, pool = baseline(bench, source, METADATA, 1), bench.config.study.pool

    def both(seed: int) -> Describe:
        vectors = describe(bench, arm, seed, How(pool, "missing"))
        return lambda split, fold: joined(vectors(split, fold), numbers(split, fold))

    return [
        score(bench, f"study/{arm.name}/seed{seed}/{pool}_missing_{BESIDE}", PROTOCOL, both(seed), source=source)
        for seed in bench.config.study.seeds
    ]


def joined(first: Described, second: Described) -> Described:
    """Two descriptions of the same patches side by side, the second's rows in the order of the first's.

    Raises:
        KeyError: when the second lacks a patch of the first.
    """
    row_of = {patch_id: row for row, patch_id in enumerate(second.vectors.ids)}
    rows = [row_of[patch_id] for patch_id in first.vectors.ids]
    x = np.hstack([first.vectors.x, second.vectors.x[rows]])
    vectors = Vectors(x, first.vectors.y, first.vectors.ids)
    return Described(vectors, f"{first.digest}+{second.digest}")
