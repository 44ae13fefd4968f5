"""Fit the linear probe on embeddings and score it.

    python train_logistic_regression.py --train T.npz [--val V.npz] [--test S.npz] --out DIR --name NAME

Writes `<NAME>_<YYYYmmdd-HHMMSS>` as .joblib (as published; a pickle), .npz (the same as plain arrays), .json (settings,
provenance, scores) and .png (scores per class) into DIR.
"""

import argparse
import logging
import re
from os.path import expanduser
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sklearn

from classification_models.embeddings import (
    Embeddings,
    check_same_source,
    class_names,
    read_embeddings,
    resolve_labels,
    select_features,
)
from classification_models.logistic_regression import LogisticRegressionModel
from classification_models.probe_files import ProbeFiles, new_run, write_run
from classification_models.scores import class_table, score_probe, summary_table
from classification_models.solvers import PRECONDITIONED, SOLVERS
from utils.analysis_utils import plot_class_scores
from utils.arguments import ArgumentParser
from utils.errors import DataError, run_script
from utils.files import check_writable
from utils.reporting import reporter

logger = logging.getLogger(__name__)

MOST_CLASSES = 10_000
"""Class indices from here on are taken for a mistake."""

RECORD_VERSION = "simple-1.1"
"""Of the JSON: the published keys ("simple-1.0") and more."""


class Split(NamedTuple):
    """One embedding file, ready to fit or to score."""

    source: Embeddings
    x: np.ndarray  # (N, D)
    y: np.ndarray  # (N,) class index or (N, L) multi-hot
    multilabel: bool


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


def load_splits(arguments: argparse.Namespace) -> dict[str, Split]:
    """Read the files given, train first, and check that they fit together.

    Raises:
        DataError: naming the file (or the two) and what is wrong.
    """
    splits: dict[str, Split] = {}
    multilabel = arguments.multilabel
    for name in ("train", "val", "test"):
        path = getattr(arguments, name)
        if path is None:
            continue
        source = read_embeddings(path)
        labels = resolve_labels(source, multilabel)
        if splits:
            check_same_source(splits["train"].source, source)
        elif multilabel is None and source.y.ndim == 2:
            kind = "multilabel" if labels.multilabel else "one-hot multiclass, one label in every row"
            reporter.info(f"{source.path.name}: y {source.y.shape} taken as {kind}")
        multilabel = labels.multilabel
        x = select_features(source, arguments.pool, arguments.feature_slice)
        splits[name] = Split(source, x, labels.y, labels.multilabel)
        _check_fits(splits["train"], splits[name])
    return splits


def _check_fits(train: Split, other: Split) -> None:
    for what, first, second in (
        ("features", train.x.shape[1], other.x.shape[1]),
        ("label columns", train.y.shape[1:], other.y.shape[1:]),
    ):
        if first != second:
            raise DataError(f"{other.source.path}: {second} {what}, but {train.source.path} has {first}")
    if other is not train and train.source.ids is not None and other.source.ids is not None:
        shared = len(np.intersect1d(train.source.ids, other.source.ids))
        if shared:
            logger.warning(
                f"warning: {other.source.path}: {shared} ids are fitted on, too, so its scores are optimistic"
            )


def name_classes(splits: dict[str, Split]) -> list[str]:
    """Names of all classes that occur in any split or in the JSON beside the training file."""
    train = splits["train"]
    count = train.y.shape[1] if train.multilabel else 1 + max(int(split.y.max()) for split in splits.values())
    if count > MOST_CLASSES:
        raise DataError(f"{train.source.path}: a class index of {count - 1} is no class; check y in the files")
    return class_names(train.source, count)


def find_constant_labels(train: Split, names: list[str]) -> list[str]:
    """Names of the labels that are constant in training, so that nothing can be fitted; each gives a warning."""
    positives = train.y.sum(axis=0) if train.multilabel else np.bincount(train.y, minlength=len(names))
    found = []
    for reason, which in (("no positive", positives == 0), ("no negative", positives == len(train.y))):
        listed = [names[label] for label in np.flatnonzero(which)]
        if listed:
            logger.warning(
                f"warning: {train.source.path}: {reason} for {', '.join(listed)}; "
                f"constant score, left out of macro scores"
            )
        found += listed
    return found


