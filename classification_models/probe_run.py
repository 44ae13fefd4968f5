"""The run of `train_logistic_regression.py`: embedding files to a fitted, scored and written probe."""

import argparse
import logging
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
from utils.analysis_utils import plot_class_scores
from utils.errors import DataError
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


def fit_and_score(arguments: argparse.Namespace) -> None:
    """Fit, score, save, report.

    Args:
        arguments: the options of the script.

    Raises:
        UserError: naming the file or option that is not usable.
    """
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
