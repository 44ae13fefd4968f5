"""Series of vectors of simulated places, made once and kept: which places, on which days."""

import hashlib
import json
import zipfile
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from datasets.simulator.scene import SimulatedScene
from models.moe_mae import MOEMAE
from models.temporal import decimal_year
from temporal.places import CELL, Place, simulate_place
from utils.errors import DataError
from utils.files import atomic_path, make_folder
from utils.randomness import generator

PRETRAINING, STUDY = 0, 1
"""Halves of the simulator's overpasses, so that no place of a study lies where one of a pretraining does."""
VERSION = 1
"""Of how places are made."""


class PlaceRequest(NamedTuple):
    """One place, on some days."""

    seed: int
    days: tuple[date, ...]
    crops_and_woods: bool


class Series(NamedTuple):
    """N series of T dates."""

    vectors: np.ndarray  # (N, T, D) float32
    times: np.ndarray  # (N, T) decimal years
    growth: np.ndarray  # (N,) uint8, as `Place.growth`
    share: np.ndarray  # (N,)
    place: np.ndarray  # (N,) seed of the place

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything."""
        digest = hashlib.sha256()
        for array in self:
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def rows(self, chosen: np.ndarray) -> "Series":
        """Some of the series."""
        return Series(*(array[chosen] for array in self))


def place_seeds(count: int, first: int, half: int) -> list[int]:
    """Seeds of places from `first` on whose overpass belongs to a half of the simulator's."""
    found: list[int] = []
    while len(found) < count:
        if SimulatedScene(1, first).scene % 2 == half:
            found.append(first)
        first += 1
    return found


def random_days(count: int, first_year: int, last_year: int, most_years: int, seed: int) -> tuple[date, ...]:
    """Days of a place, spread over one year (of every second place) or up to `most_years`."""
    random = generator(seed, "days of a place")
    chance = torch.rand(3, generator=random, dtype=torch.float64)
    years = 1 if chance[0] < 0.5 else min(most_years, 2 + int(chance[1] * (most_years - 1)))
    year = first_year + int(chance[2] * (last_year - first_year + 2 - years))
    days = torch.randperm(365 * years, generator=random)[:count].sort().values.tolist()
    return tuple(date(year, 1, 1) + timedelta(days=day) for day in days)


def even_days(count: int, year: int) -> tuple[date, ...]:
    """Days in equal steps over a year."""
    return tuple(date(year, 1, 1) + timedelta(days=int(365 * (index + 0.5) / count)) for index in range(count))


def make_series(
    model: MOEMAE, encoder: str, pool: str, windows: int, requests: Sequence[PlaceRequest], folder: Path
) -> Series:
    """All series of some places; places that the folder holds are not made again.

    Args:
        model: the encoder.
        encoder: SHA-256 of its weights.
        pool: of its tokens.
        windows: along a side of a place.
        requests: the places, all with as many days.
        folder: for their vectors.

    Raises:
        DataError: a file there is damaged.
        UserError: nothing can be written there.
    """
    make_folder(folder)
    found = []
    for request in tqdm(requests, desc="places", leave=False, disable=None):
        inputs = [VERSION, encoder, pool, windows, CELL, request.seed, [str(day) for day in request.days],
                  request.crops_and_woods]  # fmt: skip
        digest = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]
        path = folder / f"place_{request.seed}_{digest}.npz"
        if not path.exists():
            _write(path, simulate_place(model, request.seed, request.days, windows, pool, request.crops_and_woods))
        found.append(_read(path, request))
    return Series(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _write(path: Path, place: Place) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, vectors=place.vectors.astype(np.float16), growth=place.growth, share=place.share)


def _read(path: Path, request: PlaceRequest) -> Series:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, Any] = {name: file[name] for name in ("vectors", "growth", "share")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: damaged; remove it and run the same command again") from error
    count = len(arrays["growth"])
    times = np.array([decimal_year(day) for day in request.days])
    return Series(
        arrays["vectors"].astype(np.float32),
        np.broadcast_to(times, (count, len(times))),
        arrays["growth"],
        arrays["share"],
        np.full(count, request.seed),
    )
