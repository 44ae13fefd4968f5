"""Scores of a description by a protocol, with intervals and paired differences, each worked out once."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from classification_models import fitting
from eval.probing.protocols import judge, score_probabilities
from eval.statistics.bootstrap import SHARE, Interval, Resampled, of_runs
from eval.statistics.weighted_metrics import statistics_of
from studies.engine.context import Bench
from studies.engine.data import Source
from studies.engine.resampling import resampled_stage
from studies.engine.runs import Described
from studies.report_parts.sections import Value
from utils.files import write_npz

Describe = Callable[[str, int], Described]
"""From a split ("train", "val", "test") and the index of a fold to that split in one description."""

METRIC_TITLES = {
    "map_micro": "micro mAP",
    "map_macro": "macro mAP",
    "accuracy": "accuracy",
    "f1_micro": "micro F1",
    "f1_macro": "macro F1",
    "exact_match": "exact match",
}

PERCENT = 100.0


class Scored(NamedTuple):
    """One description by one protocol, on all test patches of all folds."""

    name: str
    protocol: str
    source: str
    """Key of the dataset."""
    metrics: dict[str, Any]
    """Of all test patches together, as `score_multilabel` or `score_multiclass` gives them, fractions."""
    scores: np.ndarray
    """(N, L)"""
    labels: np.ndarray
    """(N, L) or (N,)"""
    ids: list[str]
    blocks: np.ndarray
    """(N,) of neighbouring patches, for the bootstrap."""
    details: list[dict[str, Any]]
    """What was fitted, one entry a fold."""
    digest: str


def headline(source: Source) -> str:
    """Landsat-Bench's figure for a dataset: "map_micro" or "accuracy"."""
    return "map_micro" if source.multilabel else "accuracy"


def shown_metrics(source: Source) -> tuple[str, ...]:
    """Metrics of a dataset's tables, the headline first."""
    if source.multilabel:
        return ("map_micro", "map_macro", "f1_micro", "f1_macro", "exact_match")
    return ("accuracy", "map_micro", "map_macro", "f1_macro")


def score(bench: Bench, name: str, protocol: str, describe: Describe, *, source: Source | None = None) -> Scored:
    """Judge a description.

    Args:
        bench: where.
        name: of the description, for folders: one name for one description, seeds told apart ("main/seed0/cls").
        protocol: a key of `eval.probing.protocols.PROTOCOLS`.
        describe: gives the splits.
        source: the dataset; None is the main one.
    """
    source = source or bench.data.main
    parts = [_score_fold(bench, name, protocol, describe, source, fold) for fold in range(len(source.folds))]
    scores, labels, train_labels, ids = (
        np.concatenate([part[key] for part in parts]) for key in ("scores", "labels", "train_labels", "ids")
    )
    metrics = parts[0]["metrics"]
    if len(parts) > 1:  # the patches of all folds are ranked together
        metrics = score_probabilities(scores, labels, train_labels, source.classes)
    details = [part["details"] for part in parts]
    digest = "/".join(part["digest"] for part in parts)
    ids = [str(patch_id) for patch_id in ids]
    return Scored(name, protocol, source.key, metrics, scores, labels, ids, source.blocks(ids), details, digest)


def _score_fold(
    bench: Bench, name: str, protocol: str, describe: Describe, source: Source, fold: int
) -> dict[str, Any]:
    splits = {split: describe(split, fold) for split in ("train", "val", "test") if source.split_file(split, fold)}
    inputs = {
        "protocol": protocol,
        "splits": {split: described.digest for split, described in splits.items()},
        "classes": list(source.classes),
        "seed": bench.config.seed,
    }

    def work(folder: Path) -> dict[str, Any]:
        train, val, test = (splits[key].vectors if key in splits else None for key in ("train", "val", "test"))
        with _without_warnings():  # whether a fit converged stands in the table
            found = judge(protocol, train, val, test, source.classes, seed=bench.config.seed)
        arrays = {"scores": found.scores, "labels": found.labels, "train_labels": train.y, "ids": np.array(test.ids)}
        write_npz(folder / "scores.npz", arrays)
        return {"metrics": found.metrics, "details": found.details}

    place = f"score/{source.key}/{name}/{source.folds[fold].name or 'all'}/{protocol}"
    stage = bench.workbench.stage(place, inputs, work, quiet=True)
    with np.load(stage.folder / "scores.npz") as arrays:
        return {**arrays, **stage.result, "digest": stage.digest}


def resampled(bench: Bench, scored: Scored) -> dict[str, Resampled]:
    """Every headline metric, a fraction, on the test set and on its resampled versions."""
    cut = hashlib.sha256(np.ascontiguousarray(scored.blocks, np.int64)).hexdigest()
    return resampled_stage(
        bench,
        f"intervals/{scored.source}/{scored.name}/{scored.protocol}",
        {"scores": scored.digest, "blocks": cut},
        lambda: (statistics_of(scored.metrics, scored.labels, scored.scores), scored.blocks),
        progress=f"intervals of {scored.name}",
        limits=SHARE,
    )


def interval(bench: Bench, scored: Scored | Sequence[Scored], metric: str) -> Value | None:
    """A metric in percent with its 95 % interval, for a table's cell.

    Args:
        bench: where.
        scored: one result, or one for each pretraining seed: then the mean, with the doubt about other seeds in it.
        metric: a key of `METRIC_TITLES`.
    """
    return in_percent(of_runs([resampled(bench, one)[metric] for one in _several(scored)]))


def difference(
    bench: Bench, first: Scored | Sequence[Scored], second: Scored | Sequence[Scored], metric: str
) -> Value | None:
    """`first` minus `second` in percentage points, on the same resampled patches and paired seed by seed.

    A side with one result stands beside every seed of the other.
    """
    ones, others = _several(first), _several(second)
    count = max(len(ones), len(others))
    if {len(ones), len(others)} - {1, count}:
        raise ValueError(f"{len(ones)} and {len(others)} results cannot be paired")
    pairs = zip(ones * (count // len(ones)), others * (count // len(others)), strict=True)
    return in_percent(of_runs([resampled(bench, a)[metric].minus(resampled(bench, b)[metric]) for a, b in pairs]))


def in_percent(found: Interval) -> Value | None:
    """A fraction as a table's cell; None where it is not defined."""
    if not np.isfinite(found.value):
        return None
    bounds = (None if bound is None else PERCENT * bound for bound in (found.low, found.high))
    return Value(PERCENT * found.value, *bounds)


@contextmanager
def _without_warnings() -> Iterator[None]:
    logger = logging.getLogger(fitting.__name__)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _several(scored: Scored | Sequence[Scored]) -> list[Scored]:
    return [scored] if isinstance(scored, Scored) else list(scored)
