"""What stands for missing metadata: a pair never seen in pretraining, a pair seen there, a learned token."""

from studies.ablations.study import Study
from studies.ablations.variants import EmbeddingSpec, Variant, recipe_value, run_of, variant_of
from studies.engine.context import StudyContext
from studies.engine.embedding import Metadata
from studies.report_parts.sections import Section
from training.recipe import DEFAULT_METADATA_DROPOUT

CONDITIONS: tuple[Metadata, ...] = ("given", "missing")


def missing_metadata_section(context: StudyContext) -> Section:
    """Three ways to stand for missing metadata, embedded with and without metadata."""
    study = Study(context, "missing_metadata", "Study: missing metadata", context.data.study)
    if not study.source.has_metadata:
        return study.not_run(f"{study.source.patches()} have no metadata.")
    variants, pool = missing_variants(context), context.config.study.pool
    results = {condition: study.probe(variants, EmbeddingSpec(pool, condition)) for condition in CONDITIONS}
    unseen, seen, token = (variant.title for variant in variants)
    differences = [
        results[condition].compare(title, unseen, names=(f"{title} ({condition})", unseen))
        for condition in reversed(CONDITIONS)
        for title in (seen, token)
    ]
    claims = {
        "seeing missing metadata in pretraining helps where they are missing": (seen, unseen),
        "a learned token for missing metadata is better than the pair (0, 0)": (token, seen),
    }
    tables = study.claims({claim: results["missing"].compare(*pair) for claim, pair in claims.items()})
    tables += [
        one.table(f"missing_metadata_{condition}", f"Metadata {condition} in embedding", "missing metadata", unseen)
        for condition, one in results.items()
    ]
    figures = [study.figure_of({f"{condition} in describing": one for condition, one in results.items()},
                               "Probe score by what stands for missing metadata")]  # fmt: skip
    model = run_of(context, variants[2], context.config.study.seeds[0]).config
    remark = f"The token adds {len(model.meta_fields) * model.embed_dim:,} parameters, one vector per metadata field."
    return study.section(differences, tables, figures, [remark])


def missing_variants(context: StudyContext) -> list[Variant]:
    """As published, with metadata dropout, and with a learned token as well."""
    share = recipe_value(context, "training.metadata_dropout") or DEFAULT_METADATA_DROPOUT
    return [
        variant_of(context, "pair_unseen", "pair (0, 0), never seen", model__missing_metadata="pair",
                   training__metadata_dropout=0.0),
        variant_of(context, "pair_seen", f"pair (0, 0), seen in {100 * share:g} %", model__missing_metadata="pair",
                   training__metadata_dropout=share),
        variant_of(context, "token", f"learned token, seen in {100 * share:g} %", model__missing_metadata="token",
                   training__metadata_dropout=share),
    ]  # fmt: skip
