"""Figures of what the experts do, from the arrays of `eval.experts`; returned, never shown.

Dimensions: L blocks with experts, E experts of the widest block, C classes. NaN is drawn empty: no such expert.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch

from utils.analysis_utils import MARKERS, short_id, short_name, true_colour
from utils.colour_vision import palette

EXPERT_COLOURS = ("#e69f00", "#0072b2", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442", "#000000")
"""Distinguishable by colour-blind readers (Okabe and Ito 2008)."""


def plot_expert_values(
    values: np.ndarray, blocks: Sequence[int], title: str, label: str, signed: bool = False, digits: int = 2
) -> Figure:
    """A number for every expert of every block.

    Args:
        values: (L, E).
        blocks: (L,) indices in the encoder.
        title: of the figure.
        label: of the numbers.
        signed: colours for numbers on both sides of 0.
        digits: after the point of the numbers written into the cells.
    """
    figure = Figure(figsize=(1.8 + 1.0 * values.shape[1], 1.4 + 0.36 * len(values)), layout="constrained")
    axes = figure.subplots()
    most = np.nanmax(np.abs(values))
    drawn = _matrix(axes, values, "PuOr" if signed else "Blues", -most if signed else 0.0, most, digits)
    axes.set_xticks(range(values.shape[1]))
    axes.set_yticks(range(len(values)), [str(block) for block in blocks])
    axes.set(xlabel="expert", ylabel="block")
    axes.set_title(title, loc="left", fontsize=10)
    figure.colorbar(drawn, label=label)
    return figure


def plot_routing_entropy(gates: np.ndarray, usage: np.ndarray, blocks: Sequence[int], title: str) -> Figure:
    """Two entropies by block, (L,) each, as shares of their largest possible value."""
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(blocks, gates, "o-", label="a token's gates: 1 mixes the chosen experts evenly")
    axes.plot(blocks, usage, "s--", label="the block's usage: 1 uses all experts equally")
    axes.set(xlabel="block", ylabel="entropy / maximum", ylim=(0, 1.05), xticks=list(blocks))
    axes.set_title(title, loc="left", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="lower right")
    return figure


def plot_share_matrices(shares: Mapping[str, np.ndarray], rows: Sequence[str], title: str) -> Figure:
    """Matrices of each row's shares of a block's experts, side by side.

    Args:
        shares: panel title to (rows, E).
        rows: their names, the same in every panel.
        title: of the figure.
    """
    present = [row for row in range(len(rows)) if any(np.isfinite(matrix[row]).any() for matrix in shares.values())]
    most = max(np.nanmax(matrix) for matrix in shares.values())
    figure = Figure(figsize=(3.0 + 2.3 * len(shares), 1.3 + 0.28 * len(present)), layout="constrained")
    grid = figure.subplots(1, len(shares), squeeze=False, sharey=True)[0]
    for axes, (name, matrix) in zip(grid, shares.items(), strict=True):
        experts = int(np.isfinite(matrix).any(axis=0).sum())
        drawn = _matrix(axes, matrix[present][:, :experts], "Blues", 0.0, most, 2)
        axes.set_xticks(range(experts))
        axes.set_xlabel("expert")
        axes.set_title(name, fontsize=9)
    grid[0].set_yticks(range(len(present)), [short_name(rows[row], 32) for row in present], fontsize=8)
    figure.colorbar(drawn, ax=list(grid), label="share of choices", shrink=0.8)
    figure.suptitle(title, fontsize=10)
    return figure


def plot_assignment_maps(
    images: np.ndarray | Sequence[np.ndarray],
    maps: Sequence[Mapping[str, tuple[np.ndarray, np.ndarray]]],
    ids: Sequence[str],
    title: str,
) -> Figure:
    """True-colour images, and which expert each of their patch tokens went to; stronger colour is a larger gate.

    Args:
        images: (C, H, W) digital numbers each.
        maps: per image, column title to (grid, grid) best experts, below 0 where the encoder saw nothing, and
            (grid, grid) gates between 0 and 1.
        ids: one per image.
        title: of the figure.
    """
    columns = list(maps[0])
    figure = Figure(figsize=(1.9 * (len(columns) + 1) + 0.3, 1.95 * len(images) + 0.9), layout="constrained")
    grid = figure.subplots(len(images), len(columns) + 1, squeeze=False)
    seen = set()
    for line, numbers, name, found in zip(grid, images, ids, maps, strict=True):
        colours = true_colour(numbers)
        line[0].imshow(colours, interpolation="nearest")
        line[0].set_ylabel(short_id(name), fontsize=7)
        for axes, column in zip(line[1:], columns, strict=True):
            experts, gates = found[column]
            seen |= set(np.unique(experts[experts >= 0]).tolist())
            _overlay(axes, colours.mean(axis=-1), experts, gates)
    for axes in grid.ravel():
        axes.set(xticks=[], yticks=[])
    for axes, column in zip(grid[0], ["true colour", *columns], strict=True):
        axes.set_title(column, fontsize=9)
    handles = [
        Patch(color=tuple(_expert_colour(np.array(expert))), label=f"expert {expert}") for expert in sorted(seen)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.suptitle(title, fontsize=10)
    return figure


def plot_label_information(nmi: np.ndarray, shuffled: np.ndarray, blocks: Sequence[int], title: str) -> Figure:
    """Mean over the classes of the information between expert and label, by block, and its null distribution.

    Args:
        nmi: (L, C).
        shuffled: (R, L, C); the band spans the R shuffles.
        blocks: (L,) indices in the encoder.
        title: of the figure.
    """
    controls = {"shuffled labels": shuffled.mean(axis=2)}
    return plot_information({"labels": nmi.mean(axis=1)}, controls, blocks, title, "NMI, mean over classes")


def plot_information(
    found: Mapping[str, np.ndarray],
    controls: Mapping[str, np.ndarray],
    blocks: Sequence[int],
    title: str,
    label: str = "NMI",
) -> Figure:
    """Information in the experts by block, and null distributions.

    Args:
        found: name to (L,).
        controls: name to (R, L); a band spans the R draws and a line is their mean.
        blocks: (L,) indices in the encoder.
        title: of the figure.
        label: of the numbers.
    """
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axes = figure.subplots()
    colours = [tuple(colour) for colour in palette(len(found) + len(controls))]
    for index, (name, values) in enumerate(found.items()):
        axes.plot(blocks, values, MARKERS[index % len(MARKERS)] + "-", color=colours[index], label=name)
    for colour, (name, draws) in zip(colours[len(found) :], controls.items(), strict=True):
        axes.fill_between(blocks, draws.min(axis=0), draws.max(axis=0), color=colour, alpha=0.3, linewidth=0)
        axes.plot(blocks, draws.mean(axis=0), color=colour, label=f"{name} (mean and range)")
    axes.set(xlabel="block", ylabel=label, xticks=list(blocks))
    axes.set_ylim(bottom=0.0)
    axes.set_title(title, loc="left", fontsize=10)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)  # lines may lie anywhere
    return figure


def plot_value_maps(
    images: np.ndarray | Sequence[np.ndarray],
    maps: Sequence[Mapping[str, np.ndarray]],
    ids: Sequence[str],
    title: str,
    label: str,
) -> Figure:
    """True-colour images, and numbers of their patch tokens; one scale for all.

    Args:
        images: (C, H, W) digital numbers each.
        maps: per image, column title to (grid, grid) numbers from 0 on.
        ids: one per image.
        title: of the figure.
        label: of the numbers.
    """
    columns = list(maps[0])
    figure = Figure(figsize=(1.9 * (len(columns) + 1) + 1.0, 1.95 * len(images) + 0.6), layout="constrained")
    grid = figure.subplots(len(images), len(columns) + 1, squeeze=False)
    most = max(float(np.nanmax(found[column])) for found in maps for column in columns) or 1.0
    for line, numbers, name, found in zip(grid, images, ids, maps, strict=True):
        line[0].imshow(true_colour(numbers), interpolation="nearest")
        line[0].set_ylabel(short_id(name), fontsize=7)
        for axes, column in zip(line[1:], columns, strict=True):
            drawn = axes.imshow(found[column], cmap="viridis", vmin=0.0, vmax=most, interpolation="nearest")
    for axes in grid.ravel():
        axes.set(xticks=[], yticks=[])
    for axes, column in zip(grid[0], ["true colour", *columns], strict=True):
        axes.set_title(column, fontsize=9)
    figure.colorbar(drawn, ax=list(grid.ravel()), label=label, shrink=0.8)
    figure.suptitle(title, fontsize=10)
    return figure


def plot_expert_table(panels: Mapping[str, tuple[np.ndarray, bool, int]], blocks: Sequence[int], title: str) -> Figure:
    """Several numbers for every expert of every block, a panel for each.

    Args:
        panels: panel title to (L, E) numbers, whether they lie on both sides of 0, and their digits after the point.
        blocks: (L,) indices in the encoder.
        title: of the figure.
    """
    experts = next(iter(panels.values()))[0].shape[1]
    columns = 2
    rows = -(-len(panels) // columns)
    size = (columns * (0.9 + 0.62 * experts), rows * (0.9 + 0.3 * len(blocks)) + 0.3)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes, (name, (values, signed, digits)) in zip(grid, panels.items(), strict=False):
        most = np.nanmax(np.abs(values))
        _matrix(axes, values, "PuOr" if signed else "Blues", -most if signed else 0.0, most, digits)
        axes.set_xticks(range(experts))
        axes.set_yticks(range(len(blocks)), [str(block) for block in blocks])
        axes.set(xlabel="expert", ylabel="block")
        axes.set_title(name, loc="left", fontsize=9)
    figure.suptitle(title, fontsize=10)
    return figure


def plot_planes(panels: Mapping[str, tuple[np.ndarray, np.ndarray, Sequence[str]]], title: str) -> Figure:
    """Points on planes, two panels a row; those of a row share their classes, named beside it.

    Args:
        panels: panel title to (n, 2) points, (n,) class indices and the classes' names.
        title: of the figure.
    """
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(11, 3.9 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, 2, squeeze=False)
    for place, (axes, (name, (points, classes, names))) in enumerate(zip(grid.ravel(), panels.items(), strict=False)):
        colours = palette(len(names))
        for index in map(int, np.unique(classes)):
            chosen = classes == index
            look = {"color": tuple(colours[index]), "marker": MARKERS[index % len(MARKERS)]}
            axes.scatter(*points[chosen].T, s=9, label=short_name(names[index]), **look)
        axes.set(xticks=[], yticks=[])
        axes.set_title(name, loc="left", fontsize=9)
        if place % 2:
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=7, markerscale=1.5)
    figure.suptitle(title, fontsize=10)
    return figure


def plot_pairs(values: np.ndarray, names: Sequence[str], title: str, label: str) -> Figure:
    """A symmetric (C, C) matrix of numbers between 0 and 1 about pairs of named things; NaN stays empty."""
    side = 2.6 + 0.5 * len(names)
    figure = Figure(figsize=(side + 1.6, side), layout="constrained")
    axes = figure.subplots()
    drawn = _matrix(axes, values, "Blues_r", 0.0, 1.0, 2)
    short = [short_name(name, 28) for name in names]
    axes.set_xticks(range(len(names)), short, rotation=35, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), short, fontsize=8)
    axes.set_title(title, loc="left", fontsize=10)
    figure.colorbar(drawn, label=label, shrink=0.8)
    return figure


def _matrix(axes: Axes, values: np.ndarray, cmap: str, low: float, high: float, digits: int) -> AxesImage:
    """Draw a matrix with its numbers in the cells."""
    drawn = axes.imshow(values, cmap=cmap, vmin=low, vmax=high, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            red, green, blue, _ = drawn.cmap(drawn.norm(value))
            ink = "black" if 0.3 * red + 0.6 * green + 0.1 * blue > 0.5 else "white"
            text = f"{np.round(value, digits) + 0.0:.{digits}f}"  # no -0.00
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=ink)
    return drawn


def _overlay(axes: Axes, grey: np.ndarray, experts: np.ndarray, gates: np.ndarray) -> None:
    """Expert colours over a grey (H, W) image, as opaque as the gate is large."""
    extent = (-0.5, grey.shape[1] - 0.5, grey.shape[0] - 0.5, -0.5)
    axes.imshow(grey, cmap="gray", vmin=0.0, vmax=1.0, extent=extent)
    seen = experts >= 0
    alpha = np.where(seen, 0.85 * np.where(seen, gates, 0.0), 0.0)
    axes.imshow(_expert_colour(experts), alpha=alpha, extent=extent, interpolation="nearest")


def _expert_colour(experts: np.ndarray) -> np.ndarray:
    """(...) expert numbers to (..., 3) colours between 0 and 1."""
    table = np.array([to_rgb(code) for code in EXPERT_COLOURS])
    return table[experts % len(table)]
