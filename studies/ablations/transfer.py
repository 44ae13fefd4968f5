"""Transfer to EuroSAT-Landsat, which has no metadata: the encoder gets what stands for missing ones."""

from studies.ablations.metadata import metadata_variants
from studies.ablations.missing_metadata import missing_variants
from studies.ablations.study import Study
from studies.ablations.variants import PROTOCOL, RECIPE, Variant, run_of, untrained_variant
from studies.comparison.baselines import baseline
from studies.comparison.main_table import STATISTICS
from studies.engine.context import StudyContext
from studies.engine.scoring import score
from studies.report_parts.sections import Section

TITLE = "Study: transfer to EuroSAT-Landsat"


def transfer_section(context: StudyContext) -> Section:
    """Encoders pretrained on the studies' patches, probed on EuroSAT-Landsat."""
    source = context.data.eurosat
    if source is None:
        return Section(TITLE, ["Not run: the config has no section eurosat."])
    study = Study(context, "transfer", TITLE, source)
    variants: dict[str, Variant] = {}  # those that coincide stand under the title of the first
    for variant in transfer_variants(context):
        variants.setdefault(variant.name, variant)
    width = run_of(context, untrained_variant(), context.config.study.seeds[0]).config.embed_dim
    simple = baseline(context, source, STATISTICS, width)
    statistics = [score(context, f"study/{STATISTICS.replace(' ', '_')}", PROTOCOL, simple, source=source)]
    results = study.results({**study.probe(variants.values()).rows, STATISTICS: statistics})
    reference = untrained_variant().title
    without = variants[transfer_variants(context)[-1].name].title
    with_metadata = [variant.title for variant in missing_variants(context) if variant.title != without]
    ours = (variants.get(RECIPE) or variants[missing_variants(context)[1].name]).title
    differences = [results.compare(title, reference) for title in results.rows if title != reference]
    differences += [results.compare(without, title) for title in with_metadata]
    claims = {
        "pretraining helps after transfer": results.compare(ours, reference),
        f"an encoder is better than {STATISTICS} after transfer": results.compare(ours, STATISTICS),
    }
    tables = [*study.claims(claims), results.table("transfer", "Transfer to EuroSAT-Landsat", "encoder", reference)]
    return study.section(differences, tables, [study.figure_of(results, "Probe score after transfer")])


def transfer_variants(context: StudyContext) -> list[Variant]:
    """An untrained encoder, those of the study of missing metadata, and one pretrained without any metadata."""
    without = metadata_variants(context)["without"]._replace(title="pretrained without metadata")
    return [untrained_variant(), *missing_variants(context), without]
