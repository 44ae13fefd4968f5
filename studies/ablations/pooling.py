"""How patches are best described by an encoder's tokens: CLS, means, metadata and CLS side by side, all."""

from models.pooling import vector_width
from studies.ablations.figures import plot_groups
from studies.ablations.variants import RECIPE, Arm, How, probe, run_of, untrained_arm
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
from studies.comparison.main_table import POOL_TITLES
from studies.engine.context import Bench
from studies.report_parts.sections import Section


def pooling_section(bench: Bench) -> Section:
    """The same encoder by every pool of `study.pools`, beside an untrained one."""
    study, source = bench.config.study, bench.data.study
    arm, reference = Arm(RECIPE, "pretrained", {}), study.pools[0]
    results = {POOL_TITLES[pool]: probe(bench, arm, How(pool)) for pool in study.pools}
    plain = {POOL_TITLES[pool]: probe(bench, untrained_arm(), How(pool)) for pool in study.pools}
    config = run_of(bench, arm, study.seeds[0]).config
    numbers = {POOL_TITLES[pool]: vector_width(config, pool) for pool in study.pools}
    tables = [
        score_table(bench, "pooling", "Pooling, pretrained encoder", results, POOL_TITLES[reference], first="pool",
                    more={"numbers": numbers}),
        score_table(bench, "pooling_untrained", "Pooling, untrained encoder", plain, POOL_TITLES[reference],
                    first="pool", more={"numbers": numbers}),
    ]  # fmt: skip
    others = [POOL_TITLES[pool] for pool in study.pools[1:]]
    first = POOL_TITLES[reference]
    said = [compare(bench, (name, results[name]), (first, results[first])) for name in others]
    claims = {
        f"patches are better described by {name} than by {first}": one for name, one in zip(others, said, strict=True)
    }
    said += [
        compare(bench, (f"pretrained, {name}", results[name]), (f"untrained, {name}", plain[name])) for name in results
    ]
    shown = {"pretrained": shown_scores(bench, results), "untrained": shown_scores(bench, plain)}
    picture = figure(
        bench, "pooling", shown, lambda: plot_groups(shown, headline_title(source)),
        f"What a probe scores by pool: {source.measured_on()}.",
    )  # fmt: skip
    tables = [claims_of(bench, "pooling", claims), *tables]
    return Section("Study: pooling", [*summary(said), *recipe_words(bench)], tables, [picture])
