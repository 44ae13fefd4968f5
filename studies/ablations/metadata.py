"""Whether metadata help: on or off in pretraining; given, missing or shuffled in embedding."""

from typing import get_args

import numpy as np

from eval.probing.representation import Vectors
from studies.ablations.study import ProbeResults, Study
from studies.ablations.variants import PROTOCOL, EmbeddingSpec, Variant, probe, representation, variant_of
from studies.ablations.wording import PairedDifference
from studies.comparison.baselines import baseline
from studies.engine.context import StudyContext
from studies.engine.data import Source
from studies.engine.embedding import Metadata
from studies.engine.runs import SplitRepresentation
from studies.engine.scoring import Representation, Scored, score
from studies.report_parts.sections import Section

METADATA = "metadata"


def metadata_section(context: StudyContext) -> Section:
    """Encoders pretrained with and without metadata, each conditioned on a patch's own, no, or another's metadata."""
    study = Study(context, "metadata", "Study: metadata", context.data.study)
    if not study.source.has_metadata:
        return study.not_run(f"{study.source.patches()} have no metadata.")
    variants, pool = metadata_variants(context), context.config.study.pool
    rows = {
        f"{variant.title}; {metadata}": probe(context, variant, EmbeddingSpec(pool, metadata))
        for variant in variants.values()
        for metadata in get_args(Metadata)
    }
    numbers = baseline(context, study.source, METADATA, 1)
    width = numbers("test", 0).vectors.x.shape[1]
    concatenated = f"{variants['without'].title}; missing, the {width} numbers beside"
    rows[concatenated] = _concatenated(context, study.source, variants["without"], numbers)
    results = study.results(rows)
    claims = _claims(results, variants, concatenated)
    tables = [*study.claims(claims),
              results.table("metadata", "Metadata in pretraining; in embedding", "encoder")]  # fmt: skip
    remark = (
        "A probe is fitted and tested under the same condition; shuffled metadata are those of another patch of the "
        "split. An encoder pretrained without metadata has never been conditioned on any: given ones are new to it. "
        f"The last row concatenates the embedding and the {width} metadata features."
    )
    figures = [study.figure_of(results, "Probe score, by metadata in pretraining; in embedding")]
    return study.section(list(claims.values()), tables, figures, [remark])


def metadata_variants(context: StudyContext) -> dict[str, Variant]:
    """With metadata as the recipe has them, and without any."""
    return {
        "with": variant_of(context, "metadata_on", "pretrained with metadata"),
        "without": variant_of(context, "metadata_off", "pretrained without", training__metadata_dropout=1.0),
    }


def _claims(results: ProbeResults, variants: dict[str, Variant], concatenated: str) -> dict[str, PairedDifference]:
    def row(variant: str, metadata: str) -> str:
        return f"{variants[variant].title}; {metadata}"

    conditioned = row("with", "given")
    pairs = {
        "metadata help in embedding": (conditioned, row("with", "missing")),
        "a patch's own metadata help more than another patch's": (conditioned, row("with", "shuffled")),
        "metadata help, in pretraining and embedding together": (conditioned, row("without", "missing")),
        "metadata in pretraining help where they are missing in embedding":
            (row("with", "missing"), row("without", "missing")),
        "an encoder conditioned on metadata is better than a probe on embeddings and metadata":
            (conditioned, concatenated),
    }  # fmt: skip
    return {claim: results.compare(*pair) for claim, pair in pairs.items()}


def _concatenated(context: StudyContext, source: Source, variant: Variant, numbers: Representation) -> list[Scored]:
    """A probe on embeddings without metadata, concatenated with the metadata's numbers."""
    pool = context.config.study.pool

    def both(seed: int) -> Representation:
        vectors = representation(context, variant, seed, EmbeddingSpec(pool, "missing"))
        return lambda split, fold: joined(vectors(split, fold), numbers(split, fold))

    return [
        score(context, f"study/{variant.name}/seed{seed}/{pool}_missing_beside", PROTOCOL, both(seed), source=source)
        for seed in context.config.study.seeds
    ]


def joined(first: SplitRepresentation, second: SplitRepresentation) -> SplitRepresentation:
    """Two representations of the same patches concatenated, the second's rows in the order of the first's.

    Raises:
        KeyError: when the second lacks a patch of the first.
    """
    row_of = {patch_id: row for row, patch_id in enumerate(second.vectors.ids)}
    rows = [row_of[patch_id] for patch_id in first.vectors.ids]
    x = np.hstack([first.vectors.x, second.vectors.x[rows]])
    vectors = Vectors(x, first.vectors.y, first.vectors.ids)
    return SplitRepresentation(vectors, f"{first.digest}+{second.digest}")
