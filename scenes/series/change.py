"""What has changed between two dates: a map of distances, p-values and those to believe, and a picture of it."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scenes.products.embedding_file import EmbeddingMap, MapStatistics
from scenes.products.geotiffs import write_cog
from scenes.series.dates import Date, date_of
from scenes.series.distances import cell_distances, common_components, project
from scenes.series.null import (
    LEAST_CELLS,
    LEAST_PAIRS,
    default_pairs,
    discoveries,
    levelled,
    p_values,
    scores,
    thinned,
)
from scenes.series.settings import SeriesSettings
from utils.errors import ConfigError, DataError
from utils.files import make_folder
from utils.reporting import reporter

CHANGE_MAP, CHANGE_PICTURE = "change.tif", "change.png"
BANDS = ("distance", "p", "significant")


class Asked(NamedTuple):
    """Which dates are compared, and with which pairs: numbers of dates in the series."""

    before: int
    after: int
    null: list[tuple[int, int]]
    fdr: float


class Change(NamedTuple):
    """What is found, (rows, width) each, NaN where a cell is hidden on one of the dates."""

    distance: np.ndarray
    p: np.ndarray | None
    """None where the pairs that should not differ are too few."""
    significant: np.ndarray | None
    """Bool."""
    null_cells: int
    level: float
    """Share of cells' own levels that was taken off their scores."""


def asked_of(settings: SeriesSettings, dates: Sequence[Date]) -> Asked | None:
    """The comparison that is asked for, if any.

    Raises:
        ConfigError: for dates that are not in the series, or not in their order.
    """
    if settings.change is None:
        if settings.null:
            raise ConfigError("--null names dates for --change; give both")
        return None
    before, after = (date_of(text, dates, "--change") for text in settings.change)
    if before >= after:
        raise ConfigError(f"--change {' '.join(settings.change)}: give an earlier date, then a later one")
    if settings.null:
        named = sorted({date_of(text, dates, "--null") for text in settings.null})
        pairs = [pair for pair in combinations(named, 2) if pair != (before, after)]
    else:
        pairs = default_pairs([date.moment for date in dates], before, after)
    return Asked(before, after, thinned(pairs), settings.fdr)


class Components:
    """The components of the dates of a series, each computed once and read from the disk.

    Args:
        maps: the dates, on one lattice.
        parts: their statistics, some with cells.
        scratch: folder for what is computed.
    """

    def __init__(self, maps: Sequence[EmbeddingMap], parts: Sequence[MapStatistics], scratch: Path) -> None:
        self.maps, self.scratch = maps, make_folder(scratch)
        self.axes = common_components(parts)
        self.made: set[int] = set()

    def of(self, number: int) -> np.ndarray:
        """(rows, width, k) float32 of a date."""
        path = self.scratch / f"components_{number}.npy"
        if number not in self.made:
            np.save(path, project(self.maps[number], self.axes))
            self.made.add(number)
        return np.load(path, mmap_mode="r")

    def distances(self, one: int, other: int) -> np.ndarray:
        """(rows, width) distances between two dates."""
        return cell_distances(self.of(one), self.of(other))


def find_change(components: Components, asked: Asked) -> Change:
    """Compare two dates of a series.

    Args:
        components: of its dates.
        asked: which dates, and with which pairs.

    Raises:
        DataError: when no cell is visible on both.
    """
    distance = components.distances(asked.before, asked.after)
    if not np.isfinite(distance).any():
        raise DataError("--change: no cell is visible on both dates; choose other dates")
    pairs = [scores(components.distances(one, other)) for one, other in asked.null]
    found = levelled(scores(distance), np.stack(pairs) if pairs else np.zeros((0, *distance.shape)))
    if len(pairs) < LEAST_PAIRS or len(found.null) < LEAST_CELLS:
        reporter.info(
            f"note         {len(pairs)} pairs of dates with {len(found.null):,} cells that should not differ: too few "
            f"for p-values ({LEAST_PAIRS} pairs and {LEAST_CELLS} cells are the least); --null names dates"
        )
        return Change(distance, None, None, len(found.null), found.share)
    p = p_values(found.tested, found.null)
    return Change(distance, p, discoveries(p, asked.fdr), len(found.null), found.share)


def record_of(change: Change, asked: Asked, dates: Sequence[Date]) -> dict[str, Any]:
    """For `series.json`, as plain values."""
    texts = [date.text for date in dates]
    record: dict[str, Any] = {
        "before": texts[asked.before],
        "after": texts[asked.after],
        "null": [[texts[one], texts[other]] for one, other in asked.null],
        "null_cells": change.null_cells,
        "level": change.level,
        "cells": int(np.isfinite(change.distance).sum()),
    }
    if change.p is not None and change.significant is not None:
        found = int(change.significant.sum())
        record |= {
            "fdr": asked.fdr,
            "significant_cells": found,
            "share_below_0.05": float((change.p[np.isfinite(change.p)] <= 0.05).mean()),
            "largest_significant_p": float(change.p[change.significant].max()) if found else None,
        }
    return record


def write_change(path: Path, change: Change, like: EmbeddingMap, tags: dict[str, str], scratch: Path) -> Path:
    """Write the bands `BANDS`, the first alone where there is no p; nodata NaN where a cell is hidden.

    Args:
        path: the GeoTIFF.
        change: what is found.
        like: a map with the same cells.
        tags: what is compared.
        scratch: see `write_cog`.
    """
    bands = [change.distance]
    if change.p is not None and change.significant is not None:
        bands += [change.p, np.where(np.isfinite(change.p), change.significant, np.nan)]
    layer = like.layer(BANDS[: len(bands)], "float32", np.nan)._replace(tags=tags, resampling="nearest")
    return write_cog(path, layer, [np.stack(bands).astype(np.float32)], scratch)
