"""How far change maps can be believed: the table of `python -m docs.time_evidence change`."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, time
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from scipy import stats

from datasets.simulated import main as simulate
from docs.series_speed import made_with
from embed_series import main as embed_series
from scenes.products.embedding_file import EmbeddingMap, map_statistics
from scenes.series.distances import cell_distances, common_components, project
from scenes.series.null import SEASON_DAYS, default_pairs, discoveries, levelled, p_values, scores, season_gap
from utils.files import write_json, write_text
from utils.markdown import markdown_table
from utils.reporting import reporter

YEARS, SEASON = (2021, 2022), ("05-12", "06-13", "07-15", "08-16")
CHANGED_ON, SHARE = "2022-03-01", 0.1
FIRST_PLACE = 4
"""Places 1 to 3 were for choices."""
SIZE, STRIDE = 320, 20
"""Pixels of a place, and between windows."""
RATE = 0.1
"""Of false discoveries."""
MOST_CHANGED = 0.5
"""Share of a cell from which on it counts as changed; cells with less, but some, count as neither."""
KINDS = {
    "built up": (0, 1),
    "fields": (2, 3, 4, 5, 6, 7),
    "woods": (8, 9, 10, 13),
    "open land": (11, 12, 14),
    "wetland and water": (15, 16, 17, 18),
}
"""Classes that are alike: a change within a kind is hard to see, one between kinds easy."""
MEASURES = {
    "p <= 0.05 without change": "share of cells with p at most 0.05 where nothing has changed: 5 % are right",
    "lowest pair": "the same of the pair of dates with the fewest",
    "highest pair": "the same of the pair of dates with the most",
    "any discovery without change": "share of pairs of dates where some cell is called changed though none is",
    "false discoveries": "share of the cells called changed in which nothing has changed (asked for: 10 % at most)",
    "found, easy": "share of the changed cells that are called changed: another kind of land cover",
    "found, hard": "the same: another class of the same kind",
    "AUC": "how often a changed cell lies above an unchanged one",
}


class Place(NamedTuple):
    """One place, without a change and with one; cells in one row each."""

    moments: list[datetime]
    plain: list[EmbeddingMap]
    changed: list[EmbeddingMap]
    """The dates of the first year are those of `plain`."""
    share: np.ndarray
    """(rows, width) of a cell that has changed."""
    easy: np.ndarray
    """(rows, width) bool: most of what has changed is of another kind now."""


def make_place(seed: int, work: Path, checkpoint: str) -> Place:
    """Simulate and embed a place, as far as that is not done."""
    days = [f"{year}-{day}" for year in YEARS for day in SEASON]
    maps = {}
    for kind, dates in (("same", days), ("changed", days[len(SEASON) - 1 :])):
        scenes, out = work / "places" / f"{seed}_{kind}", work / "cells" / f"{seed}_{kind}"
        if not (out / "series.json").exists():
            change = ["--changed", str(SHARE), "--changed-on", CHANGED_ON] if kind == "changed" else []
            words = ["--size", str(SIZE), "--seed", str(seed), "--out", str(scenes), "--phenology", *change]
            simulate(["--kind", "scene", *words, "--dates", *dates])
            folders = sorted(str(scenes / day) for day in dates if kind == "same" or day > CHANGED_ON)
            embed_series(["--scenes", *folders, "--checkpoint", checkpoint, "--stride", str(STRIDE), "--out", str(out)])
        maps[kind] = [EmbeddingMap(path) for path in sorted(out.glob("embeddings_*.tif"))]
    moments = [datetime.combine(datetime.fromisoformat(day), time(10), UTC) for day in days]
    changed = [*maps["same"][: len(SEASON)], *maps["changed"]]
    return Place(moments, maps["same"], changed, *_truth(work / "places" / f"{seed}_changed", maps["same"][0]))


def _truth(folder: Path, like: EmbeddingMap) -> tuple[np.ndarray, np.ndarray]:
    """Changed share of each cell, and whether that is easy to see."""
    kind_of = np.full(256, -1)
    for number, members in enumerate(KINDS.values()):
        kind_of[list(members)] = number
    pixels = {}
    for name in ("before", "after", "changed"):
        with rasterio.open(folder / f"{name}.tif") as file:
            pixels[name], transform = file.read(1), file.transform
    side, spacing = round(like.transform.a / transform.a), transform.a
    top, left = round((like.transform.f - transform.f) / spacing), round((transform.c - like.transform.c) / spacing)
    height, width = pixels["changed"].shape
    changed = pixels["changed"] == 1
    other = changed & (kind_of[pixels["before"]] != kind_of[pixels["after"]])
    shares = []
    for values in (changed, other):
        ground = np.zeros((like.height * side, like.width * side))
        ground[top : top + height, left : left + width] = values
        shares.append(ground.reshape(like.height, side, like.width, side).mean(axis=(1, 3)))
    return shares[0], shares[1] > shares[0] / 2


class Dates:
    """The dates of a place, and ways from one to another."""

    def __init__(self, maps: Sequence[EmbeddingMap]) -> None:
        self.maps = maps
        axes = common_components([map_statistics(one) for one in maps])
        self.components = [project(one, axes) for one in maps]

    def shifted(self, one: int, other: int) -> np.ndarray:
        """(rows, width): the plain way, distance of vectors less the mean difference of all cells."""
        height = self.maps[one].height
        difference = self.maps[other].rows(0, height) - self.maps[one].rows(0, height)
        seen = np.isfinite(difference[..., 0])
        return np.linalg.norm(difference - difference[seen].mean(0), axis=-1)

    def unpredicted(self, one: int, other: int) -> np.ndarray:
        """(rows, width) as `--change` has them."""
        return cell_distances(self.components[one], self.components[other])


def _pooled(tested: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return tested, np.sort(pairs[np.isfinite(pairs)])


def _levelled(tested: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = levelled(tested, pairs)
    return found.tested, found.null


COMMAND = "the same less the cells' own levels (--change)"
Distances = Callable[[Dates, int, int], np.ndarray]
Scores = Callable[[np.ndarray], np.ndarray]
Null = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
WAYS: dict[str, tuple[Distances, Scores, Null]] = {
    "distances less the mean shift": (Dates.shifted, np.log, _pooled),
    "the same, every pair standardised": (Dates.shifted, scores, _pooled),
    "what one date does not say of the other, standardised": (Dates.unpredicted, scores, _pooled),
    COMMAND: (Dates.unpredicted, scores, _levelled),
}


class Compared(NamedTuple):
    """p-values of one pair of dates by one way, and what is known of the cells."""

    p: np.ndarray
    score: np.ndarray


def compare(way: str, moments: Sequence[datetime], maps: Sequence[EmbeddingMap]) -> list[Compared]:
    """All pairs of dates of one season, one date in each year, by the pairs that `--change` would take."""
    distances, score, null = WAYS[way]
    dates, known = Dates(maps), {}

    def scored(pair: tuple[int, int]) -> np.ndarray:
        if pair not in known:
            known[pair] = score(distances(dates, *pair))
        return known[pair]

    found, half = [], len(SEASON)
    for before, after in product(range(half), range(half, 2 * half)):
        if season_gap(moments[before], moments[after]) > SEASON_DAYS:
            continue
        pairs = default_pairs(moments, before, after)
        tested, sample = null(scored((before, after)), np.stack([scored(pair) for pair in pairs]))
        found.append(Compared(p_values(tested, sample), tested))
    return found


def measure(way: str, place: Place) -> dict[str, float]:
    """The measures of one place, each a mean over pairs of dates."""
    plain = compare(way, place.moments, place.plain)
    below = [float((one.p[np.isfinite(one.p)] <= 0.05).mean()) for one in plain]
    nothing, moved = place.share == 0, place.share >= MOST_CHANGED
    values: dict[str, list[float]] = {name: [] for name in ("false discoveries", "found, easy", "found, hard", "AUC")}
    for one in compare(way, place.moments, place.changed):
        seen, called = np.isfinite(one.p), discoveries(one.p, RATE)
        values["false discoveries"].append(float((called & nothing).sum() / max(called.sum(), 1)))
        for name, where in (("found, easy", place.easy), ("found, hard", ~place.easy)):
            if (seen & moved & where).any():
                values[name].append(float(called[seen & moved & where].mean()))
        ranks = stats.rankdata(np.concatenate([one.score[seen & moved], one.score[seen & nothing]]))
        count, rest = (seen & moved).sum(), (seen & nothing).sum()
        values["AUC"].append(float((ranks[:count].sum() - count * (count + 1) / 2) / (count * rest)))
    return {
        "p <= 0.05 without change": float(np.mean(below)),
        "lowest pair": min(below),
        "highest pair": max(below),
        "any discovery without change": float(np.mean([discoveries(one.p, RATE).any() for one in plain])),
        **{name: float(np.mean(found)) for name, found in values.items()},
    }


def summary(values: Sequence[float]) -> dict[str, float]:
    """Mean over places and its 95 % interval by Student's t."""
    mean = float(np.mean(values))
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)) if len(values) > 1 else float("nan")
    return {"mean": mean, "low": mean - half, "high": mean + half}