def make_record(
    arguments: argparse.Namespace,
    files: ProbeFiles,
    splits: dict[str, Split],
    probe: LogisticRegressionModel,
    names: list[str],
    constant: list[str],
    metrics: dict[str, Any],
) -> dict[str, Any]:
    """The run's JSON: the published keys first."""
    given = {name: getattr(arguments, name) for name in ("train", "val", "test")}
    shapes = {
        f"{axis}_shape_{name}": list(getattr(splits[name], axis).shape) if name in splits else None
        for name in given
        for axis in ("x", "y")
    }
    columns = arguments.feature_slice
    text = ":".join("" if end is None else str(end) for end in (columns.start, columns.stop)) if columns else None
    return {
        "run_id": files.run_id,
        "train_npz": given["train"],
        "val_npz": given["val"],
        "test_npz": given["test"],
        **shapes,
        "multilabel": probe.multilabel,
        "feature_slice": text,
        "pool": arguments.pool,
        "n_jobs": arguments.n_jobs,
        "C": arguments.C,
        "scale": arguments.scale,
        "seed": arguments.seed,
        **probe.report,
        "classes": names,
        "constant_labels": constant,
        "metrics": metrics,
        "embeddings": {name: split.source.provenance for name, split in splits.items()},
        "files": {suffix: path.name for suffix, path in zip(files._fields[1:], files[1:], strict=True)},
        "scikit_learn": sklearn.__version__,
        "version": RECORD_VERSION,
        "timestamp": files.run_id,
    }


def describe_fit(train: Split, probe: LogisticRegressionModel) -> str:
    """Two lines: what was fitted, and how."""
    report = probe.report
    outputs = f"{train.y.shape[1]} labels" if probe.multilabel else f"{len(probe.classes_)} classes"
    state = "converged" if report["converged"] else "NOT converged"
    where = " in the space of rows" if report["fitted_in"] == "rows" else ""
    return (
        f"fitted on    {len(train.x):,} patches x {train.x.shape[1]:,} features, {outputs}\n"
        f"solver       {report['solver']}{where} on {report['device']}, {state} in {max(report['n_iter'])} iterations, "
        f"{report['seconds']:.1f} s"
    )


def main(argv: list[str] | None = None) -> int:
    """Fit, score, save, report; returns the exit code."""
    arguments = parse_arguments(argv)
    settings = {
        name: getattr(arguments, name)
        for name in ("scale", "max_iter", "seed", "n_jobs", "C", "solver", "tol", "device")
    }
    probe = LogisticRegressionModel(**settings, verbose=True)
    check_writable(arguments.out)
    splits = load_splits(arguments)
    train = splits["train"]
    names = name_classes(splits)
    probe.multilabel = train.multilabel
    probe.fit(train.x, train.y)
    constant = find_constant_labels(train, names)
    metrics = {
        name: score_probe(probe, split.x, split.y, names, train.y) for name, split in splits.items() if name != "train"
    }
    shown = next((name for name in ("test", "val") if name in metrics), None)
    with new_run(arguments.out, arguments.name) as files:
        title = f"Linear probe {arguments.name}, {shown} split"
        figure = plot_class_scores(metrics[shown]["per_class"], title) if shown else None
        record = make_record(arguments, files, splits, probe, names, constant, metrics)
        written = write_run(files, probe, record, figure)
    reporter.info(describe_fit(train, probe))
    if shown:
        reporter.info(f"\n{summary_table(metrics)}\n\n{class_table(metrics[shown])}\n")
    reporter.info(f"files        {written[0].parent}")
    for path in written:
        reporter.info(f"             {path.name}")
    return 0


if __name__ == "__main__":
    run_script(main)
