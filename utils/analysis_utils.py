"""Figures from arrays: every function returns a figure and shows or saves nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from utils.colour_vision import palette
from utils.data_config import REFLECTANCE_OFFSET, REFLECTANCE_SCALE
from utils.files import atomic_path
from utils.sensors import OLI

TRUE_COLOUR = tuple(map(OLI.bands.index, OLI.rgb_bands))
"""Places of red, green and blue among the bands that models take."""
LEAST_SPAN = 0.06
"""Reflectance from black to white at least: stretched further, the noise of water and forest is all that is seen."""
ONE_TWO_FIVE = 10
"""An axis that spans at least this factor has ticks at 1, 2 and 5 times powers of ten, another evenly spaced ones."""
MARKERS = "o^sDvP*X"
"""Of classes in a plane, beside their colours: where there are many, colours come close to each other."""


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure atomically; the format follows the file's ending."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    return Path(path)


def plot_loss_curve(metrics: str | Path, kind: str) -> Figure:
    """Training and, where there is one, validation loss by epoch.

    Args:
        metrics: a `training_metrics_*.csv`.
        kind: what was trained on: "patches" or "simulated patches".
    """
    table = pd.read_csv(metrics)
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(table["epoch"], table["train_m_loss"], label="masked, training", color="C0")
    axes.plot(table["epoch"], table["train_um_loss"], label="visible, training", color="C0", alpha=0.4, ls="--")
    if "val_m_loss" in table:
        axes.plot(table["epoch"], table["val_m_loss"], label="masked, validation", color="C1")
    axes.set(xlabel="epoch", ylabel="squared error per patch")
    logarithmic(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3, which="both")
    rates = axes.twinx()
    rates.plot(table["epoch"], table["avg_lr"], color="0.6", lw=0.8)
    rates.set_ylabel("learning rate (grey)", color="0.5")
    rates.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.legend(frameon=False)
    axes.set_title(f"Reconstruction loss, {kind}", loc="left")
    return figure


def logarithmic(axes: Axes) -> None:
    """A logarithmic y axis of what is drawn, whose ticks are plain numbers and several, however little it spans."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    few = high < ONE_TWO_FIVE * low
    axes.yaxis.set_major_locator(MaxNLocator(6) if few else LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def plot_reconstructions(
    rows: Sequence[Mapping[str, np.ndarray]], ids: Sequence[str], title: str, stretch_all: bool = False
) -> Figure:
    """True-colour panels, one patch a row; all images of a row share one stretch.

    Args:
        rows: per patch, column title to (C, H, W) Collection-2 digital numbers; the first column is the original.
            NaN is drawn grey (masked or fill).
        ids: one per row.
        title: of the figure.
        stretch_all: take the stretch from all images of the row instead of the original.
    """
    columns = list(rows[0])
    figure = Figure(figsize=(2.1 * len(columns) + 0.3, 2.2 * len(rows) + 0.5), layout="constrained")
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for row, name, line in zip(rows, ids, grid, strict=True):
        like = np.concatenate(list(row.values()), axis=-1) if stretch_all else row[columns[0]]
        for column, axes in zip(columns, line, strict=True):
            axes.imshow(true_colour(row[column], like), interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
        line[0].set_ylabel(short_id(name), fontsize=7)
    for column, axes in zip(columns, grid[0], strict=True):
        axes.set_title(column, fontsize=9)
    figure.suptitle(title, fontsize=11)
    return figure


def true_colour(numbers: np.ndarray, like: np.ndarray | None = None) -> np.ndarray:
    """(C, H, W) digital numbers to (H, W, 3) colours between 0 and 1; NaN (masked or fill) becomes grey.

    Args:
        numbers: the image.
        like: the image whose 2nd and 98th percentile of reflectance become black and white; None means itself. Where
            they are closer than `LEAST_SPAN`, white is that much above black.
    """
    stretched = _reflectance(numbers if like is None else like)
    low, high = np.nanpercentile(stretched, (2, 98)) if np.isfinite(stretched).any() else (0.0, 1.0)
    image = (_reflectance(numbers) - low) / max(high - low, LEAST_SPAN)
    return np.where(np.isfinite(image), image.clip(0, 1), 0.6)


def short_id(name: str) -> str:
    """A BigEarthNet id without what all of them begin with."""
    return name.removeprefix("S2A_MSIL2A_").removeprefix("S2B_MSIL2A_")


def short_name(name: str, most: int = 40) -> str:
    """A class name of at most so many letters."""
    return name if len(name) <= most else name[: most - 1] + "…"


def _reflectance(numbers: np.ndarray) -> np.ndarray:
    """(C, H, W) digital numbers to (H, W, 3) true-colour reflectance."""
    return numbers[list(TRUE_COLOUR)].transpose(1, 2, 0) * REFLECTANCE_SCALE + REFLECTANCE_OFFSET


def plot_class_scores(per_class: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Horizontal bars of average precision and F1 for every class, the best average precision on top.

    Args:
        per_class: rows with `name`, `ap` (a fraction, None where it cannot be computed), `f1` and `support`.
        title: of the figure.
    """
    rows = sorted(per_class, key=lambda row: -1.0 if row["ap"] is None else row["ap"])
    names = [short_name(row["name"]) for row in rows]
    position = np.arange(len(rows))
    figure = Figure(figsize=(8, 1.2 + 0.32 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.barh(position + 0.2, [100 * (row["ap"] or 0.0) for row in rows], 0.38, label="average precision", color="C0")
    axes.barh(position - 0.2, [100 * row["f1"] for row in rows], 0.38, label="F1", color="C1")
    axes.set_yticks(position, [f"{name} ({row['support']:,})" for name, row in zip(names, rows, strict=True)])
    axes.set(xlim=(0, 100), ylim=(-0.6, len(rows) - 0.4), xlabel="score in % (patches with the class in brackets)")
    axes.set_title(title, loc="left")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def plot_projection(points: np.ndarray, classes: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """Points on a plane, coloured by class.

    Args:
        points: (N, 2).
        classes: (N,) class indices.
        names: of the classes.
        title: of the figure.
    """
    figure = Figure(figsize=(8.5, 5.5), layout="constrained")
    axes, colours = figure.subplots(), palette(len(names))
    for index in map(int, np.unique(classes)):
        chosen = classes == index
        look = {"color": tuple(colours[index]), "marker": MARKERS[index % len(MARKERS)]}
        axes.scatter(*points[chosen].T, s=28, label=short_name(names[index]), **look)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, loc="left")
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return figure


def plot_projection_by_label(points: np.ndarray, labels: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """Points on a plane, a panel for every label: coloured where a patch has it, grey where not.

    Args:
        points: (N, 2).
        labels: (N, L) zeros and ones; labels that no patch has are left out.
        names: of the labels.
        title: of the figure.
    """
    present = np.flatnonzero(labels.any(axis=0))
    columns = 5
    rows = -(-len(present) // columns)
    figure = Figure(figsize=(2.1 * columns, 2.1 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set(xticks=[], yticks=[])
        axes.set_visible(False)
    for axes, index in zip(grid, present.tolist(), strict=False):
        has = labels[:, index] > 0
        axes.set_visible(True)
        axes.scatter(*points[~has].T, s=5, color="0.85")
        axes.scatter(*points[has].T, s=9, color="C0")
        axes.set_title(f"{short_name(names[index], 26)} ({has.sum()})", fontsize=7)
    figure.suptitle(title, fontsize=11)
    return figure


def plot_projection_by_value(points: np.ndarray, values: np.ndarray, label: str, title: str) -> Figure:
    """Points on a plane, coloured by a number such as the week of the year, (N,)."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    drawn = axes.scatter(*points.T, s=28, c=values, cmap="viridis")
    figure.colorbar(drawn, label=label)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, loc="left")
    return figure
