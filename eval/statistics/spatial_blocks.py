"""Which patches lie close together: blocks for the bootstrap, and splits that keep an area on one side.

An id such as `S2A_MSIL2A_20170613T101031_11_66` names an acquisition and the patch's column and row (of 1,200 m) in its
tile, but not the tile itself: patches of several tiles share a second, and one tile's patches differ by a second or two
where two would have had the same name. So, by ids, a block is a square of columns and rows of one acquisition, in all
of its tiles: neighbours are never in different blocks, at the price of fewer blocks. By place it is a
square on the globe, whatever the tile and date.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree

from utils.data_utils import parse_patch_id
from utils.errors import ConfigError, DataError
from utils.randomness import derive_seed

CELL = 10
"""Columns and rows of patches in a block: 12 km."""

PATCH_KM = 1.2
"""Side of a BigEarthNet patch."""

SAME_PASS_SECONDS = 60
"""Acquisitions of one satellite at most so far apart are one; its orbits are 100 minutes apart."""

KM_PER_DEGREE = 111.2
"""Of latitude, on a sphere of 6,371 km."""

_ID_END = re.compile(r"_(\d+)_(\d+)$")


class PatchCell(NamedTuple):
    """Location of a patch in a BigEarthNet id."""

    satellite: str
    when: datetime
    column: int
    row: int


def parse_cell(patch_id: str) -> PatchCell | None:
    """Acquisition, column and row of a BigEarthNet id; None for any other."""
    try:
        when = parse_patch_id(patch_id).when
    except DataError:
        return None
    end = _ID_END.search(patch_id)
    if end is None:
        return None
    column, row = map(int, end.groups())
    return PatchCell(patch_id[:3], when, column, row)


def neighbour_blocks(ids: Sequence[str], places: np.ndarray | None = None, cell: int = CELL) -> np.ndarray:
    """The block of every patch, (N,) whole numbers from 0.

    Args:
        ids: of the patches. One without acquisition, column and row (all of EuroSAT-Landsat's) is a
            block of its own, unless its place is known.
        places: (N, 2) latitude and longitude in degrees, NaN where unknown (`PatchDataset.places`).
            Where known, they decide.
        cell: side of a block, in patches of 1.2 km.
    """
    cells = [parse_cell(patch_id) for patch_id in ids]
    passes = _passes(cells)
    keys: list[tuple] = []
    for index, found in enumerate(cells):
        place = None if places is None else places[index]
        if place is not None and np.isfinite(place).all():
            keys.append(("place", *_square(place, cell * PATCH_KM)))
        elif found is not None:
            keys.append(("pass", passes[found.satellite, found.when], found.column // cell, found.row // cell))
        else:
            keys.append(("alone", index))
    number = {key: count for count, key in enumerate(dict.fromkeys(keys))}
    return np.array([number[key] for key in keys], np.int64)


def describe_blocks(ids: Sequence[str], blocks: np.ndarray) -> str:
    """One sentence for a report: how many blocks, and what they are where ids hold no location."""
    count = len(np.unique(blocks))
    if count == len(ids) and not any(map(parse_cell, ids)):
        return f"{len(ids):,} patches; their names hold no location, so each is a block of its own"
    return f"{len(ids):,} patches in {count:,} blocks of neighbouring patches"


def touching(ids: Sequence[str], places: np.ndarray | None, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Which of the `first` patches have one of the `second` beside them, also across a corner: (N,) booleans.

    Args:
        ids, places: of N patches, as for `neighbour_blocks`; those without a location touch nothing.
        first, second: (N,) booleans.
    """
    beside = np.zeros(len(ids), bool)
    for points, distance, metric in _positions(ids, places):
        known = np.isfinite(points).all(axis=1)
        ours, others = np.flatnonzero(known & first), np.flatnonzero(known & second)
        if len(ours) and len(others):
            nearest, _ = KDTree(points[others]).query(points[ours], p=metric, distance_upper_bound=distance)
            beside[ours] |= np.isfinite(nearest)
    return beside


def split_by_area(
    ids: Sequence[str],
    shares: Mapping[str, float],
    seed: int,
    places: np.ndarray | None = None,
    cell: int = CELL,
) -> dict[str, list[str]]:
    """Splits that keep the patches of a block on one side, as large as their shares but for a block.

    Args:
        ids: of all patches, each once.
        shares: split name to its share; they need not sum to 1.
        seed: which block goes where is a function of it and the ids.
        places, cell: see `neighbour_blocks`.

    Returns:
        Split name to its ids, in the order given.

    Raises:
        ConfigError: for shares that are no shares, or fewer blocks than splits.
    """
    if not shares or any(not share > 0 for share in shares.values()):
        raise ConfigError(f"the shares of an area split must be positive numbers, got {dict(shares)}")
    blocks = neighbour_blocks(ids, places, cell)
    sizes = np.bincount(blocks)
    if len(sizes) < len(shares):
        raise ConfigError(f"{len(ids)} patches lie in {len(sizes)} areas, too few for {len(shares)} splits")
    names = list(shares)
    wanted = np.array([shares[name] for name in names]) / sum(shares.values())
    order = np.random.default_rng(derive_seed(seed, "area split")).permutation(len(sizes))
    split_of, filled = np.empty(len(sizes), int), np.zeros(len(names))
    for left, block in zip(range(len(order), 0, -1), order, strict=True):
        fullness = (filled + sizes[block]) / wanted
        if left <= (filled == 0).sum():  # no split goes without
            fullness[filled > 0] = np.inf
        split_of[block] = np.argmin(fullness)
        filled[split_of[block]] += sizes[block]
    chosen = split_of[blocks]
    return {
        name: [patch_id for patch_id, split in zip(ids, chosen, strict=True) if split == index]
        for index, name in enumerate(names)
    }


def area_folds(ids: Sequence[str], count: int, seed: int, places: np.ndarray | None = None) -> np.ndarray:
    """The fold of every patch, (N,) from 0 to `count` - 1, equally large but for a block; blocks stay whole."""
    splits = split_by_area(ids, {str(fold): 1.0 for fold in range(count)}, seed, places)
    fold_of = {patch_id: int(fold) for fold, members in splits.items() for patch_id in members}
    return np.array([fold_of[patch_id] for patch_id in ids])


def _passes(cells: Sequence[PatchCell | None]) -> dict[tuple[str, datetime], int]:
    """Satellite and time to the number of its overpass."""
    times = sorted({(cell.satellite, cell.when) for cell in cells if cell is not None})
    numbers = {times[0]: 0} if times else {}
    for before, now in itertools.pairwise(times):
        same = before[0] == now[0] and (now[1] - before[1]).total_seconds() <= SAME_PASS_SECONDS
        numbers[now] = numbers[before] if same else len(numbers)
    return numbers


def _square(place: np.ndarray, side_km: float) -> tuple[int, int]:
    """Band of latitude and number of the square in it, with sides of about `side_km`."""
    latitude, longitude = place
    band = int(np.floor(latitude * KM_PER_DEGREE / side_km))
    middle = np.radians((band + 0.5) * side_km / KM_PER_DEGREE)
    return band, int(np.floor(longitude * KM_PER_DEGREE * max(np.cos(middle), 0.0) / side_km))


def _positions(ids: Sequence[str], places: np.ndarray | None) -> Iterator[tuple[np.ndarray, float, float]]:
    """Points of N patches (NaN where unknown), the distance of neighbours between them, and the metric's power."""
    cells = [parse_cell(patch_id) for patch_id in ids]
    passes = _passes(cells)
    columns = np.full((len(ids), 3), np.nan)
    for index, cell in enumerate(cells):
        if cell is not None:
            columns[index] = passes[cell.satellite, cell.when] * 10, cell.column, cell.row
    yield columns, 1.5, np.inf
    if places is not None:
        latitude, longitude = np.radians(places).T
        globe = np.stack([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)])
        yield globe.T * np.degrees(KM_PER_DEGREE), 1.5 * PATCH_KM, 2.0
