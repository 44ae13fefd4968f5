"""The architecture as a picture, drawn from a config: `python -m models.diagram --size S --out architecture.png`."""

import argparse
import sys

from utils.entry_points import lazy_names
from utils.errors import run_script
from utils.reporting import reporter

__getattr__ = lazy_names(__name__, "models.architecture_figure:plot_architecture")

SIZES = ("S", "XS", "XXS")
"""Of `models.config`, which waits for PyTorch."""


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Draw the architecture of a published size.")
    parser.add_argument("--size", choices=SIZES, default="S")
    parser.add_argument("--out", required=True, metavar="FILE.png")
    options = parser.parse_args(argv)
    from models.architecture_figure import plot_architecture
    from models.config import ModelConfig
    from utils.analysis_utils import save_figure

    reporter.info(save_figure(plot_architecture(ModelConfig.of_size(options.size)), options.out))
    return 0


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
