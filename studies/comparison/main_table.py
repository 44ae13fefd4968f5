"""The main tables: every baseline and every encoder by every protocol, on every dataset of the config."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eval.probing.protocols import PROTOCOL_TITLES
from eval.statistics.bootstrap import SHARE, Interval
from eval.statistics.spatial_blocks import describe_blocks
from eval.statistics.weighted_metrics import macro_map
from models.pooling import POOLINGS
from studies.comparison.baselines import PCA, STRONGEST, baseline, baseline_names
from studies.comparison.claims import Claim, claims_table
from studies.engine.context import StudyContext
from studies.engine.data import Source
from studies.engine.encoders import MAIN, encoders, trained, untrained_twin
from studies.engine.scoring import (
    METRIC_TITLES,
    PERCENT,
    Scored,
    difference,
    headline,
    interval,
    score,
    shown_metrics,
)
from studies.report_parts.figures import plot_intervals
from studies.report_parts.sections import Cell, Figure, Section, Table, Value
from utils.analysis_utils import save_figure
from utils.reporting import reporter

POOL_TITLES = {name: pooling.title for name, pooling in POOLINGS.items()}
STATISTICS = "image statistics"
BOTH = "statistics + metadata"
STRONG = "strong_probe"


class Row(NamedTuple):
    """One representation of a dataset's patches, evaluated by every protocol."""

    title: str
    features: int | None
    """Features; None where it was not run."""
    results: dict[str, list[Scored]]
    """Protocol to results, one for each pretraining seed."""
    encoder: str | None = None
    """Name of the `Encoder`; None for baselines."""
    pool: str | None = None
    twin: str | None = None
    """Of a pretrained encoder the name of the untrained one of its own architecture."""
    parameters: int | None = 0
    """Of the encoder; None where it was not run."""


def main_rows(context: StudyContext, source: Source) -> list[Row]:
    """Baselines, then encoders by pool."""
    reporter.info(f"== scoring on {source.patches()}")
    plain, *others = encoders(context)
    twins = {encoder.name: untrained_twin(context, encoder) for encoder in trained(context)}
    found = list({one.name: one for one in (plain, *twins.values(), *others)}.values())
    width = plain.run(plain.seeds[0], 0).config.embed_dim
    rows = [
        _row(context, source, name, [(folder, baseline(context, source, name, width))])
        for name, folder in baseline_names(context, source, width).items()
    ]
    for encoder in found:
        twin = twins[encoder.name].name if encoder.name in twins else None
        parameters = encoder.run(encoder.seeds[0], 0).facts["parameters"] if encoder.seeds else None
        for pool in context.config.embed.pools:
            represented = [
                (f"{encoder.name}/seed{seed}/{pool}", encoder.representation(context, source, pool, seed))
                for seed in encoder.seeds
            ]
            row = _row(context, source, f"{encoder.title}, {POOL_TITLES[pool]}", represented)
            rows.append(row._replace(encoder=encoder.name, pool=pool, twin=twin, parameters=parameters))
    return rows


def main_section(context: StudyContext, source: Source, rows: Sequence[Row]) -> Section:
    """The tables of one dataset, from its `main_rows`."""
    tables = [_protocol_table(context, source, rows, protocol) for protocol in context.config.protocols]
    tables.append(_difference_table(context, source, rows))
    if source.multilabel or len(source.classes) > 2:
        tables.append(_class_table(context, source, rows))
    scored = rows[0].results[context.config.protocols[0]][0]
    text = [
        *source.remarks(),
        f"Intervals are of 95 %, by a bootstrap over {describe_blocks(scored.ids, scored.blocks)}.",
    ]
    if left_out := source.count("test") - len(scored.ids):
        text.append(f"Test patches left out because they have no valid pixel (nodata only): {left_out}.")
    if (seeds := len(context.config.pretraining_seeds)) > 1:
        text.append(f"Rows of encoders trained here are means over {seeds} pretraining seeds; their intervals include "
                    "the variation between seeds.")  # fmt: skip
    else:
        text.append("One pretraining seed: the intervals do not cover the variation between seeds.")
    return Section(f"Probes on {source.patches()}", text, tables, [_figure(context, source, rows)])


