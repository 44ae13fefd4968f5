"""Transfer to EuroSAT-Landsat, which has no metadata: every patch of it gets what stands for missing ones."""

from studies.ablations.figures import plot_groups
from studies.ablations.metadata import metadata_arms
from studies.ablations.missing_metadata import missing_arms
from studies.ablations.variants import PROTOCOL, RECIPE, Arm, How, probe, run_of, untrained_arm
from studies.ablations.wording import (
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
from studies.comparison.main_table import STATISTICS
from studies.engine.context import Bench
from studies.engine.scoring import score
from studies.report_parts.sections import Section


def transfer_section(bench: Bench) -> Section:
    """Encoders pretrained on the studies' patches, probed on EuroSAT-Landsat."""
    title, source = "Study: transfer to EuroSAT-Landsat", bench.data.eurosat
    if source is None:
        return Section(title, ["Not run: the config has no section eurosat."])
    how = How(bench.config.study.pool)
    arms: dict[str, Arm] = {}  # those that coincide stand under the title of the first
    for arm in transfer_arms(bench):
        arms.setdefault(arm.name, arm)
    results = {arm.title: probe(bench, arm, how, source) for arm in arms.values()}
    width = run_of(bench, untrained_arm(), bench.config.study.seeds[0]).config.embed_dim
    simple = baseline(bench, source, STATISTICS, width)
    results[STATISTICS] = [score(bench, f"study/{STATISTICS.replace(' ', '_')}", PROTOCOL, simple, source=source)]
    reference = untrained_arm().title
    table = score_table(bench, "transfer", "Transfer to EuroSAT-Landsat", results, reference, source, first="encoder")
    shown = shown_scores(bench, results, source)
    picture = figure(
        bench, "transfer", shown, lambda: plot_groups({"": shown}, headline_title(source)),
        f"What a probe scores after transfer: {source.measured_on()}.",
    )  # fmt: skip
    said = [
        compare(bench, (name, scored), (reference, results[reference]), source)
        for name, scored in results.items()
        if name != reference
    ]
    without = arms[transfer_arms(bench)[-1].name].title
    said += [
        compare(bench, (without, results[without]), (arm.title, results[arm.title]), source)
        for arm in missing_arms(bench)
        if arm.title != without
    ]
    ours = (arms.get(RECIPE) or arms[missing_arms(bench)[1].name]).title
    claims = {
        claim: compare(bench, (ours, results[ours]), (name, results[name]), source)
        for claim, name in {
            "pretraining helps after transfer": reference,
            f"an encoder is worth more than {STATISTICS} after transfer": STATISTICS,
        }.items()
    }
    tables = [claims_of(bench, "transfer", claims, source), table]
    return Section(title, [*summary(said), *recipe_words(bench)], tables, [picture])


def transfer_arms(bench: Bench) -> list[Arm]:
    """An untrained encoder, those of the study of missing metadata, and one pretrained without any."""
    without = metadata_arms(bench)["without"]._replace(title="pretrained without metadata")
    return [untrained_arm(), *missing_arms(bench), without]
