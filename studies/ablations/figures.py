"""Figures of the studies: narrow enough for a phone; returned, never shown."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from studies.report_parts.sections import Value

WIDTH = 5.2
"""Inches."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#e69f00", "#56b4e9")
MARKERS = "os^Dv*P"
LINE_LETTERS = 30
LEGEND_LETTERS = 45
SCORES = (0.0, 100.0)
"""Intervals are drawn no further."""


def plot_groups(series: Mapping[str, Mapping[str, Value | None]], label: str) -> Figure:
    """Scores in per cent with their intervals, one below the other; several series in colours of their own.

    Args:
        series: name of a series ("" where there is one only) to name of a row to figure; drawn top down.
        label: of the axis.
    """
    rows = list(dict.fromkeys(row for one in series.values() for row in one))
    figure = Figure(figsize=(WIDTH, 1.1 + (0.34 + 0.13 * (len(series) - 1)) * len(rows)), layout="constrained")
    axes = figure.subplots()
    spread = np.linspace(-0.24, 0.24, len(series)) if len(series) > 1 else [0.0]
    for number, (name, values) in enumerate(series.items()):
        places = [rows.index(row) + spread[number] for row in values]
        _points(axes, places, list(values.values()), name, number, across=True)
    axes.set_yticks(range(len(rows)), [_wrapped(row) for row in rows], fontsize=9)
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel=label)
    axes.grid(axis="x", alpha=0.3)
    _legend(figure, series)
    return figure


def plot_curves(
    series: Mapping[str, Sequence[Value | None]], x: Sequence[float], xlabel: str, label: str, log: bool = False
) -> Figure:
    """Scores in per cent with their intervals over a number, a line for every series; None leaves a gap.

    Args:
        series: name to a figure for every place of `x`.
        x: places, marked on the axis.
        xlabel, label: of the axes.
        log: logarithmic x.
    """
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    if log:
        axes.set_xscale("log")
    shift = 0.012 if len(series) > 1 else 0.0
    for number, (name, values) in enumerate(series.items()):
        offset = shift * (number - (len(series) - 1) / 2)
        places = [place * (1 + 3 * offset) if log else place + offset * (max(x) - min(x)) for place in x]
        _points(axes, places, list(values), name, number, across=False)
    axes.xaxis.set_major_locator(FixedLocator(list(x)))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{place:g}" for place in x]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel=xlabel, ylabel=label)
    axes.grid(alpha=0.3)
    _legend(figure, series)
    return figure


def plot_balance(curves: Mapping[str, Sequence[Sequence[float]]], label: str) -> Figure:
    """A figure by epoch: a line for the mean of a variant's seeds, a band from their least to their greatest.

    Args:
        curves: title of a variant to (seeds, epochs).
        label: of the figure.
    """
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    axes = figure.subplots()
    for number, (name, rows) in enumerate(curves.items()):
        values = np.asarray(rows, float)
        epochs = np.arange(1, values.shape[1] + 1)
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        axes.plot(epochs, values.mean(axis=0), f"{marker}-", ms=4, color=colour, label=name, lw=1.5)
        axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15, lw=0)
    axes.set(xlabel="epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    _legend(figure, curves)
    return figure


def _points(
    axes: Axes, places: Sequence[float], values: Sequence[Value | None], name: str, number: int, across: bool
) -> None:
    """Points with lines for their intervals; along x with `across`, else along y and joined."""
    known = [(place, value) for place, value in zip(places, values, strict=True) if value is not None]
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    for place, value in known:
        if value.bounds is not None:
            span, still = np.clip(value.bounds, *SCORES), [place, place]
            axes.plot(*((span, still) if across else (still, span)), color=colour, lw=2, alpha=0.55)
    at, height = [place for place, _ in known], [value.value for _, value in known]
    style = {"color": colour, "marker": marker, "ms": 5.5, "label": name or None}
    if across:
        axes.plot(height, at, ls="", **style)
    else:
        axes.plot(at, height, ls="-", lw=1.2, **style)


def _legend(figure: Figure, names: Iterable[str]) -> None:
    names = list(names)
    if len(names) > 1:
        columns = len(names) if sum(map(len, names)) < LEGEND_LETTERS else 1
        figure.legend(loc="outside upper left", ncols=columns, frameon=False, fontsize=9)


def _wrapped(text: str) -> str:
    """On two lines where one would be too long."""
    if len(text) <= LINE_LETTERS:
        return text
    words, first = text.split(" "), ""
    while words and len(first) + len(words[0]) < max(LINE_LETTERS, len(text) // 2 + 4):
        first = f"{first} {words.pop(0)}".strip()
    return f"{first}\n{' '.join(words)}" if words else first
