"""The year of crops and forests: growth types that look alike on one date and differ over the year.

The simulator gives all fields the same season, and all broad-leaved woods another. Here a parcel of arable land has one
of six crops and a stand of trees one of four kinds, each with a calendar of its own: a product of two logistic curves
for every season of growth (Beck et al. 2006, doi:10.1016/j.rse.2005.10.021). The calendars are rough ones of temperate
Europe, assumed and not fitted to anything; parcels differ in level, vigour and timing, and years in timing.
"""

from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import expit

from datasets.simulator.constants import GeneratorConstants
from datasets.simulator.landscape import season_state
from datasets.simulator.overpasses import day_of_the_simulated_year
from datasets.simulator.parcels import Parcels
from utils.data_config import BigEarthNetInfo
from utils.randomness import generator

NO_TYPE = 255
"""In a raster of growth types: everything but crops and forests."""


class GrowthType(NamedTuple):
    """When a crop or a stand of trees is green, at 45° N."""

    name: str
    seasons: tuple[tuple[float, float, float], ...]  # (day of green-up, day of its end, level 0-1) of every growth
    dormant: float  # greenness outside the seasons, in units of GeneratorConstants.greenness
    full: float  # the same at level 1


CROPS = (
    GrowthType("winter cereal", ((70, 185, 1.0), (310, 420, 0.45)), -0.7, 0.9),
    GrowthType("rapeseed", ((50, 168, 1.0), (255, 400, 0.6)), -0.7, 0.9),
    GrowthType("spring cereal", ((108, 203, 1.0),), -0.7, 0.9),
    GrowthType("maize", ((160, 265, 1.0),), -0.7, 0.9),
    GrowthType("sugar beet", ((150, 310, 1.0),), -0.7, 0.8),
    GrowthType("ley", ((75, 320, 1.0),), -0.3, 0.6),
)
FORESTS = (
    GrowthType("early broad-leaved", ((100, 300, 1.0),), -0.6, 0.6),
    GrowthType("late broad-leaved", ((132, 282, 1.0),), -0.6, 0.6),
    GrowthType("larch", ((112, 312, 1.0),), -0.45, 0.35),
    GrowthType("evergreen", ((60, 330, 1.0),), -0.1, 0.1),
)
TYPES = (*CROPS, *FORESTS)

_CLASSES = BigEarthNetInfo.CLASSES.index
# Class: amplitude and openness of the season that the landscape has given it (places.json, "traits").
_CLASS_SEASONS = {
    _CLASSES("Arable land"): (0.55, 1.0),
    _CLASSES("Broad-leaved forest"): (0.6, 0.5),
    _CLASSES("Coniferous forest"): (0.1, 0.3),
    _CLASSES("Mixed forest"): (0.3, 0.4),
}
_CROP_CLASSES = (_CLASSES("Arable land"),)


@dataclass(frozen=True)
class PhenologyConstants:
    """Dials of the growth types; greenness in units of `GeneratorConstants.greenness`."""

    parcel: int = 40  # side of a parcel or stand in pixels: neighbouring fields often share a crop
    width: float = 9.0  # days of a logistic curve, at both ends of a season
    per_degree: float = 1.5  # days later for every degree north of 45°
    year_std: float = 7.0  # days by which a year is early or late
    timing_std: float = 9.0  # days by which a parcel is early or late
    level_std: float = 0.3  # greenness that a parcel has more or less all year
    vigour_std: float = 0.2  # of the logarithm of the factor on a parcel's growth
    date_std: float = 0.12  # greenness of a parcel on one date
    bare_soil: float = 0.35  # units of `GeneratorConstants.soil` that a crop's bare ground gains …
    covered_soil: float = -0.25  # … and that its full cover loses


PHENOLOGY = PhenologyConstants()


