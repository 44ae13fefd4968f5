"""The architecture as a picture, drawn from a config: the work of `python -m models.diagram`."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from models.config import ModelConfig
from models.masking import MaskingConfig, kept_patches
from models.moe_mae import MOEMAE, count_parameters

_PIXELS, _META, _ENCODER, _DECODER, _OFF = "#cfe3f5", "#fbe3c0", "#d6ecd2", "#e6d9ef", "#f1f1f1"
_ARROW = {"arrowstyle": "->", "color": "0.3", "linewidth": 1.1}
_TEXT = 9.5


def plot_architecture(config: ModelConfig) -> Figure:
    """The flow of one image on top, one block with its mixture of experts, and the experts' widths in every block."""
    figure = Figure(figsize=(12, 10.4), layout="constrained")
    flow, block, widths = figure.subplots(3, 1, height_ratios=(1.25, 1.6, 0.9))
    _draw_flow(flow, config)
    _draw_block(block, config)
    _draw_widths(widths, config)
    total = count_parameters(MOEMAE(config))
    figure.suptitle(f"MoE-MAE for Landsat, size {config.size}: {total / 1e6:.2f} million parameters", x=0.01, ha="left")
    return figure


def _draw_flow(axes: Axes, c: ModelConfig) -> None:
    """An image and its metadata to tokens, encoder, decoder and back."""
    masking = MaskingConfig()
    kept = kept_patches(c.num_patches, masking.ratio)
    names = (*c.meta_fields, "CLS")
    _write(
        axes, 0.0, 0.56, 1.55, 0.4, _PIXELS, f"image patch\n{c.img_size} × {c.img_size} pixels\n{c.in_channels} bands"
    )
    _write(axes, 0.0, 0.05, 1.55, 0.34, _META, "time and place\n(sin, cos) of each")
    grid = range(c.grid)
    side, left, bottom = 0.4 / c.grid, 2.0, 0.56
    wide = side * 3.1  # the panel is wider than high
    shown = set(np.random.default_rng(0).permutation(c.num_patches)[:kept].tolist())
    for row in grid:
        for column in grid:
            colour = _PIXELS if row * c.grid + column in shown else _OFF
            axes.add_patch(_box(left + column * wide, bottom + row * side, wide, side, colour, 0.4))
    kept_tokens = f"{c.num_patches} tokens of\n{c.patch_size} × {c.patch_size} pixels,\n{kept} are kept"
    axes.text(left + c.grid * wide + 0.15, 0.76, kept_tokens, fontsize=_TEXT, va="center")
    step = 2.9 / len(names)
    for place, name in enumerate(names):
        _write(axes, 2.0 + place * step, 0.12, step - 0.08, 0.2, _META, name)
    axes.text(2.0, 0.04, f"one token for each metadata field, and CLS: {c.num_prefix}", fontsize=_TEXT, va="top")
    tokens = c.num_prefix + kept
    _write(axes, 5.7, 0.2, 1.9, 0.6, _ENCODER, f"encoder\n{c.depth} blocks\n{tokens} tokens × {c.embed_dim}")
    decoder = f"decoder\n{c.decoder_depth} blocks, mask tokens\n{c.num_prefix + c.num_patches} tokens × {c.decoder_dim}"
    _write(axes, 8.2, 0.2, 2.15, 0.6, _DECODER, decoder)
    _write(axes, 10.95, 0.3, 1.65, 0.4, _PIXELS, f"all {c.num_patches} tokens\nas pixels\n({c.patch_values} values)")
    for start, end in (
        ((1.55, 0.76), (2.0, 0.76)), ((1.55, 0.22), (2.0, 0.22)), ((4.45, 0.73), (5.7, 0.62)),
        ((4.85, 0.22), (5.7, 0.36)), ((7.6, 0.5), (8.2, 0.5)), ((10.35, 0.5), (10.95, 0.5)),
    ):  # fmt: skip
        axes.annotate("", end, start, arrowprops=_ARROW)
    axes.set(xlim=(-0.1, 12.7), ylim=(-0.08, 1.02))
    axes.axis("off")


