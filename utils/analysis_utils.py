"""Figures from arrays: every function returns a figure and shows or saves nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from utils.data_config import REFLECTANCE_OFFSET, REFLECTANCE_SCALE
from utils.files import atomic_path

TRUE_COLOUR = (3, 2, 1)
"""Indices of red, green and blue in `BANDS`."""


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure atomically; the format follows the file's ending."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    return Path(path)


def plot_loss_curve(metrics: str | Path) -> Figure:
    """Training and, where there is one, validation loss by epoch, from a `training_metrics_*.csv`."""
    table = pd.read_csv(metrics)
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(table["epoch"], table["train_m_loss"], label="masked, training", color="C0")
    axes.plot(table["epoch"], table["train_um_loss"], label="visible, training", color="C0", alpha=0.4, ls="--")
    if "val_m_loss" in table:
        axes.plot(table["epoch"], table["val_m_loss"], label="masked, validation", color="C1")
    axes.set(xlabel="epoch", ylabel="squared error per patch", yscale="log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3, which="both")
    rates = axes.twinx()
    rates.plot(table["epoch"], table["avg_lr"], color="0.6", lw=0.8)
    rates.set_ylabel("learning rate (grey)", color="0.5")
    rates.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.legend(frameon=False)
    axes.set_title("Reconstruction loss", loc="left")
    return figure


def plot_reconstructions(rows: Sequence[Mapping[str, np.ndarray]], ids: Sequence[str], title: str) -> Figure:
    """True-colour panels, one patch a row; all images of a row share one stretch, taken from the first.

    Args:
        rows: per patch, column title to (C, H, W) stored Collection-2 numbers; the first column is the original.
            NaN is drawn grey (masked or fill).
        ids: one per row.
        title: of the figure.
    """
    columns = list(rows[0])
    figure = Figure(figsize=(2.1 * len(columns) + 0.3, 2.2 * len(rows) + 0.5), layout="constrained")
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for row, name, line in zip(rows, ids, grid, strict=True):
        original = _reflectance(row[columns[0]])
        low, high = np.nanpercentile(original, (2, 98)) if np.isfinite(original).any() else (0.0, 1.0)
        for column, axes in zip(columns, line, strict=True):
            image = (_reflectance(row[column]) - low) / max(high - low, 1e-3)
            axes.imshow(np.where(np.isfinite(image), image.clip(0, 1), 0.6), interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
        line[0].set_ylabel(name.removeprefix("S2A_MSIL2A_").removeprefix("S2B_MSIL2A_"), fontsize=7)
    for column, axes in zip(columns, grid[0], strict=True):
        axes.set_title(column, fontsize=9)
    figure.suptitle(title, fontsize=11)
    return figure


def _reflectance(numbers: np.ndarray) -> np.ndarray:
    """(C, H, W) stored numbers to (H, W, 3) true-colour reflectance."""
    return numbers[list(TRUE_COLOUR)].transpose(1, 2, 0) * REFLECTANCE_SCALE + REFLECTANCE_OFFSET


def plot_class_scores(per_class: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Horizontal bars of average precision and F1 for every class, the best average precision on top.

    Args:
        per_class: rows with `name`, `ap` (a fraction, None where it cannot be computed), `f1` and `support`.
        title: of the figure.
    """
    rows = sorted(per_class, key=lambda row: -1.0 if row["ap"] is None else row["ap"])
    names = [row["name"] if len(row["name"]) <= 40 else row["name"][:39] + "…" for row in rows]
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
