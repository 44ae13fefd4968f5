"""A land-cover map against a raster of the truth."""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window

from scenes.products.labelled import Truth, cell_classes
from scenes.products.land_cover import NO_CLASS
from scenes.windows import Frame
from utils.errors import ConfigError, DataError


def check_classes(truth: Truth, classes: tuple[str, ...]) -> None:
    """Refuse a truth whose classes are not the probe's. Raises ConfigError."""
    if truth.classes is not None and truth.classes != classes:
        raise ConfigError(
            f"{truth.path}: its classes are not the probe's ({len(truth.classes)} and {len(classes)}, or other names); "
            "give a probe fitted on these classes, or leave --truth out"
        )


def score_land_cover(land_cover: Path, truth: Truth, frame: Frame, classes: tuple[str, ...]) -> dict[str, Any]:
    """Compare each visible cell with the class that covers most of it.

    Returns:
        Cells that count, accuracy, macro F1 over the classes that occur, the accuracy of always naming the most
        frequent class, the mean share of a cell that its main class covers, and recall and precision by class.

    Raises:
        DataError: when no visible cell has a class, or the truth has classes that the probe has not.
    """
    size = len(classes)
    counts = np.zeros((size, size), np.int64)  # true by mapped class
    purity = 0.0
    with rasterio.open(land_cover) as mapped:
        for row, known in enumerate(cell_classes(truth, frame)):
            named = mapped.read(1, window=Window.from_slices((row, row + 1), (0, mapped.width)))[0]
            use = (named != NO_CLASS) & known.known
            if use.any() and known.main[use].max() >= size:
                raise DataError(f"{truth.path}: holds class {known.main[use].max()}, the probe knows 0 to {size - 1}")
            purity += float(known.share[use].sum())
            np.add.at(counts, (known.main[use], named[use]), 1)
    total, right = int(counts.sum()), counts.diagonal()
    if not total:
        raise DataError(f"{truth.path}: names no class in any visible cell; check that it belongs to this scene")
    true, named = counts.sum(axis=1), counts.sum(axis=0)
    recall, precision = right / np.maximum(true, 1), right / np.maximum(named, 1)
    f1 = 2 * right / np.maximum(true + named, 1)
    return {
        "cells": total,
        "accuracy": float(right.sum() / total),
        "f1_macro": float(f1[true > 0].mean()),
        "most_frequent_class": float(true.max() / total),
        "mean_share_of_main_class": purity / total,
        "per_class": {
            name: {"cells": int(true[i]), "recall": float(recall[i]), "precision": float(precision[i])}
            for i, name in enumerate(classes)
            if true[i]
        },
    }
