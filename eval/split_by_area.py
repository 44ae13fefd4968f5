"""Split files for BigEarthNet-Landsat that keep areas on one side, to stand beside the published ones.

    python -m eval.split_by_area --dataset_path DIR --dataset_csv CSV [CSV ...] [--out DIR]

Writes `area-train.csv`, `area-val.csv` and `area-test.csv` (no header, one id a line) with the patches of the files
given. A patch's area is a square on the globe, so other dates and overlapping tiles of the same ground stay together.
"""

import argparse
import sys

from utils.arguments import user_path
from utils.errors import ConfigError, run_script

SPLITS = ("train", "val", "test")


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(argv)
    if min(options.shares or (1, 1, 1)) <= 0 or (options.cell is not None and options.cell < 1):
        raise ConfigError("--shares must be three numbers above 0, --cell at least 1")
    if options.shares is None and len(options.dataset_csv) != len(SPLITS):
        raise ConfigError("give --shares TRAIN VAL TEST, or three split files, whose sizes are then kept")
    from eval.area_files import write_area_splits

    write_area_splits(
        options.dataset_path,
        options.dataset_csv,
        options.out or options.dataset_path,
        options.shares,
        options.cell,
        options.gap,
        options.seed,
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eval.split_by_area", description="Split files that keep neighbouring patches on one side."
    )
    add = parser.add_argument
    add(
        "--dataset_path",
        required=True,
        type=user_path,
        metavar="DIR",
        help="BigEarthNet-Landsat's folder, or a pack of it",
    )
    add("--dataset_csv", required=True, nargs="+", metavar="CSV", help="split files: the patches to be split anew")
    add("--out", type=user_path, metavar="DIR", help="where the new files go (default: beside the given ones, DIR)")
    add("--shares", nargs=3, type=float, metavar=("TRAIN", "VAL", "TEST"),
        help="sizes (default: those of the three files given)")  # fmt: skip
    add("--cell", type=int, metavar="N", help="side of a square in patches of 1.2 km (default: 10)")
    add("--gap", action="store_true", help="leave out training and validation patches that lie beside a test patch")
    add("--seed", type=int, default=0, help="which square goes where (default: %(default)s)")
    return parser


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
