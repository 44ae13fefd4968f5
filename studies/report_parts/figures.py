"""Figures that several parts of the report share; returned, never shown."""

import textwrap
from collections.abc import Mapping

from matplotlib.figure import Figure

from studies.report_parts.sections import Value

TICK_LETTERS, TITLE_LETTERS = 44, 88


def plot_intervals(values: Mapping[str, Value], title: str, label: str) -> Figure:
    """Figures with their intervals, one below the other, as points and lines.

    Args:
        values: name to figure, drawn top down.
        title: of the figure.
        label: of the axis.
    """
    names = [textwrap.fill(name, TICK_LETTERS) for name in values]
    lines = max((name.count("\n") + 1 for name in names), default=1)
    figure = Figure(figsize=(8, 1.3 + (0.16 + 0.16 * lines) * len(values)), layout="constrained")
    axes = figure.subplots()
    for place, value in enumerate(values.values()):
        if value.bounds is not None:
            axes.plot(list(value.bounds), [place, place], color="C0", lw=2, alpha=0.6)
        axes.plot(value.value, place, "o", color="C0", ms=5)
    axes.set_yticks(range(len(values)), names)
    axes.invert_yaxis()
    axes.set(xlabel=label)
    figure.suptitle("\n".join(textwrap.wrap(title, TITLE_LETTERS)), x=0.01, ha="left", fontsize=11)
    axes.grid(axis="x", alpha=0.3)
    return figure
