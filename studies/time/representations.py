"""Series of embeddings as vectors that a linear probe takes: means, spreads, dates side by side, the module."""

from collections.abc import Callable

import numpy as np
import torch

from models.temporal import TemporalModule, fitted_year, harmonics
from temporal.series import Series

YEAR_RIDGE = (0.0, 0.3, 0.3, 0.6, 0.6)
"""Of the least-squares year without the module, which few dates would leave undetermined."""


def present_on(series: Series, least: int | None, most: int, seed: int) -> np.ndarray:
    """Which dates are seen, (N, T) bool, the same for all cells of a place.

    Args:
        series: of some places.
        least, most: how many dates a place is seen on, at random days; least None: on all.
        seed: of the choice.
    """
    count, dates = series.times.shape[0], series.times.shape[1]
    seen = np.ones((count, dates), bool)
    if least is None:
        return seen
    for place in np.unique(series.place):
        random = np.random.default_rng([seed, int(place)])
        kept = random.choice(dates, int(random.integers(least, most + 1)), replace=False)
        seen[series.place == place] = np.isin(np.arange(dates), kept)
    return seen


def mean_of_dates(series: Series, seen: np.ndarray) -> np.ndarray:
    """(N, D)"""
    return np.nanmean(_with_gaps(series, seen), axis=1)


def mean_and_spread(series: Series, seen: np.ndarray) -> np.ndarray:
    """(N, 2 D)"""
    values = _with_gaps(series, seen)
    return np.concatenate([np.nanmean(values, axis=1), np.nanstd(values, axis=1)], axis=1)


def side_by_side(series: Series, seen: np.ndarray) -> np.ndarray:
    """(N, T D); a missing date is interpolated in time between its neighbours, around the turn of the year."""
    filled = series.vectors.copy()
    for place in np.unique(series.place):
        rows = np.flatnonzero(series.place == place)
        on, season = seen[rows[0]], series.times[rows[0]] % 1.0
        order = np.argsort(season[on])
        known = season[on][order]
        known = np.concatenate([known[-1:] - 1, known, known[:1] + 1])
        values = series.vectors[rows][:, on][:, order]
        values = np.concatenate([values[:, -1:], values, values[:, :1]], axis=1)
        for date in np.flatnonzero(~on):
            after = int(np.clip(np.searchsorted(known, season[date]), 1, len(known) - 1))
            share = (season[date] - known[after - 1]) / (known[after] - known[after - 1])
            filled[rows, date] = (1 - share) * values[:, after - 1] + share * values[:, after]
    return filled.reshape(len(filled), -1)


def year_of_dates(series: Series, seen: np.ndarray) -> np.ndarray:
    """(N, 5 D): mean and two harmonics of the year fitted to the dates themselves, with a penalty on the harmonics."""
    basis = harmonics(torch.from_numpy(np.array(series.times))).numpy()
    weighted = (basis * seen[..., None]).transpose(0, 2, 1)
    year = np.linalg.solve(weighted @ basis + np.diag(YEAR_RIDGE), weighted @ series.vectors)
    return year.reshape(len(year), -1)


def of_module(module: TemporalModule) -> Callable[[Series, np.ndarray], np.ndarray]:
    """(N, 5 D) of the temporal module."""

    @torch.no_grad()
    def vectors(series: Series, seen: np.ndarray) -> np.ndarray:
        return module(*(torch.from_numpy(np.array(part)) for part in (series.vectors, series.times, seen))).numpy()

    return vectors


def foretold_only(module: TemporalModule) -> Callable[[Series, np.ndarray], np.ndarray]:
    """(N, 5 D): the year of what the module foretells, without what was seen."""

    @torch.no_grad()
    def vectors(series: Series, seen: np.ndarray) -> np.ndarray:
        values, times, present = (torch.from_numpy(np.array(part)) for part in (series.vectors, series.times, seen))
        days = module.steps_around(times.mean(dim=1, keepdim=True))
        told, _ = module.foretell(values, times, present, days)
        return fitted_year(told, days, torch.ones_like(days).float()).flatten(1).numpy()

    return vectors


def _with_gaps(series: Series, seen: np.ndarray) -> np.ndarray:
    return np.where(seen[..., None], series.vectors, np.nan)
