"""The ladder's report: its tables and figure, from the plain values of `studies.recipe.results`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.probing.protocols import PROTOCOL_TITLES
from studies.engine.context import StudyContext
from studies.recipe.results import INTERPOLATION
from studies.recipe.scores import LINEAR, NEAREST, NEAREST_SCALED
from studies.report_parts.figures import plot_intervals
from studies.report_parts.sections import Cell, Figure, Section, Table, Value
from utils.analysis_utils import save_figure
from utils.markdown import markdown_table


def sections_of(context: StudyContext, results: Mapping[str, Any]) -> list[Section]:
    """One section for the recipes, one for each setting, one for masked losses."""
    found = [_recipes(results)]
    found += [_setting(context, results, name) for name in results["settings"]]
    found.append(_losses(results))
    return found


SHOWN = (
    "image statistics", "metadata", "statistics + metadata", "random features",
    "random features + statistics + metadata", "random features + statistics + metadata + products",
    "random features of whitened pixels + statistics + metadata + products",
)  # fmt: skip
"""Baselines in the README's first table."""

FIRST = ("simulated_with_metadata", "real_with_metadata")
"""Settings in the README's first table, by linear probe; the second has all others."""

SHORT = {LINEAR: "linear", NEAREST_SCALED: "kNN-5"}


def summary(results: Mapping[str, Any]) -> str:
    """What README and evidence show, as Markdown: scores beside baselines, differences to the best baseline elsewhere,
    and what each step of the ladder adds, where any was pretrained.

    Args:
        results: of `results_of`.
    """
    encoders = [row for row in results["rows"] if row["kind"] == "encoder" and row["scores"]]
    weights = [row for row in encoders if row["seconds"] is None] or encoders
    parts = [_score_summary(results, weights), _difference_summary(results, weights)]
    steps = [row for row in encoders if row["seconds"] is not None]
    return "\n\n".join([*parts, *([_step_summary(results, steps)] if steps else [])]) + "\n"


def _first_settings(results: Mapping[str, Any], beside: str) -> tuple[list[str], list[str]]:
    """Those of `FIRST` that were scored, and two columns for each: its score, and what stands beside that."""
    settings = [name for name in FIRST if name in results["settings"]]
    titles = [results["settings"][name]["title"].removesuffix(", metadata given") for name in settings]
    return settings, [column for title in titles for column in (title, beside)]


def _score_summary(results: Mapping[str, Any], weights: Sequence[Mapping[str, Any]]) -> str:
    """Baselines and weights: linear probe, metadata given."""
    settings, columns = _first_settings(results, "minus the best baseline")
    lines = []
    for row in [*(row for row in results["rows"] if row["title"] in SHOWN), *weights]:
        found = [row["scores"].get(name, {}).get(LINEAR, {}) for name in settings]
        # Only the best baseline itself has a score and no difference to it.
        cells = [text for one in found for text in (_text(_value(one.get("score"))), _difference(one))]
        lines.append([row["title"], next(iter(row["scores"].values()))["features"], *cells])
    return markdown_table(["representation", "numbers", *columns], lines)


def _difference_summary(results: Mapping[str, Any], weights: Sequence[Mapping[str, Any]]) -> str:
    """All other settings and protocols: the best baseline of each, and by how much weights differ from it."""
    lines = []
    for name, about in results["settings"].items():
        for protocol, short in SHORT.items():
            if (name in FIRST and protocol == LINEAR) or not any(name in row["scores"] for row in weights):
                continue
            best = next(row for row in results["rows"] if row["title"] == about["best"][protocol])
            scored = f"{best['title']}: {best['scores'][name][protocol]['score'][0]:.1f}"
            found = [row["scores"].get(name, {}).get(protocol, {}).get("minus_best") for row in weights]
            lines.append([f"{about['title']}: {short}", scored, *(_text(_value(one)) for one in found)])
    return markdown_table(["setting", "best baseline", *(row["title"] for row in weights)], lines)


