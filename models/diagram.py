"""The architecture as a picture, drawn from a config: `python -m models.diagram --size S --out architecture.png`."""

import argparse
import sys

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from models.config import SIZES, ModelConfig
from models.masking import MaskingConfig, kept_patches
from models.moe_mae import MOEMAE, count_parameters
from utils.analysis_utils import save_figure
from utils.errors import run_script
from utils.reporting import reporter

_PIXELS, _META, _ENCODER, _DECODER = "#cfe3f5", "#fbe3c0", "#d6ecd2", "#e6d9ef"


def plot_architecture(config: ModelConfig) -> Figure:
    """The flow of one image on top; below, width and number of experts of every block."""
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    flow, blocks = figure.subplots(2, 1, height_ratios=(1.25, 1))
    _draw_flow(flow, config)
    _draw_blocks(blocks, config)
    total = count_parameters(MOEMAE(config))
    figure.suptitle(f"MoE-MAE for Landsat, size {config.size}: {total / 1e6:.2f} million parameters", x=0.01, ha="left")
    return figure


def _draw_flow(axes: Axes, c: ModelConfig) -> None:
    masking = MaskingConfig()
    kept = kept_patches(c.num_patches, masking.ratio)
    tokens = c.num_prefix + kept
    boxes = [  # x, y, width, height, colour, text
        (0.0, 0.55, 1.5, 0.4, _PIXELS, f"image\n{c.img_size} × {c.img_size} × {c.in_channels}\nz-scored"),
        (0.0, 0.05, 1.5, 0.4, _META, "metadata\n" + ", ".join(c.meta_fields) + "\n(sin, cos)"),
        (2.0, 0.55, 1.7, 0.4, _PIXELS, f"patches {c.patch_size} × {c.patch_size}\n{c.num_patches} × {c.embed_dim}"),
        (2.0, 0.05, 1.7, 0.4, _META, f"{len(c.meta_fields)} tokens and CLS\n{c.num_prefix} × {c.embed_dim}"),
        (4.2, 0.55, 1.6, 0.4, _PIXELS, f"keep {1 - masking.ratio:.0%}\n{kept} patches"),
        (6.3, 0.2, 1.9, 0.6, _ENCODER, f"encoder\n{c.depth} blocks\n{tokens} × {c.embed_dim}"),
        (8.7, 0.2, 1.9, 0.6, _DECODER, f"decoder\n{c.decoder_depth} blocks, mask tokens\n"
         f"{c.num_prefix + c.num_patches} × {c.decoder_dim}"),
        (11.1, 0.3, 1.5, 0.4, _PIXELS, f"predicted patches\n{c.num_patches} × {c.patch_values}"),
    ]  # fmt: skip
    for x, y, width, height, colour, text in boxes:
        axes.add_patch(_box(x, y, width, height, colour))
        axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=8)
    arrows = [
        ((1.5, 0.75), (2.0, 0.75)),
        ((1.5, 0.25), (2.0, 0.25)),
        ((3.7, 0.75), (4.2, 0.75)),
        ((5.8, 0.75), (6.3, 0.6)),
        ((3.7, 0.25), (6.3, 0.4)),
        ((8.2, 0.5), (8.7, 0.5)),
        ((10.6, 0.5), (11.1, 0.5)),
    ]
    for start, end in arrows:
        axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "0.35"})
    block = (
        f"block: x + attention(norm(x)), then x + experts(norm(x)). Attention: {c.num_heads} query heads share "
        f"{c.num_groups} key and value heads.\n"
        f"Experts: a noisy gate picks {c.k} of the SwiGLU experts for each token; "
        "V and W2 are shared."
    )
    axes.text(0, -0.12, block, fontsize=8, va="top")
    axes.set(xlim=(-0.1, 12.7), ylim=(-0.3, 1.02))
    axes.axis("off")


def _draw_blocks(axes: Axes, c: ModelConfig) -> None:
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


def _box(x: float, y: float, width: float, height: float, colour: str) -> Rectangle:
    return Rectangle((x, y), width, height, facecolor=colour, edgecolor="0.35", linewidth=0.8)


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Draw the architecture of a published size.")
    parser.add_argument("--size", choices=list(SIZES), default="S")
    parser.add_argument("--out", required=True, metavar="FILE.png")
    options = parser.parse_args(argv)
    reporter.info(save_figure(plot_architecture(ModelConfig.of_size(options.size)), options.out))
    return 0


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
