"""How good a map is: intersection over union of every class, with intervals over squares of ground."""

from typing import Any

import numpy as np

from eval.statistics.bootstrap import DRAWS, SHARE, Resampled, resample


def confusion_by_block(truth: np.ndarray, found: np.ndarray, blocks: np.ndarray, classes: int) -> np.ndarray:
    """Pixels by square, true class and class found.

    Args:
        truth, found: (N,) class indices.
        blocks: (N,) of the pixels; any whole numbers.
        classes: K.

    Returns:
        (squares, K, K) int64, squares in the order of their numbers.
    """
    names, block = np.unique(blocks, return_inverse=True)
    at = (block * classes + truth.astype(np.int64)) * classes + found.astype(np.int64)
    counts = np.bincount(at, minlength=len(names) * classes**2)
    return counts.reshape(len(names), classes, classes)


def class_ious(confusion: np.ndarray) -> np.ndarray:
    """(K,) intersection over union; NaN for a class that has no pixel in truth."""
    hits, true, found = np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(true > 0, hits / (true + found - hits), np.nan)


def mean_iou(confusion: np.ndarray) -> float:
    """Mean over the classes that have a pixel in truth; NaN where none has."""
    ious = class_ious(confusion)
    return float(np.nanmean(ious)) if np.isfinite(ious).any() else float("nan")


def resampled_miou(confusions: np.ndarray, seed: int, draws: int = DRAWS) -> Resampled:
    """Mean IoU on squares drawn anew; differences of several maps of the same squares are paired."""
    flat = confusions.reshape(len(confusions), -1).astype(np.float64)
    shape = confusions.shape[1:]

    def statistic(weights: np.ndarray) -> float:
        return mean_iou((weights @ flat).reshape(shape))

    return resample(statistic, np.arange(len(flat)), seed, draws, limits=SHARE)


def scored(confusions: np.ndarray, classes: tuple[str, ...], seed: int) -> dict[str, Any]:
    """All figures of a map, JSON-ready."""
    whole = confusions.sum(axis=0)
    interval = resampled_miou(confusions, seed).interval()
    ious = class_ious(whole)
    return {
        "miou": interval.value,
        "low": interval.low,
        "high": interval.high,
        "accuracy": float(np.trace(whole) / max(1, whole.sum())),
        "pixels": int(whole.sum()),
        "squares": len(confusions),
        "per_class": {
            name: {"iou": None if np.isnan(iou) else float(iou), "pixels": int(count)}
            for name, iou, count in zip(classes, ious, whole.sum(axis=1), strict=True)
        },
    }
