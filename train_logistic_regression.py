"""Fit the linear probe on embeddings and score it.

    python train_logistic_regression.py --train T.npz [--val V.npz] [--test S.npz] --out DIR --name NAME

Writes `<NAME>_<YYYYmmdd-HHMMSS>` as .joblib (as published; a pickle), .npz (the same as plain arrays), .json (settings,
provenance, scores) and .png (scores per class) into DIR.
"""

import argparse
import re
from os.path import expanduser
from pathlib import Path

from classification_models.solvers import PRECONDITIONED, SOLVERS
from utils.arguments import ArgumentParser
from utils.errors import run_script


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")
    return text.lower() == "true"


def _columns(text: str) -> slice:
    match = re.fullmatch(r"(\d*):(\d*)", text)
    start, stop = (int(part) if part else None for part in match.groups()) if match else (None, None)
    if match is None or (stop is not None and stop <= (start or 0)):
        raise argparse.ArgumentTypeError(f"expected A:B with 0 <= A < B, for example 576:720, got {text!r}")
    return slice(start, stop)


def _name(text: str) -> str:
    if not text or text.startswith(".") or Path(text).name != text:
        raise argparse.ArgumentTypeError(f"expected the beginning of a file name, got {text!r}")
    return text


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        ConfigError: for an unknown flag or an impossible value.
    """
    parser = ArgumentParser(description="Fit a linear probe (L2 logistic regression) on embeddings and score it.")
    add = parser.add_argument
    add("--train", required=True, type=expanduser, metavar="T.npz", help="embeddings to fit on")
    add("--val", type=expanduser, metavar="V.npz", help="embeddings to score")
    add("--test", type=expanduser, metavar="S.npz", help="embeddings to score")
    add("--out", required=True, type=expanduser, metavar="DIR", help="folder for the results")
    add("--name", default="logistic_regression", type=_name, help="beginning of their names (default: %(default)s)")
    add("--multilabel", type=_boolean, metavar="true|false", help="several labels per patch (default: read off y)")
    add("--pool", type=_boolean, default=False, metavar="true|false", help="average the tokens (default: false)")
    add("--feature-slice", type=_columns, metavar="A:B", help="use these features only: 576:720 is the CLS token of S")
    add("--n-jobs", type=int, default=4, help="threads, -1 for one per core (default: %(default)s, at most the cores)")
    add("--C", type=float, default=1.0, help="inverse strength of the L2 penalty (default: %(default)s)")
    add("--scale", type=_boolean, default=False, metavar="true|false", help="standardise features (default: false)")
    add(
        "--solver",
        default="auto",
        choices=("auto", *SOLVERS),
        help=f"auto (default): newton-cholesky for small problems, {PRECONDITIONED} beyond; Landsat-Bench: sag",
    )
    add("--device", default="auto", help=f"auto (default), cpu or cuda: where {PRECONDITIONED} runs")
    add("--max-iter", type=int, help="limit of iterations (default: the solver's own)")
    add("--tol", type=float, help="stopping tolerance (default: the solver's own; see SOLVERS in solvers.py)")
    add("--seed", type=int, default=0, help="of sag and saga (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if arguments.pool and arguments.feature_slice is not None:
        parser.error("--pool true and --feature-slice exclude each other: averaging needs all tokens")
    if arguments.seed < 0:
        parser.error(f"argument --seed: expected 0 or more, got {arguments.seed}")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Fit, score, save, report; returns the exit code."""
    arguments = parse_arguments(argv)
    from classification_models.probe_run import fit_and_score

    fit_and_score(arguments)
    return 0


if __name__ == "__main__":
    run_script(main)
