"""Reflectance of ETM+ and TM beside OLI's: published lines between the two, band by band.

Roy et al. 2016, Remote Sensing of Environment 185, 57-70, doi:10.1016/j.rse.2015.12.024, Table 2, surface reflectance:
59 million pixels of the conterminous United States that Landsat 7 and 8 saw a day apart. Ordinary least squares (OLS)
predicts one sensor's number from the other's, so that noise flattens its lines either way; reduced major axis (RMA)
treats both alike, and one line serves both ways. All are of ETM+; TM's bands lie close to ETM+'s, and no line of its
own is published there, so that TM is taken for ETM+.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from transformation.landsat_numbers import LARGEST, reflectance_as_numbers
from utils.sensors import ETM, OLI


class Lines(NamedTuple):
    """y = intercept + slope * x, for blue, green, red, near infrared and both short-wave infrared bands."""

    intercepts: tuple[float, ...]
    slopes: tuple[float, ...]

    def of(self, reflectance: np.ndarray) -> np.ndarray:
        """(bands, …) of one sensor as the other's."""
        shape = (len(self.slopes),) + (1,) * (reflectance.ndim - 1)
        intercepts, slopes = (np.array(part, np.float64).reshape(shape) for part in self)
        return intercepts + slopes * reflectance

    def only(self, common: Sequence[str]) -> "Lines":
        """Those of some bands, by their common names, in that order."""
        places = [ETM.common.index(name) for name in common]
        return Lines(*(tuple(part[place] for place in places) for part in self))


OLI_TO_ETM = Lines((0.0183, 0.0123, 0.0123, 0.0448, 0.0306, 0.0116), (0.8850, 0.9317, 0.9372, 0.8339, 0.8639, 0.9165))
"""OLS: what ETM+ is expected to see where OLI has seen x."""

ETM_TO_OLI = {
    "rma": Lines((-0.0095, -0.0016, -0.0022, -0.0021, -0.0030, 0.0029),
                 (0.9785, 0.9542, 0.9825, 1.0073, 1.0171, 0.9949)),
    "ols": Lines((0.0003, 0.0088, 0.0061, 0.0412, 0.0254, 0.0172), (0.8474, 0.8483, 0.9047, 0.8462, 0.8937, 0.9071)),
}  # fmt: skip
"""What can be chosen to turn ETM+'s and TM's reflectance into OLI's."""


def along(numbers: np.ndarray, lines: Lines) -> np.ndarray:
    """Collection-2 numbers of one sensor as the other's.

    Args:
        numbers: (bands, …) uint16, 0 on fill.
        lines: from one to the other.

    Returns:
        The same shape, uint16 from 1 on; 0 on fill.
    """
    seen = lines.of(numbers.astype(np.float64) * OLI.scale + OLI.offset)
    made = np.rint(reflectance_as_numbers(seen)).clip(1, LARGEST).astype(np.uint16)
    made[numbers == 0] = 0
    return made
