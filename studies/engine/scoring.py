"""Scores of a representation by a protocol, with intervals and paired differences, each computed once."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from classification_models import fitting
from eval.probing.protocols import run_protocol
from eval.probing.representation import score_probabilities
from eval.statistics.bootstrap import SHARE, Interval, Resampled, of_runs
from eval.statistics.weighted_metrics import statistics_of
from studies.engine.context import StudyContext
from studies.engine.data import Source
from studies.engine.runs import SplitRepresentation
from studies.report_parts.sections import Value
from utils.files import write_npz

Representation = Callable[[str, int], SplitRepresentation]
"""From a split ("train", "val", "test") and the index of a fold to that split in one representation."""

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
    """One representation by one protocol, on all test patches of all folds."""

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


def score(
    context: StudyContext, name: str, protocol: str, representation: Representation, *, source: Source | None = None
) -> Scored:
    """Evaluate a representation.

    Args:
        context: config, data and stages of this reproduction.
        name: of the representation, for folders, with its seed ("main/seed0/cls").
        protocol: a key of `eval.probing.protocols.PROTOCOLS`.
        representation: gives the splits.
        source: the dataset; None is the main one.
    """
    source = source or context.data.main
    parts = [_score_fold(context, name, protocol, representation, source, fold) for fold in range(len(source.folds))]
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
    context: StudyContext, name: str, protocol: str, representation: Representation, source: Source, fold: int
) -> dict[str, Any]:
    train = representation("train", fold)
    val = representation("val", fold) if source.split_file("val", fold) else None
    test = representation("test", fold)
    splits = {"train": train, **({"val": val} if val else {}), "test": test}
    inputs = {
        "protocol": protocol,
        "splits": {split: one.digest for split, one in splits.items()},
        "classes": list(source.classes),
        "seed": context.config.seed,
    }

    def work(folder: Path) -> dict[str, Any]:
        validation = None if val is None else val.vectors
        with _without_warnings():  # whether a fit converged stands in the table
            found = run_protocol(
                protocol, train.vectors, validation, test.vectors, source.classes, seed=context.config.seed
            )
        arrays = {"scores": found.scores, "labels": found.labels, "train_labels": train.vectors.y,
                  "ids": np.array(test.vectors.ids)}  # fmt: skip
        write_npz(folder / "scores.npz", arrays)
        return {"metrics": found.metrics, "details": found.details}

    place = f"score/{source.key}/{name}/{source.folds[fold].name or 'all'}/{protocol}"
    stage = context.cache.stage(place, inputs, work, quiet=True)
    with np.load(stage.folder / "scores.npz") as arrays:
        return {**arrays, **stage.result, "digest": stage.digest}


def resampled(context: StudyContext, scored: Scored) -> dict[str, Resampled]:
    """Every headline metric, a fraction, on the test set and on its resampled versions."""
    cut = hashlib.sha256(scored.blocks.astype(np.int64).tobytes()).hexdigest()
    return context.resampled(
        f"intervals/{scored.source}/{scored.name}/{scored.protocol}",
        {"scores": scored.digest, "blocks": cut},
        lambda: (statistics_of(scored.metrics, scored.labels, scored.scores), scored.blocks),
        progress=f"intervals of {scored.name}",
        limits=SHARE,
    )


def interval(context: StudyContext, scored: Scored | Sequence[Scored], metric: str) -> Value | None:
    """A metric in percent with its 95 % interval, for a table's cell.

    Args:
        context: config, data and stages of this reproduction.
        scored: one result, or one for each pretraining seed: then the mean, with the variance over seeds.
        metric: a key of `METRIC_TITLES`.
    """
    return in_percent(of_runs([resampled(context, one)[metric] for one in _several(scored)]))


def difference(
    context: StudyContext, first: Scored | Sequence[Scored], second: Scored | Sequence[Scored], metric: str
) -> Value | None:
    """`first` minus `second` in percentage points, on the same resampled patches and paired seed by seed.

    A side with one result is paired with every seed of the other.
    """
    ones, others = _several(first), _several(second)
    count = max(len(ones), len(others))
    if {len(ones), len(others)} - {1, count}:
        raise ValueError(f"{len(ones)} and {len(others)} results cannot be paired")
    pairs = zip(ones * (count // len(ones)), others * (count // len(others)), strict=True)
    return in_percent(of_runs([resampled(context, a)[metric].minus(resampled(context, b)[metric]) for a, b in pairs]))


def in_percent(found: Interval) -> Value | None:
    """A fraction as a table's cell; None where it is not defined."""
    return Value.of(found, PERCENT) if np.isfinite(found.value) else None


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