def _draw_block(axes: Axes, c: ModelConfig) -> None:
    """One encoder block, opened where it has its experts; drawn with the experts of the last one."""
    experts = c.experts[-1]
    chosen = [(2 * number + 1) % experts for number in range(c.k)]
    heads = f"attention\n{c.num_heads} query heads,\n{c.num_groups} of keys and values"
    _write(axes, 0.0, 0.42, 0.75, 0.2, _OFF, "token x")
    _write(axes, 1.1, 0.4, 1.9, 0.24, _ENCODER, "norm, grouped-query\n" + heads)
    _write(axes, 3.4, 0.44, 0.4, 0.16, _OFF, "+")
    _write(axes, 4.15, 0.44, 0.65, 0.16, _ENCODER, "norm")
    noise = "$W_g$x + noise ⊙ softplus($W_{noise}$x)"
    _write(axes, 5.0, 0.8, 3.1, 0.2, _META, f"gate: {noise}\ntop {c.k} of {experts}, softmax")
    spacing = 0.62 / experts
    for number in range(experts):
        bottom = 0.62 - number * spacing
        on = number in chosen
        label = f"expert {number + 1}: SiLU($W^{{({number + 1})}}$x)"
        _write(axes, 5.6, bottom, 1.95, spacing * 0.72, _ENCODER if on else _OFF, label, "0.1" if on else "0.6")
        style = _ARROW | ({} if on else {"color": "0.82"})
        middle = bottom + spacing * 0.36
        axes.annotate("", (5.6, middle), (4.8, 0.52), arrowprops=style)
        axes.annotate("", (8.45, 0.41), (7.55, middle), arrowprops=style)
        if on:
            share = f"gate {number + 1}"
            axes.text(7.62, middle - 0.1, share, fontsize=_TEXT - 1, color="#8a5a00", ha="left", va="bottom")
    _write(axes, 8.45, 0.3, 0.95, 0.22, _ENCODER, "weighted\nsum Σ")
    _write(axes, 9.65, 0.3, 1.75, 0.22, _META, "⊙ Vx, then W2:\nshared by all experts")
    _write(axes, 11.65, 0.33, 0.4, 0.16, _OFF, "+")
    for start, end in (
        ((0.75, 0.52), (1.1, 0.52)), ((3.0, 0.52), (3.4, 0.52)), ((3.8, 0.52), (4.15, 0.52)),
        ((9.4, 0.41), (9.65, 0.41)), ((11.4, 0.41), (11.65, 0.41)), ((12.05, 0.41), (12.5, 0.41)),
        ((4.6, 0.6), (5.0, 0.86)),
    ):  # fmt: skip
        axes.annotate("", end, start, arrowprops=_ARROW)
    for first, last, level, at, to in ((0.38, 3.6, 0.74, 0.62, 0.6), (3.6, 11.85, -0.08, 0.44, 0.33)):
        axes.plot((first, first, last), (at, level, level), color="0.3", lw=1.1)  # the way around
        axes.annotate("", (last, to), (last, level), arrowprops=_ARROW)
    axes.annotate("", (8.0, 0.54), (7.4, 0.8), arrowprops=_ARROW | {"color": "#8a5a00", "linestyle": "--"})
    axes.text(0, 1.0, "one block of the encoder: its mixture of experts", fontsize=11, va="top", weight="bold")
    axes.set(xlim=(-0.1, 12.7), ylim=(-0.14, 1.04))
    axes.axis("off")


def _draw_widths(axes: Axes, c: ModelConfig) -> None:
    widths = [*c.expert_widths, *[c.decoder_width] * c.decoder_depth]
    experts = [*c.experts, *[c.decoder_experts] * c.decoder_depth]
    positions = [*range(c.depth), *[c.depth + 0.6 + i for i in range(c.decoder_depth)]]
    for place, (x, width, count) in enumerate(zip(positions, widths, experts, strict=True)):
        colour = _ENCODER if place < c.depth else _DECODER
        for e in range(count):
            axes.add_patch(_box(x + 0.08 + e * 0.84 / count, 0, 0.84 / count, width, colour))
        axes.text(x + 0.5, width + 3, str(width), ha="center", fontsize=8)
    axes.set(xlim=(-0.1, positions[-1] + 1.1), ylim=(0, max(widths) * 1.15))
    labels = [*map(str, range(c.depth)), *[f"d{i}" for i in range(c.decoder_depth)]]
    axes.set_xticks([x + 0.5 for x in positions], labels)
    axes.set(ylabel="expert width", xlabel="encoder block, then decoder block; one bar per expert")
    axes.spines[["top", "right"]].set_visible(False)


def _box(x: float, y: float, width: float, height: float, colour: str, line: float = 0.8) -> Rectangle:
    return Rectangle((x, y), width, height, facecolor=colour, edgecolor="0.35", linewidth=line)


def _write(
    axes: Axes, x: float, y: float, width: float, height: float, colour: str, text: str, ink: str = "0.1"
) -> None:
    """A box with text in its middle."""
    axes.add_patch(_box(x, y, width, height, colour))
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=_TEXT, color=ink)
