"""What the ladder found, as plain values: one JSON file that reports, tables and the README are made from."""

import csv
from collections.abc import Mapping, Sequence
from typing import Any

from configs.recipe import RecipeConfig
from eval.statistics.bootstrap import Interval, of_runs
from studies.comparison.reconstruction import MODEL
from studies.engine.context import StudyContext
from studies.engine.runs import Run
from studies.recipe.scores import LINEAR, PROTOCOLS, Row, Setting, paired, resampled_headline

PERCENT = 100.0
FORMAT = 1
INTERPOLATION = "interpolation"


def results_of(
    context: StudyContext, config: RecipeConfig, settings: Sequence[Setting], rows: Sequence[Row]
) -> dict[str, Any]:
    """Everything the report shows, JSON-ready; scores in per cent, differences in percentage points."""
    by_name = {row.name: row for row in rows}
    baselines = {row.title: row for row in rows if not row.runs}
    best = {
        one.name: {protocol: _best(context, baselines, one, protocol) for protocol in PROTOCOLS} for one in settings
    }
    return {
        "format": FORMAT,
        "title": config.title,
        "settings": {
            one.name: {
                "title": f"{one.bench.title}, metadata {'given' if one.given else 'withheld'}",
                "measured_on": one.bench.source.measured_on(),
                "remarks": one.bench.source.remarks(),
                "rival": one.rival,
                "best": best[one.name],
            }
            for one in settings
        },
        "rows": [_row(context, config, row, by_name.get(row.after or ""), settings, best, baselines) for row in rows],
    }


def _best(context: StudyContext, baselines: Mapping[str, Row], setting: Setting, protocol: str) -> str:
    """The baseline with the highest score, found on the patches that are scored: differences to it are cautious."""
    bench, key = setting.bench, (setting.name, protocol)
    scores = {
        title: of_runs(resampled_headline(context, row.scores[key], bench)).value or 0.0
        for title, row in baselines.items()
        if key in row.scores
    }
    return max(scores, key=lambda title: scores[title])


def _row(
    context: StudyContext,
    config: RecipeConfig,
    row: Row,
    before: Row | None,
    settings: Sequence[Setting],
    best: Mapping[str, Mapping[str, str]],
    baselines: Mapping[str, Row],
) -> dict[str, Any]:
    found: dict[str, Any] = {"name": row.name, "title": row.title, "kind": "encoder" if row.runs else "baseline"}
    if row.runs:
        section, facts = config.ladder[row.name], row.runs[0].facts
        found |= {
            "after": row.after,
            "change": section.change,
            "pool": row.pool,
            "seeds": [run.seed for run in row.runs],
            "sha256": [run.digest for run in row.runs],
            "views": facts["epochs"] * facts["patches"] if "epochs" in facts else None,
            "encoder_parameters": row.encoder_parameters,
            "parameters": facts["parameters"],
            "seconds": row.seconds,
            "loss_by_views": [_loss_by_views(run) for run in row.runs],
        }
    found["scores"] = {
        one.name: _scores(context, row, before, one, baselines[one.rival], _rows_of(best[one.name], baselines))
        for one in settings
        if (one.name, LINEAR) in row.scores
    }
    found["masked_loss"] = {
        bench: {
            key: _plain(of_runs([losses[key] for losses in several]), 1.0)
            for key in (MODEL, INTERPOLATION, "visible_mean")
        }
        | {"model_minus_interpolation": _plain(of_runs([one[MODEL].minus(one[INTERPOLATION]) for one in several]), 1.0)}
        for bench, several in row.losses.items()
    }
    return found


def _rows_of(titles: Mapping[str, str], baselines: Mapping[str, Row]) -> dict[str, Row]:
    return {protocol: baselines[title] for protocol, title in titles.items()}


def _scores(
    context: StudyContext, row: Row, before: Row | None, setting: Setting, rival: Row, best: Mapping[str, Row]
) -> dict[str, Any]:
    """One row in one setting; `best` is the best baseline by protocol."""
    found: dict[str, Any] = {"features": row.width(setting)}
    for protocol in PROTOCOLS:
        key, bench = (setting.name, protocol), setting.bench
        one = {"score": _plain(of_runs(resampled_headline(context, row.scores[key], bench)), PERCENT)}
        for name, other in (("before", before), ("rival", rival), ("best", best[protocol])):
            if other is not None and other.name != row.name and key in other.scores:
                one[f"minus_{name}"] = _plain(paired(context, row.scores[key], other.scores[key], bench), PERCENT)
        found[protocol] = one
    details = [one for scored in row.scores[setting.name, LINEAR] for one in scored.details]
    if "temperature" in details[0]:
        tested = sum(one["test_patches"] for one in details)
        for name in ("calibration_error", "calibration_error_scaled"):
            found[name] = PERCENT * sum(one[name] * one["test_patches"] for one in details) / tested
        found["C"] = sorted({one["C"] for one in details})
    return found


def _loss_by_views(run: Run) -> list[list[float]]:
    """[views, masked loss on the validation split] of every epoch; none of weights that were only given."""
    files = sorted(run.folder.glob("training_metrics_*.csv")) if "epochs" in run.facts else []
    found = []
    for file in files:
        with file.open(encoding="utf-8", newline="") as lines:
            for epoch, line in enumerate(csv.DictReader(lines), 1):
                if line.get("val_m_loss"):
                    found.append([epoch * run.facts["patches"], round(float(line["val_m_loss"]), 4)])
    return found


def _plain(found: Interval, scale: float) -> list[float | None]:
    """Value, lower and upper end."""
    return [None if value is None else round(scale * value, 3) for value in found]