class Phenology:
    """Growth types of a scene's parcels, and what they do to its reflectance on a date.

    Args:
        size, seed: of the scene.
        lat: its latitude in degrees.
        constants: the simulator's dials.
        dials: those of the growth types.
    """

    def __init__(
        self, size: int, seed: int, lat: float, constants: GeneratorConstants, dials: PhenologyConstants = PHENOLOGY
    ) -> None:
        self.seed, self.lat, self.constants, self.dials = seed, lat, constants, dials
        self.parcels = Parcels(size, dials.parcel, seed, "growth")
        choice = self.parcels.uniform(2, "types")
        self.crop = (choice[:, 0] * len(CROPS)).astype(np.uint8)
        self.stand = (len(CROPS) + choice[:, 1] * len(FORESTS)).astype(np.uint8)
        self.level, self.vigour, self.timing = self.parcels.normal(3, "traits").T

    def types(self, top: int, truth: np.ndarray) -> np.ndarray:
        """(height, size) uint8 index into TYPES of some rows, NO_TYPE elsewhere."""
        parcel = self.parcels.read(top, len(truth))
        crops = np.isin(truth, _CROP_CLASSES)
        woods = np.isin(truth, list(_CLASS_SEASONS)) & ~crops
        return np.select([crops, woods], [self.crop[parcel], self.stand[parcel]], NO_TYPE).astype(np.uint8)

    def grow(self, top: int, reflectance: np.ndarray, truth: np.ndarray, day: date) -> None:
        """Give crops and forests their own season in place of their class's, in `reflectance` (7, height, size)."""
        types, parcel = self.types(top, truth), self.parcels.read(top, len(truth))
        growing = types != NO_TYPE
        kind, parcel, classes = types[growing], parcel[growing], truth[growing]
        greenness, cover = (table[kind, parcel] for table in self._state(day))
        greenness = greenness - self._class_season(day)[classes]
        soil = self.dials.bare_soil + (self.dials.covered_soil - self.dials.bare_soil) * cover
        soil[kind >= len(CROPS)] = 0
        here = reflectance[:, growing]
        change = np.outer(self.constants.greenness, greenness) + np.outer(self.constants.soil, soil)
        reflectance[:, growing] = np.maximum(here + change, self.constants.min_reflectance * here)

    def _state(self, day: date) -> tuple[np.ndarray, np.ndarray]:
        """Greenness and cover (0-1) of every type in every parcel on a day, both (types, parcels)."""
        dials = self.dials
        year = torch.randn((), generator=generator(self.seed, "growth of a year", day.year)).item()
        late = dials.per_degree * (self.lat - 45) + dials.year_std * year + dials.timing_std * self.timing
        weather = dials.date_std * self.parcels.normal(1, "date", day.toordinal())[:, 0]
        cover = np.stack([season_cover(kind, day.timetuple().tm_yday - late, dials.width) for kind in TYPES])
        dormant, full = (np.array([getattr(kind, name) for kind in TYPES])[:, None] for name in ("dormant", "full"))
        growth = dormant + (full - dormant) * cover * np.exp(dials.vigour_std * self.vigour)
        return growth + dials.level_std * self.level + weather, cover

    def _class_season(self, day: date) -> np.ndarray:
        """Greenness that the landscape has given every class on this day: (256,)."""
        week = float(day_of_the_simulated_year(day).isocalendar().week)
        season = np.zeros(NO_TYPE + 1)
        for index, (amplitude, openness) in _CLASS_SEASONS.items():
            state = season_state(torch.tensor([self.lat]), torch.tensor([week]), torch.tensor([[openness]]))
            season[index] = amplitude * state.item()
        return season


def season_cover(kind: GrowthType, day: np.ndarray, width: float) -> np.ndarray:
    """How far a type has grown on days of the year, 0 to 1; a season may begin in the year before."""
    around = [day - 365.25, day, day + 365.25]
    cover = [
        level * expit((at - start) / width) * expit((end - at) / width)
        for start, end, level in kind.seasons
        for at in around
    ]
    return np.max(cover, axis=0)