def _step_summary(results: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> str:
    """The rows that were pretrained: linear probe with metadata, minus the row it changes, masked loss, cost."""
    settings, columns = _first_settings(results, "to the row it changes")
    lines = []
    for row in steps:
        found = [row["scores"].get(name, {}).get(LINEAR, {}) for name in settings]
        cells = [_text(_value(one.get(key))) for one in found for key in ("score", "minus_before")]
        loss, minutes = row["masked_loss"]["simulated"]["model"][0], row["seconds"] / 60 / len(row["seeds"])
        lines.append([row["title"], len(row["seeds"]), *cells, f"{loss:.1f}", f"{minutes:.0f}"])
    return markdown_table(["row", "seeds", *columns, "masked loss, simulated", "minutes a seed"], lines)


def markdown(results: Mapping[str, Any]) -> str:
    """The main columns as Markdown, one table a setting.

    Args:
        results: of `results_of`.
    """
    parts = []
    for name in results["settings"]:
        about, table = results["settings"][name], _score_table(results, name)
        kept = [0, 1, 2, 3, 4, 7, len(table.columns) - 1]
        text = markdown_table(
            [table.columns[at] for at in kept], ([_text(row[at]) for at in kept] for row in table.rows)
        )
        parts.append(f"**{about['title'].capitalize()}** ({about['measured_on']}):\n\n{text}\n")
    return "\n".join(parts)


def _recipes(results: Mapping[str, Any]) -> Section:
    titles = {row["name"]: row["title"] for row in results["rows"]}
    rows: list[list[Cell]] = []
    for row in results["rows"]:
        if row["kind"] == "encoder":
            changed = "; ".join(f"{key}: {value}" for key, value in row["change"].items())
            minutes = None if row["seconds"] is None else Value(row["seconds"] / 60 / len(row["seeds"]))
            curve = row["loss_by_views"][0]
            rows.append([row["title"], titles.get(row["after"]), changed or None, row["pool"], len(row["seeds"]),
                         row["views"], Value(curve[-1][1]) if curve else None, minutes, row["encoder_parameters"],
                         row["parameters"]])  # fmt: skip
    columns = ["row", "changes", "by", "pooling", "seeds", "patch views", "masked loss in validation", "minutes a seed",
               "encoder parameters", "with decoder"]  # fmt: skip
    note = "The pooling of a row is the best one on the patches for choices, unless its config names it."
    table = Table("recipes", "Recipes", columns, rows, "the machine that pretrained", note)
    text = ["Every row changes one thing in the row that it names. Rows that did not help stay in the table."]
    return Section("Recipes", text, [table])


def _setting(context: StudyContext, results: Mapping[str, Any], name: str) -> Section:
    about = results["settings"][name]
    text = [
        *about["remarks"],
        "Differences are paired, on the same resampled patches: to the row that a row changes, and to "
        f"{about['rival']}.",
    ]
    figures = [_figure(context, results, name)]
    return Section(about["title"].capitalize(), text, [_score_table(results, name)], figures)


def _score_table(results: Mapping[str, Any], name: str) -> Table:
    about = results["settings"][name]
    rows: list[list[Cell]] = []
    for row in results["rows"]:
        found = row["scores"].get(name)
        if found is None:
            continue
        linear, nearest, scaled = (found[protocol] for protocol in (LINEAR, NEAREST, NEAREST_SCALED))
        errors = [found.get(key) for key in ("calibration_error", "calibration_error_scaled")]
        rows.append([row["title"], found["features"], _value(linear["score"]), _value(nearest["score"]),
                     _value(scaled["score"]), *(None if error is None else Value(error) for error in errors),
                     _value(linear.get("minus_before")), _value(scaled.get("minus_rival")),
                     _value(linear.get("minus_rival"))])  # fmt: skip
    columns = [
        "representation", "numbers", "linear probe", "kNN-5", "kNN-5, standardised", "calibration error",
        "after temperature scaling", "linear, to the row it changes", f"kNN-5, standardised, to {about['rival']}",
        f"linear, to {about['rival']}",
    ]  # fmt: skip
    note = (
        f"Micro mAP and expected calibration error in per cent, differences in points, 95 % intervals in brackets. "
        f"Linear: {PROTOCOL_TITLES[LINEAR]}."
    )
    return Table(f"scores_{name}", about["title"].capitalize(), columns, rows, about["measured_on"], note)


def _losses(results: Mapping[str, Any]) -> Section:
    tables = []
    for bench in dict.fromkeys(bench for row in results["rows"] for bench in row["masked_loss"]):
        rows: list[list[Cell]] = []
        for row in results["rows"]:
            if bench in row["masked_loss"]:
                loss = row["masked_loss"][bench]
                keys = ("model", INTERPOLATION, "visible_mean", "model_minus_interpolation")
                rows.append([row["title"], *(_value(loss[key]) for key in keys)])
        measured = next(about["measured_on"] for name, about in results["settings"].items() if name.startswith(bench))
        columns = ["row", "model", "interpolation", "visible mean", "model minus interpolation"]
        tables.append(Table(f"masked_loss_{bench}", f"Masked loss, {bench.replace('_', ' ')}", columns, rows, measured))
    text = ["Squared error of z-scored pixels, summed over the 112 values of a patch, mask ratio 0.75, fixed masks."]
    return Section("Masked loss", text, tables)


def _figure(context: StudyContext, results: Mapping[str, Any], name: str) -> Figure:
    about = results["settings"][name]
    shown = {
        row["title"]: _value(row["scores"][name][LINEAR]["score"]) for row in results["rows"] if name in row["scores"]
    }
    values = {title: value for title, value in shown.items() if value is not None}

    def work(folder: Path) -> None:
        save_figure(
            plot_intervals(values, about["title"].capitalize(), "micro mAP, %, linear probe"), folder / f"{name}.png"
        )

    inputs = {"values": {title: list(value) for title, value in values.items()}, "title": about["title"]}
    stage = context.cache.stage(f"figures/{name}", inputs, work, quiet=True)
    return Figure(
        stage.folder / f"{name}.png", f"Micro mAP of a linear probe with 95 % intervals: {about['measured_on']}."
    )


def _value(found: Sequence[float | None] | None) -> Value | None:
    return None if found is None or found[0] is None else Value(found[0], found[1], found[2])


def _difference(found: Mapping[str, Any]) -> str:
    return _text(_value(found.get("minus_best"))) or ("–" if found else "")


def _text(cell: Cell) -> str:
    if isinstance(cell, Value):
        shown = _number(cell.value)
        return shown if cell.bounds is None else f"{shown} ({_number(cell.bounds[0])} to {_number(cell.bounds[1])})"
    return "" if cell is None else f"{cell:,}" if isinstance(cell, int) else str(cell)


def _number(value: float) -> str:
    """One decimal, two where one would hide on which side of 0 it is."""
    text = f"{value:.1f}"
    return f"{value:.2f}" if float(text) == 0 else text
