"""Latitude and longitude of a dataset's patches: the one place that takes them from its metadata."""

import numpy as np
from tqdm import tqdm

from datasets.patches import PatchDataset

READ = 128
"""Patches whose metadata are read at a time."""


def patch_coordinates(dataset: PatchDataset, progress: str | None = None) -> np.ndarray:
    """Latitude and longitude of every patch in degrees, (N, 2); NaN where unknown.

    Args:
        dataset: of N patches, with or without metadata.
        progress: label of a progress bar on a terminal; None shows none.
    """
    starts = range(0, len(dataset), READ)
    found = []
    for start in tqdm(starts, desc=progress, leave=False, disable=None if progress else True):
        rows = range(start, min(start + READ, len(dataset)))
        meta = dataset.gather(rows).meta
        found.append(np.full((len(rows), 2), np.nan) if meta is None else coordinates_of(meta))
    return np.concatenate([np.empty((0, 2)), *found])


def coordinates_of(meta: np.ndarray) -> np.ndarray:
    """Latitude and longitude in degrees, (N, 2), from the model's metadata (N, 4, 2) or (N, 8); NaN where missing."""
    pairs = np.asarray(meta, np.float64).reshape(-1, 4, 2)[:, 2:]  # (N, 2, 2): sin and cos of latitude and longitude
    degrees = np.degrees(np.arctan2(pairs[..., 0], pairs[..., 1]))
    return np.where((pairs == 0).all(axis=2), np.nan, degrees)  # (0, 0) stands for missing
