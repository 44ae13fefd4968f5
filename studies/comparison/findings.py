"""What a report opens with: every pretrained encoder beside the strongest representation that needs no training."""

from collections.abc import Mapping, Sequence

from eval.probing.protocols import PROTOCOL_TITLES
from studies.comparison.main_table import Row
from studies.engine.context import StudyContext
from studies.engine.data import Source
from studies.engine.scoring import METRIC_TITLES, difference, headline, interval
from studies.report_parts.sections import Section, Value
from studies.report_parts.verdicts import ABOVE, BELOW, OPEN, side

FOUND = {
    ABOVE: "the encoder is better",
    BELOW: "the encoder is worse",
    OPEN: "not significant (95 % CI includes 0)",
    None: "undetermined, no confidence interval",
}
"""How a sentence ends, by where the difference lies."""


def findings_section(context: StudyContext, rows_of: Mapping[str, Sequence[Row]]) -> Section:
    """A sentence for each dataset and pretrained encoder, by the last protocol.

    Args:
        context: config, data and stages of this reproduction.
        rows_of: key of a dataset to its `main_rows`.
    """
    sources = {source.key: source for source in context.data.probed}
    text = [f"By the {PROTOCOL_TITLES[context.config.protocols[-1]]}; in brackets 95 % intervals."]
    if any(sources[key].simulated for key in rows_of):
        text.append("Simulated patches show that everything works, and nothing about the Earth.")
    for key, rows in rows_of.items():
        encoders = {row.encoder: row for row in reversed(rows) if row.twin is not None}  # the first pooling of each
        text += [_sentence(context, sources[key], row, rows) for row in encoders.values()]  # the model of this run last
    return Section("What was found", [one for one in text if one])


def _sentence(context: StudyContext, source: Source, row: Row, rows: Sequence[Row]) -> str:
    """One encoder beside the baseline with the highest figure; empty where either was not run."""
    protocol, metric = context.config.protocols[-1], headline(source)
    baselines = [one for one in rows if one.encoder is None and one.results[protocol]]
    scored = [(value, one) for one in baselines if (value := interval(context, one.results[protocol], metric))]
    if not scored or not row.results[protocol]:
        return ""
    best, baseline = max(scored, key=lambda found: found[0].value)
    ours = interval(context, row.results[protocol], metric)
    if ours is None:
        return ""
    minus = difference(context, row.results[protocol], baseline.results[protocol], metric)
    return (
        f"{row.title[:1].upper()}{row.title[1:]}, on {len(baseline.results[protocol][0].ids):,} {source.patches()}: "
        f"{METRIC_TITLES[metric]} {_shown(ours)} %. The strongest representation without training ({baseline.title}): "
        f"{_shown(best)} %. Difference {_shown(minus)} points: {FOUND[side(minus)]}."
    )


def _shown(value: Value | None) -> str:
    if value is None:
        return "not defined"
    bounds = value.bounds
    return f"{value.value:.1f}" + ("" if bounds is None else f" ({bounds[0]:.1f} to {bounds[1]:.1f})")
