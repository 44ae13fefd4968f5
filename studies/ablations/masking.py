"""How much to mask in pretraining."""

from studies.ablations.figures import plot_curves
from studies.ablations.variants import How, arm_of, figure_of, masked_losses, minus, probe, recipe_value
from studies.ablations.wording import claims_of, compare, figure, headline_title, recipe_words, summary
from studies.comparison.reconstruction import BASELINE_TITLES
from studies.engine.context import Bench
from studies.engine.masked_losses import MODEL
from studies.engine.scoring import METRIC_TITLES, Scored, difference, headline, interval
from studies.report_parts.sections import Section, Table


def masking_section(bench: Bench) -> Section:
    """One arm for every ratio of `study.mask_ratios`; the recipe's own is always among them."""
    source, own = bench.data.study, recipe_value(bench, "model.mask_ratio")
    ratios = sorted({f"{ratio:g}": ratio for ratio in (*bench.config.study.mask_ratios, own)}.values())
    arms = {ratio: arm_of(bench, arm_name(ratio), f"{100 * ratio:g} %", model__mask_ratio=ratio) for ratio in ratios}
    how = How(bench.config.study.pool)
    scores = {ratio: probe(bench, arm, how) for ratio, arm in arms.items()}
    losses = {ratio: masked_losses(bench, arm, own) for ratio, arm in arms.items()}
    table = _table(bench, scores, losses, own)
    metric = headline(source)
    shown = {METRIC_TITLES[metric]: [interval(bench, scores[ratio], metric) for ratio in ratios]}
    picture = figure(
        bench, "masking", [shown, ratios],
        lambda: plot_curves(shown, [100 * ratio for ratio in ratios], "masked in pretraining, %",
                            headline_title(source)),
        f"What a probe scores by the share of patches masked in pretraining: {source.measured_on()}.",
    )  # fmt: skip
    said = [
        compare(bench, (f"{100 * ratio:g} % masked", scores[ratio]), (f"{100 * own:g} %", scores[own]))
        for ratio in ratios
        if ratio != own
    ]
    claims = {
        f"masking {100 * own:g} % is better than masking {100 * ratio:g} %":
            compare(bench, (f"{100 * own:g} % masked", scores[own]), (f"{100 * ratio:g} %", scores[ratio]))
        for ratio in ratios if ratio != own
    }  # fmt: skip
    tables = [*([claims_of(bench, "masking", claims)] if claims else []), table]
    return Section("Study: mask ratio", [*summary(said), *recipe_words(bench)], tables, [picture])


def arm_name(ratio: float) -> str:
    """In thousandths, and in full where it is no whole number of them: "mask_0500", "mask_0_5001"."""
    thousandths = round(1000 * ratio)
    whole = f"{thousandths / 1000:g}" == f"{ratio:g}"
    return f"mask_{thousandths:04d}" if whole else f"mask_{ratio:g}".replace(".", "_").replace("-", "_")


def _table(bench: Bench, scores: dict[float, list[Scored]], losses: dict, own: float) -> Table:
    source, metric = bench.data.study, headline(bench.data.study)
    rows = []
    for ratio, scored in scores.items():
        ours = [run[MODEL] for run in losses[ratio]]
        score_gap = None if ratio == own else difference(bench, scored, scores[own], metric)
        loss_gap = None if ratio == own else figure_of(minus(ours, [run[MODEL] for run in losses[own]]))
        rows.append([f"{100 * ratio:g} %", interval(bench, scored, metric), score_gap, figure_of(ours), loss_gap])
    for name, title in BASELINE_TITLES.items():
        rows.append([title, None, None, figure_of([losses[own][0][name]]), None])
    title = METRIC_TITLES[metric]
    columns = ["masked in pretraining", title, f"minus {100 * own:g} %", f"masked loss at {100 * own:g} %",
               f"minus {100 * own:g} %, loss"]  # fmt: skip
    note = (
        f"{title} in per cent. Masked loss: squared error summed over a patch's values, z-scores, lower is better, "
        f"always measured with {100 * own:g} % masked, so that rows can be compared. Brackets: 95 % intervals."
    )
    return Table("study_masking", "Mask ratio", columns, rows, source.measured_on(), note)
