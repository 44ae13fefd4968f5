"""What a series is worth beside one date: `python -m studies.time --out outputs/time`.

Simulated crops and woods that look alike on one date, classified by a linear probe on places that no pretraining has
seen: the temporal module's vector beside one date, the mean of the dates, mean and spread, all dates side by side, and
a year fitted to the dates alone. Places are made once and kept in the folder.
"""

import argparse
import sys

from utils.arguments import ArgumentParser, user_path
from utils.errors import run_script


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = ArgumentParser(prog="python -m studies.time", description="What a series is worth beside one date.")
    parser.add_argument("--out", required=True, type=user_path, metavar="DIR", help="folder for places and results")
    parser.add_argument("--module", type=user_path, metavar="FILE", help="weights of the module (default: shipped)")
    parser.add_argument("--checkpoint", default="xxs", metavar="WEIGHTS", help="the encoder (default: xxs)")
    parser.add_argument("--fit", type=int, default=20, metavar="N", help="places to fit probes on (default: 20)")
    parser.add_argument("--score", type=int, default=16, metavar="N", help="other places to score (default: 16)")
    parser.add_argument("--first", type=int, default=300_000, metavar="SEED",
                        help="of the places to score (default: 300000)")  # fmt: skip
    parser.add_argument("--years", type=int, nargs="+", default=[2022, 2023], metavar="YEAR",
                        help="of the scored places; probes are fitted in the first (default: 2022 2023)")  # fmt: skip
    parser.add_argument("--windows", type=int, default=5, metavar="N", help="along a side of a place (default: 5)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Make what is not there yet, score, write tables; returns the exit code."""
    arguments = parse_arguments(argv)
    from models.temporal_weights import SHIPPED, read_temporal
    from studies.time.study import StudyPlaces, measure, write_tables
    from utils.files import check_writable

    module = read_temporal(arguments.module or SHIPPED)
    places = StudyPlaces(arguments.fit, arguments.score, arguments.windows, arguments.first, tuple(arguments.years))
    rows = measure(module, arguments.checkpoint, places, check_writable(arguments.out))
    write_tables(arguments.out, rows, places)
    return 0


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
