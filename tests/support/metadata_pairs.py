"""What a model is given for some weeks, hours and places, written down from the definition in the paper."""

from collections.abc import Sequence

import numpy as np


def pairs(week: Sequence[float], hour: Sequence[float], lat: Sequence[float], lon: Sequence[float]) -> np.ndarray:
    """(N, 4, 2) float32: rows (sin, cos) of week * 2 pi / 52, hour * 2 pi / 24, and degrees."""
    columns = np.stack([np.asarray(values, np.float64) for values in (week, hour, lat, lon)], axis=1)
    angles = columns * np.array([2 * np.pi / 52, 2 * np.pi / 24, np.pi / 180, np.pi / 180])
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).astype(np.float32)