def summary(context: StudyContext, source: Source, rows: Sequence[Row]) -> str:
    """Every row's headline figure by the last protocol, for a terminal."""
    protocol, metric = context.config.protocols[-1], headline(source)
    lines = [f"{METRIC_TITLES[metric]} on {source.measured_on()}; {PROTOCOL_TITLES[protocol]}"]
    for row in rows:
        value = interval(context, row.results[protocol], metric) if row.results[protocol] else None
        shown = "not run" if value is None else f"{value.value:5.1f}"
        if value is not None and value.low is not None:
            shown += f"  [{value.low:.1f}, {value.high:.1f}]"
        lines.append(f"  {row.title:40s} {shown}")
    return "\n".join(lines)


def _row(context: StudyContext, source: Source, title: str, represented: Sequence[tuple]) -> Row:
    results = {
        protocol: [
            score(context, name, protocol, representation, source=source) for name, representation in represented
        ]
        for protocol in context.config.protocols
    }
    first = next((several[0] for several in results.values() if several), None)
    return Row(title, None if first is None else first.details[0]["features"], results)


def _protocol_table(context: StudyContext, source: Source, rows: Sequence[Row], protocol: str) -> Table:
    metrics = shown_metrics(source)
    fits = [_fitted(row.results[protocol]) for row in rows]
    fitted = any(fit and fit.startswith("C ") for fit in fits)
    cells: list[list[Cell]] = []
    for row, fit in zip(rows, fits, strict=True):
        several = row.results[protocol]
        values = [interval(context, several, metric) if several else None for metric in metrics]
        cells.append([row.title, row.features, *values, *([fit] if fitted else [])])
    columns = [
        "representation",
        "features",
        *(METRIC_TITLES[metric] for metric in metrics),
        *(["fit"] if fitted else []),
    ]
    title = f"{source.name}: {PROTOCOL_TITLES[protocol]}"
    note = (
        "Per cent, with 95 % intervals in brackets. Features: the dimension of a representation; principal components "
        "are as many as one token's features, also next to poolings of several tokens."
    )
    return Table(f"{source.key}_{protocol}", title, columns, cells, source.measured_on(), note)


def _fitted(several: Sequence[Scored]) -> str | None:
    """How the classifiers were fitted: C and whether they converged."""
    details = [one for scored in several for one in scored.details]
    if details and "class_shares" in details[0]:
        return "none: class frequencies"
    if not details or "C" not in details[0]:
        return None
    chosen = sorted({one["C"] for one in details})
    unfinished = sum(one["not_converged"] for one in details)
    fits = sum(one["classifiers"] for one in details)
    state = f"{unfinished} of {fits} fits not converged" if unfinished else "converged"
    return f"C {', '.join(f'{value:g}' for value in chosen)}; {state}"


class Comparison(NamedTuple):
    """A claim that is a difference between two rows."""

    claim: str
    first: Row
    second: Row

    @property
    def compared(self) -> str:
        """The two rows, and the features of a PCA that has not as many as the encoder."""
        short = self.second.title == PCA and self.second.features != self.first.features
        return f"{self.first.title} minus {self.second.title}" + (
            f" ({self.second.features} features)" if short else ""
        )


def comparisons(rows: Sequence[Row]) -> list[Comparison]:
    """What every pretrained encoder is compared with, pool by pool.

    Args:
        rows: of `main_rows`.
    """
    by_title = {row.title: row for row in rows}
    untrained = {(row.encoder, row.pool): row for row in rows}
    simple = by_title.get(BOTH, by_title[STATISTICS])
    found = []
    for row in rows:
        if row.twin is None:
            continue
        others = {"pretraining helps": untrained[row.twin, row.pool]}
        if row.encoder == MAIN:
            others["an encoder is better than image statistics"] = by_title[STATISTICS]
        others[f"an encoder is better than {simple.title}"] = simple
        if STRONGEST in by_title:
            others[f"an encoder is better than {STRONGEST}"] = by_title[STRONGEST]
        if row.encoder == MAIN:
            others["an encoder is better than PCA"] = by_title[PCA]
        found += [Comparison(claim, row, other) for claim, other in others.items()]
    return found


