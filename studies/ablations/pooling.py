"""Which pooling of an encoder's tokens represents patches best: CLS, means, metadata and CLS tokens, all tokens."""

from models.pooling import vector_width
from studies.ablations.study import ProbeResults, Study
from studies.ablations.variants import EmbeddingSpec, Variant, probe, recipe_variant, run_of, untrained_variant
from studies.comparison.main_table import POOL_TITLES
from studies.engine.context import StudyContext
from studies.report_parts.sections import Section


def pooling_section(context: StudyContext) -> Section:
    """The same encoder by every pooling of `study.pools`, beside an untrained one."""
    study, config = Study(context, "pooling", "Study: pooling", context.data.study), context.config.study

    def by_pool(variant: Variant) -> ProbeResults:
        return study.results({POOL_TITLES[pool]: probe(context, variant, EmbeddingSpec(pool)) for pool in config.pools})

    pretrained, untrained = by_pool(recipe_variant("pretrained")), by_pool(untrained_variant())
    model = run_of(context, recipe_variant(), config.seeds[0]).config
    more = {"features": {POOL_TITLES[pool]: vector_width(model, pool) for pool in config.pools}}
    reference, *others = pretrained.rows
    differences = [pretrained.compare(title, reference) for title in others]
    claims = {f"{title} gives a better representation than {reference}": one
              for title, one in zip(others, differences, strict=True)}  # fmt: skip
    differences += [
        pretrained.compare(title, title, untrained, (f"pretrained, {title}", f"untrained, {title}"))
        for title in pretrained.rows
    ]
    tables = [
        *study.claims(claims),
        pretrained.table("pooling", "Pooling, pretrained encoder", "pooling", reference, more),
        untrained.table("pooling_untrained", "Pooling, untrained encoder", "pooling", reference, more),
    ]
    both = {"pretrained": pretrained, "untrained": untrained}
    return study.section(differences, tables, [study.figure_of(both, "Probe score by pooling")])