def change_tables(work: Path, out: Path, checkpoint: str, places: int) -> None:
    """Simulate, compare, write `change.json` and `change.md`."""
    rows: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for seed in range(FIRST_PLACE, FIRST_PLACE + places):
        place = make_place(seed, work, checkpoint)
        for way, found in rows.items():
            found.append(measure(way, place))
        reporter.info(f"place {seed}: {rows[COMMAND][-1]}")
    write_change(out, rows)


def write_change(out: Path, rows: dict[str, list[dict[str, float]]]) -> None:
    """Write the measures of every way and place, and their means over places."""
    places = len(next(iter(rows.values())))
    ways = {way: {name: summary([one[name] for one in found]) for name in MEASURES} for way, found in rows.items()}
    about = {"places": places, "first": FIRST_PLACE, "size": SIZE, "stride": STRIDE, "changed_parcels": SHARE}
    write_json(out / "change.json", {**about, "ways": ways, "of_places": rows, "made_with": made_with()})
    body = [[way, *(_shown(found[name]) for name in MEASURES)] for way, found in ways.items()]
    lines = "\n".join(f"- {name}: {about}" for name, about in MEASURES.items())
    title = f"Percent (AUC too), mean over {places} simulated places and 95 % interval (Student's t over places)."
    write_text(out / "change.md", f"{title}\n\n{markdown_table(['', *MEASURES], body)}\n\n{lines}\n")


def _shown(value: dict[str, float]) -> str:
    low, high = max(value["low"], 0.0), min(value["high"], 1.0)  # what is left of an interval of shares
    return f"{100 * value['mean']:.1f} ({100 * low:.1f} to {100 * high:.1f})"
