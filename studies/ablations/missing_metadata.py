"""What an encoder should be told where metadata are missing: a pair never seen, a pair seen in training, a token."""

from studies.ablations.figures import plot_groups
from studies.ablations.metadata import has_metadata
from studies.ablations.variants import Arm, How, arm_of, probe, recipe_value, run_of
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
from studies.engine.context import Bench
from studies.report_parts.sections import Section
from training.recipe import DEFAULT_METADATA_DROPOUT

CONDITIONS = ("given", "missing")


def missing_metadata_section(bench: Bench) -> Section:
    """Three ways to stand for missing metadata, described with and without them."""
    title, source = "Study: missing metadata", bench.data.study
    if not has_metadata(source):
        return Section(title, [f"Not run: {source.patches()} have no metadata."])
    arms, pool = missing_arms(bench), bench.config.study.pool
    results = {how: {arm.title: probe(bench, arm, How(pool, how)) for arm in arms} for how in CONDITIONS}
    reference = arms[0].title
    heading = {"given": "Metadata given in describing", "missing": "Metadata missing in describing"}
    tables = [
        score_table(bench, f"missing_metadata_{how}", heading[how], results[how], reference, first="for missing ones")
        for how in CONDITIONS
    ]
    shown = {f"{how} in describing": shown_scores(bench, results[how]) for how in CONDITIONS}
    picture = figure(
        bench, "missing_metadata", shown, lambda: plot_groups(shown, headline_title(source)),
        f"What a probe scores by what stands for missing metadata: {source.measured_on()}.",
    )  # fmt: skip
    said = summary(
        [
            compare(bench, (f"{arm.title} ({how})", results[how][arm.title]), (reference, results[how][reference]))
            for how in reversed(CONDITIONS)
            for arm in arms[1:]
        ]
    )
    claims = {
        claim: compare(bench, *((arm.title, results["missing"][arm.title]) for arm in pair))
        for claim, pair in {
            "seeing missing metadata in pretraining helps where they are missing": (arms[1], arms[0]),
            "a learned token for missing metadata is better than the pair (0, 0)": (arms[2], arms[1]),
        }.items()
    }
    config = run_of(bench, arms[2], bench.config.study.seeds[0]).config
    said.append(f"The token adds {len(config.meta_fields) * config.embed_dim:,} parameters, one vector a field.")
    return Section(title, [*said, *recipe_words(bench)], [claims_of(bench, "missing_metadata", claims), *tables],
                   [picture])  # fmt: skip


def missing_arms(bench: Bench) -> list[Arm]:
    """As published, with metadata dropout, and with a learned token as well."""
    share = recipe_value(bench, "training.metadata_dropout") or DEFAULT_METADATA_DROPOUT
    return [
        arm_of(bench, "pair_unseen", "pair (0, 0), never seen", model__missing_metadata="pair",
               training__metadata_dropout=0.0),
        arm_of(bench, "pair_seen", f"pair (0, 0), seen in {100 * share:g} %", model__missing_metadata="pair",
               training__metadata_dropout=share),
        arm_of(bench, "token", f"learned token, seen in {100 * share:g} %", model__missing_metadata="token",
               training__metadata_dropout=share),
    ]  # fmt: skip
