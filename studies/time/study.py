"""The tables of `python -m studies.time`."""

import csv
import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.simulator.phenology import NO_TYPE, TYPES
from eval.statistics.bootstrap import SHARE, Interval, Resampled, resample
from eval.statistics.weighted_metrics import mean_of
from models.moe_mae import MOEMAE
from models.pretrained import weights_path
from models.temporal import TemporalModule
from studies.time.probe import probe
from studies.time.representations import (
    foretold_only,
    mean_and_spread,
    mean_of_dates,
    of_module,
    present_on,
    side_by_side,
    year_of_dates,
)
from temporal.series import STUDY, PlaceRequest, Series, even_days, make_series, place_seeds
from utils.errors import CheckpointError
from utils.files import sha256, write_json, write_text
from utils.reporting import reporter

DATES = 12
FIRST_FIT = 100_000
"""Seed of the places to fit probes on."""
LEAST_SHARE = 0.5
"""Of a cell's pixels that its growth type needs."""
DRAWS = 3
"""Choices of the dates that are missing."""
SEED = 0
MODULE, ONE_DATE = "temporal module", "one date, the best on the fitted places"


class StudyPlaces(NamedTuple):
    """How many places, how large, which and when."""

    fit: int
    score: int
    windows: int
    first: int
    """Seed of the first that is scored."""
    years: tuple[int, ...]
    """Probes are fitted in the first; the module was pretrained on earlier ones."""


class Condition(NamedTuple):
    """Which dates of a series are seen."""

    name: str
    least: int | None
    """Dates a place has at least; None: all."""
    most: int
    in_other_years: bool
    """Whether it is scored in the others than the first year as well."""


CONDITIONS = (
    Condition("12 dates", None, DATES, True),
    Condition("3 to 6 dates of 12", 3, 6, True),
    Condition("1 or 2 dates of 12", 1, 2, False),
)


class Scored(NamedTuple):
    """One representation under one condition."""

    condition: str
    representation: str
    width: int
    accuracy: Resampled


def measure(module: TemporalModule, checkpoint: str, places: StudyPlaces, out: Path) -> list[Scored]:
    """Score every representation under every condition.

    Raises:
        CheckpointError: the module is of other embeddings than the encoder's.
    """
    path = weights_path(checkpoint)
    encoder = sha256(path)
    if module.config.encoder != encoder:
        raise CheckpointError(f"{path}: is not the encoder that the temporal module was trained on; give that one")
    model, made = MOEMAE.from_pretrained(path), {}
    for name, first, count, year in (
        ("fit", FIRST_FIT, places.fit, places.years[0]),
        *((f"score {year}", places.first, places.score, year) for year in places.years),
    ):
        requests = [PlaceRequest(seed, even_days(DATES, year), True) for seed in place_seeds(count, first, STUDY)]
        made[name] = with_type(
            make_series(model, encoder, module.config.pool, places.windows, requests, out / "places")
        )
    rows = []
    for condition in CONDITIONS:
        for year in places.years if condition.in_other_years else places.years[:1]:
            named = condition if year == places.years[0] else condition._replace(name=f"{condition.name}, in {year}")
            for row in _under(named, module, made["fit"], made[f"score {year}"]):
                reporter.info(f"{row.condition:32s} {row.representation:42s} {_text(row.accuracy.interval())}")
                rows.append(row)
    return rows


REPRESENTATIONS = {
    "mean of the dates": mean_of_dates,
    "mean and spread of the dates": mean_and_spread,
    "dates side by side": side_by_side,
    "year fitted to the dates": year_of_dates,
}


def with_type(series: Series) -> Series:
    """The series of cells that are mostly of one growth type."""
    return series.rows((series.growth != NO_TYPE) & (series.share >= LEAST_SHARE))


def _under(condition: Condition, module: TemporalModule, fit: Series, score: Series) -> list[Scored]:
    draws = 1 if condition.least is None else DRAWS
    functions = {**REPRESENTATIONS, "module without what was seen": foretold_only(module), MODULE: of_module(module)}
    found = []
    for name, represent in functions.items():
        right, width = [], 0
        for draw in range(draws):
            seen = [present_on(part, condition.least, condition.most, SEED + draw) for part in (fit, score)]
            x, other = (represent(part, dates) for part, dates in zip((fit, score), seen, strict=True))
            classes, _ = probe(x, fit.growth, fit.place, other, len(TYPES))
            right.append(classes == score.growth)
            width = x.shape[1]
        found.append(_scored(condition, name, width, right, score))
    if condition.least is None:
        found.insert(0, _best_date(condition, fit, score))
    return found


def _best_date(condition: Condition, fit: Series, score: Series) -> Scored:
    """The date that tells most about held-out places among the fitted ones."""
    tried = [
        probe(fit.vectors[:, date], fit.growth, fit.place, score.vectors[:, date], len(TYPES)) for date in range(DATES)
    ]
    classes, _ = max(tried, key=lambda one: one[1])
    return _scored(condition, ONE_DATE, fit.vectors.shape[-1], [classes == score.growth], score)


def _scored(condition: Condition, name: str, width: int, right: list[np.ndarray], score: Series) -> Scored:
    share = np.mean(right, axis=0)
    return Scored(condition.name, name, width, resample(mean_of(share), score.place, SEED, limits=SHARE))


def table(rows: list[Scored]) -> list[dict[str, Any]]:
    """Rows with intervals, in percent; differences are the module minus the row, on the same resampled places."""
    modules = {row.condition: row.accuracy for row in rows if row.representation == MODULE}
    result = []
    for row in rows:
        line: dict[str, Any] = {"dates": row.condition, "vector": row.representation, "numbers": row.width}
        line |= _figures("accuracy", row.accuracy.interval())
        if row.representation != MODULE:
            line |= _figures("module_minus_it", modules[row.condition].minus(row.accuracy).interval())
        result.append(line)
    return result


def write_tables(out: Path, rows: list[Scored], places: StudyPlaces) -> None:
    """vectors.csv, vectors.json and vectors.md in `out`."""
    lines = table(rows)
    text = io.StringIO()
    columns = list(dict.fromkeys(key for line in lines for key in line))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_text(out / "vectors.csv", text.getvalue())
    about = {"simulated": True, "places": places._asdict(), "blocks": rows[0].accuracy.blocks, "rows": lines}
    write_json(out / "vectors.json", about)
    write_text(out / "vectors.md", _markdown(lines))
    reporter.info(f"wrote {out / 'vectors.md'}")


def _markdown(lines: list[dict[str, Any]]) -> str:
    head = "| dates | vector | numbers | accuracy, % | module minus it |\n| --- | --- | --- | --- | --- |\n"
    return head + "".join(
        f"| {line['dates']} | {line['vector']} | {line['numbers']} | {_cell(line, 'accuracy')} "
        f"| {_cell(line, 'module_minus_it')} |\n"
        for line in lines
    )


def _cell(line: dict[str, Any], name: str) -> str:
    return f"{line[name]} ({line[name + '_low']} to {line[name + '_high']})" if name in line else ""


def _figures(name: str, interval: Interval) -> dict[str, float | None]:
    parts = {"": interval.value, "_low": interval.low, "_high": interval.high}
    return {name + end: None if value is None else round(100 * value, 1) for end, value in parts.items()}


def _text(interval: Interval) -> str:
    return "{accuracy} ({accuracy_low} to {accuracy_high})".format(**_figures("accuracy", interval))
