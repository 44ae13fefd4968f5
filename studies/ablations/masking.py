"""How much to mask in pretraining."""

from eval.statistics.bootstrap import Resampled
from studies.ablations.figures import plot_curves
from studies.ablations.study import ProbeResults, Study
from studies.ablations.variants import figure_of, masked_losses, minus, recipe_value, variant_of
from studies.ablations.wording import PairedDifference
from studies.comparison.reconstruction import BASELINE_TITLES
from studies.engine.context import StudyContext
from studies.engine.masked_losses import MODEL
from studies.engine.scoring import METRIC_TITLES, difference, headline
from studies.report_parts.sections import Cell, Section, Table


def masking_section(context: StudyContext) -> Section:
    """One variant for every ratio of `study.mask_ratios`; the recipe's own is always among them."""
    study = Study(context, "masking", "Study: mask ratio", context.data.study)
    own: float = recipe_value(context, "model.mask_ratio")
    ratios = sorted({f"{ratio:g}": ratio for ratio in (*context.config.study.mask_ratios, own)}.values())
    variants = {
        ratio: variant_of(context, variant_name(ratio), _title(ratio), model__mask_ratio=ratio) for ratio in ratios
    }
    results = study.probe(variants.values())
    losses = {ratio: masked_losses(context, variant, own) for ratio, variant in variants.items()}
    shown = {METRIC_TITLES[headline(study.source)]: list(results.intervals().values())}
    picture = study.figure(
        [shown, ratios],
        lambda: plot_curves(shown, [100 * ratio for ratio in ratios], "masked in pretraining, %", study.axis),
        "Probe score by the share of patches masked in pretraining",
    )

    def compare(ratio: float, other: float) -> PairedDifference:
        return results.compare(_title(ratio), _title(other), names=(f"{_title(ratio)} masked", _title(other)))

    others = [ratio for ratio in ratios if ratio != own]
    claims = {f"masking {_title(own)} is better than masking {_title(ratio)}": compare(own, ratio) for ratio in others}
    tables = [*study.claims(claims), _table(results, losses, own)]
    return study.section([compare(ratio, own) for ratio in others], tables, [picture])


def variant_name(ratio: float) -> str:
    """In thousandths, and in full where it is no whole number of them: "mask_0500", "mask_0_5001"."""
    thousandths = round(1000 * ratio)
    whole = f"{thousandths / 1000:g}" == f"{ratio:g}"
    return f"mask_{thousandths:04d}" if whole else f"mask_{ratio:g}".replace(".", "_").replace("-", "_")


def _title(ratio: float) -> str:
    return f"{100 * ratio:g} %"


def _table(results: ProbeResults, losses: dict[float, list[dict[str, Resampled]]], own: float) -> Table:
    metric, shown = headline(results.source), results.intervals()
    rows: list[list[Cell]] = []
    for ratio, runs in losses.items():
        title, loss = _title(ratio), [run[MODEL] for run in runs]
        gaps: list[Cell] = [None, None]
        if ratio != own:
            probes, reference = results.rows[title], results.rows[_title(own)]
            gaps = [difference(results.context, probes, reference, metric),
                    figure_of(minus(loss, [run[MODEL] for run in losses[own]]))]  # fmt: skip
        rows.append([title, shown[title], gaps[0], figure_of(loss), gaps[1]])
    for name, title in BASELINE_TITLES.items():
        rows.append([title, None, None, figure_of([losses[own][0][name]]), None])
    title, percent = METRIC_TITLES[metric], _title(own)
    columns = ["masked in pretraining", title, f"minus {percent}", f"masked loss at {percent}",
               f"minus {percent}, loss"]  # fmt: skip
    note = (
        f"{title} in per cent. Masked loss: squared error summed over a patch's values, z-scores, lower is better, "
        f"always measured with {percent} masked, so that rows can be compared. Brackets: 95 % intervals."
    )
    return Table("study_masking", "Mask ratio", columns, rows, results.source.measured_on(), note)
