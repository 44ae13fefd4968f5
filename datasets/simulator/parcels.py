"""Parcels of land: a division of a scene's plane that every date of a place shares."""

from functools import cached_property

import numpy as np
import torch

from utils.randomness import generator

_JITTER = 0.9
"""Share of a grid cell within which its parcel's seed point lies."""


class Parcels:
    """Voronoi cells of one jittered point in every cell of a grid, read off in whole rows.

    Args:
        size: height and width of the scene in pixels.
        spacing: side of a parcel in pixels, about.
        seed, role: same seed and role, same parcels.
    """

    def __init__(self, size: int, spacing: int, seed: int, role: str) -> None:
        self.size, self.spacing, self.seed, self.role = size, spacing, seed, role
        self.side = -(-size // spacing) + 2
        shift = self.uniform(2, "points").reshape(self.side, self.side, 2) - 0.5
        rows, columns = np.mgrid[0 : self.side, 0 : self.side]
        corner = np.stack([rows, columns], axis=-1) - 0.5
        self.points = (corner + _JITTER * shift) * spacing
        """(side, side, 2) row and column of every parcel's point; a border of parcels lies around the scene."""

    def uniform(self, count: int, *purpose: str | int) -> np.ndarray:
        """(parcels, count) numbers in [0, 1), the same for the same purpose."""
        random = generator(self.seed, f"{self.role} parcels", *purpose)
        return torch.rand(self.side**2, count, generator=random, dtype=torch.float64).numpy()

    def normal(self, count: int, *purpose: str | int) -> np.ndarray:
        """(parcels, count) standard normal numbers, the same for the same purpose."""
        random = generator(self.seed, f"{self.role} parcels", *purpose)
        return torch.randn(self.side**2, count, generator=random, dtype=torch.float64).numpy()

    @cached_property
    def inside(self) -> np.ndarray:
        """Indices of the parcels whose point lies in the scene."""
        return np.flatnonzero(((self.points >= 0) & (self.points < self.size)).all(axis=-1))

    def read(self, top: int, height: int) -> np.ndarray:
        """(height, size) index of the parcel of every pixel of these rows."""
        rows, columns = np.mgrid[top : top + height, 0 : self.size]
        row, column = rows // self.spacing + 1, columns // self.spacing + 1
        nearest = np.full(rows.shape, np.inf)
        index = np.zeros(rows.shape, int)
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                point = self.points[row + down, column + right]
                distance = (point[..., 0] - rows) ** 2 + (point[..., 1] - columns) ** 2
                closer = distance < nearest
                nearest[closer] = distance[closer]
                index[closer] = ((row + down) * self.side + column + right)[closer]
        return index
