"""One simulated place on several dates: the same land, and the season, sun, air and clouds of every date.

Land is drawn from the seed alone; moisture, haze, noise and clouds from seed and date. Two things are options: growth
types with calendars of their own (`phenology.py`), and a change: from a date on, some parcels are covered by something
else. A parcel that changes gets one class, drawn from what the region has; where it had that class before, nothing
changes.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np
import torch

from datasets.simulator.constants import CONSTANTS, GeneratorConstants
from datasets.simulator.instruments import USUAL, Observation
from datasets.simulator.overpasses import FIRST_DAY, Places, day_of_the_simulated_year, linear_classes, scenes
from datasets.simulator.parcels import Parcels
from datasets.simulator.phenology import Phenology
from datasets.simulator.scene import CLASS_OF, NO_CLASS, SKY, SimulatedScene, SkyConstants, SmoothNoise
from utils.randomness import generator

REVISIT = 16
"""Days between two overpasses of one satellite."""
FIRST_YEAR = 2021
"""In which dates lie that only their number is given of."""


@dataclass(frozen=True)
class Change:
    """Parcels that are covered by something else from a date on."""

    share: float  # of the parcels
    on: date
    parcel: int = 40  # side of a parcel in pixels


@dataclass(frozen=True)
class History:
    """What happens at a place beside its dates' weather."""

    phenology: bool = False
    change: Change | None = None


def spread_dates(count: int) -> list[date]:
    """So many dates evenly over a year from FIRST_YEAR on, or 16 days apart where a year is too short for them."""
    step = max(REVISIT, 365 // count)
    return [date(FIRST_YEAR, 1, 1) + timedelta(days=step // 2 + step * index) for index in range(count)]


class DatedScene(SimulatedScene):
    """A place on one date: the scene of this size and seed, seen on `day` at its own hour.

    Args:
        size, seed, device: as for `SimulatedScene`; the land cover is that of its scene.
        day: the date.
        history: growth types and changes.
        constants, sky: the simulator's dials.
        observation: by which sensor it is seen; its year is that of the date.
    """

    def __init__(
        self,
        size: int,
        seed: int,
        day: date,
        history: History | None = None,
        device: torch.device | str = "cpu",
        constants: GeneratorConstants = CONSTANTS,
        sky: SkyConstants = SKY,
        observation: Observation = USUAL,
    ) -> None:
        super().__init__(size, seed, device, constants, sky, observation._replace(year=None))
        self.history = history or History()
        self.when = datetime.combine(day, self.when.time())
        self._day = (day_of_the_simulated_year(day) - FIRST_DAY).days
        random = generator(seed, "simulated series sky", day.toordinal())
        reach = self._cloud.reach
        self._cloud, self._cirrus = (
            SmoothNoise((size, size), octaves, reach, random) for octaves in (sky.cloud_octaves, sky.cirrus_octaves)
        )
        self.phenology = Phenology(size, seed, self.lat, self.constants) if self.history.phenology else None
        change = self.history.change
        self.altered = None
        if change is not None and day >= change.on:
            self.altered = _Altered(change, Replacement(size, seed, day, None, device, constants, sky))

    def _weather(self, row: int, first: int) -> torch.Generator:
        day = self.when.date().toordinal()
        return generator(self.seed, f"{self.land_role} weather", day, row, first, device=self.device)

    def _land(self, top: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        reflectance, truth = super()._land(top, height)
        if self.altered is not None:
            self.altered.cover(top, reflectance, truth)
        if self.phenology is not None:
            self.phenology.grow(top, reflectance, truth, self.when.date())
        return reflectance, truth


class Replacement(DatedScene):
    """What covers the parcels of a place that have changed: one class for each tile."""

    land_role = "simulated scene after a change"

    def _candidates(self, places: Places, random: torch.Generator) -> torch.Tensor:
        weight = scenes().log_weight[self.scene].exp() * torch.from_numpy(CLASS_OF != NO_CLASS)
        weight[linear_classes()] = 0
        weight = weight.to(self.device)
        return torch.multinomial(weight, len(places.lat), replacement=True, generator=random)[:, None]


class _Altered:
    """Parcels that have changed, and the land that lies there now."""

    def __init__(self, change: Change, now: Replacement) -> None:
        self.now = now
        self.parcels = Parcels(now.size, change.parcel, now.seed, "changed")
        inside = self.parcels.inside
        inside = inside[self.parcels.uniform(1, "order")[inside, 0].argsort()]
        self.chosen = np.zeros(self.parcels.side**2, bool)
        self.chosen[inside[: max(1, round(change.share * len(inside)))]] = True

    def cover(self, top: int, reflectance: np.ndarray, truth: np.ndarray) -> None:
        """Replace the land of some rows where it has another class now, in `reflectance` and `truth`."""
        chosen = self.chosen[self.parcels.read(top, len(truth))]
        if not chosen.any():
            return
        reflectance_now, truth_now = self.now._land(top, len(truth))
        chosen &= truth_now != truth
        reflectance[:, chosen], truth[chosen] = reflectance_now[:, chosen], truth_now[chosen]