def _difference_table(context: StudyContext, source: Source, rows: Sequence[Row]) -> Table:
    metric, protocols = headline(source), context.config.protocols
    claims = []
    for one in comparisons(rows):
        pairs = [(one.first.results[protocol], one.second.results[protocol]) for protocol in protocols]
        values = [difference(context, *pair, metric) for pair in pairs]
        claims.append(Claim(one.claim, one.compared, values, len(pairs[0][0])))
    measures = [f"{METRIC_TITLES[metric]}, points: {PROTOCOL_TITLES[protocol]}" for protocol in protocols]
    note = "On the same resampled patches. An untrained encoder has its pretrained counterpart's architecture."
    title = f"{source.name}: the encoder compared with baselines"
    return claims_table(f"{source.key}_differences", title, measures, claims, source.measured_on(), note)


def _class_table(context: StudyContext, source: Source, rows: Sequence[Row]) -> Table:
    """Average precision per class of the pretrained encoder and of statistics + metadata (or statistics alone)."""
    protocol = STRONG if STRONG in context.config.protocols else context.config.protocols[-1]
    ours = next(row for row in rows if row.encoder == MAIN)
    simple = next((row for row in rows if row.title == BOTH), next(row for row in rows if row.title == STATISTICS))
    columns, found = ["class", "test patches"], []
    for row in (ours, simple):
        scored = row.results[protocol][0]
        seed = f" (seed {context.config.pretraining_seeds[0]})" if row.encoder else ""
        columns.append(f"{row.title}{seed}")
        found.append((scored, _class_intervals(context, scored)))
    per_class = found[0][0].metrics["per_class"]
    cells = [[one["name"], one["support"], *(values[i] for _, values in found)] for i, one in enumerate(per_class)]
    title = f"{source.name}: average precision per class, {PROTOCOL_TITLES[protocol]}"
    note = "Per cent, with 95 % intervals in brackets; empty for a class that no test patch has."
    return Table(f"{source.key}_classes", title, columns, cells, source.measured_on(), note)


def _class_intervals(context: StudyContext, scored: Scored) -> list[Value | None]:
    def work(folder: Path) -> list[list[float | None] | None]:
        count = scored.scores.shape[1]
        truth = scored.labels > 0 if scored.labels.ndim == 2 else scored.labels[:, None] == np.arange(count)
        found = []
        for label in range(count):
            if not truth[:, label].any():
                found.append(None)
                continue
            statistic = macro_map(truth, scored.scores, np.arange(count) == label)
            found.append(list(context.bootstrap(statistic, scored.blocks, limits=SHARE).interval()))
        return found

    place = f"class_intervals/{scored.source}/{scored.name}/{scored.protocol}"
    stage = context.cache.stage(place, {"scores": scored.digest, **context.bootstrap_inputs}, work, quiet=True)
    return [None if bounds is None else Value.of(Interval(*bounds), PERCENT) for bounds in stage.result]


def _figure(context: StudyContext, source: Source, rows: Sequence[Row]) -> Figure:
    """Every row's headline figure with its interval, by the last protocol."""
    protocol, metric = context.config.protocols[-1], headline(source)
    values = {row.title: interval(context, row.results[protocol], metric) for row in rows if row.results[protocol]}
    shown = {title: value for title, value in values.items() if value is not None}

    def work(folder: Path) -> None:
        title = f"{source.patches()[:1].upper()}{source.patches()[1:]}, {PROTOCOL_TITLES[protocol]}"
        save_figure(plot_intervals(shown, title, f"{METRIC_TITLES[metric]}, %"), folder / f"{source.key}_scores.png")

    inputs = {"values": {title: list(value) for title, value in shown.items()}, "protocol": protocol}
    stage = context.cache.stage(f"figures/{source.key}_scores", inputs, work, quiet=True)
    caption = f"{METRIC_TITLES[metric]} with 95 % intervals: {source.measured_on()}."
    return Figure(stage.folder / f"{source.key}_scores.png", caption[:1].upper() + caption[1:])
