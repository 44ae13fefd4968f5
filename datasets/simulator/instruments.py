"""What another sensor than OLI would have seen of the simulator's land: TM and ETM+, and ETM+ with its gaps.

MSI of Sentinel-2 is one of them as well, in patches: `datasets.simulator.sentinel2`.

TM and ETM+ have no coastal band, and see the others by lines of Roy et al. 2016 (`transformation.cross_sensor`). They
have no cirrus band either: thin cloud is in their pixels, not in their QA_PIXEL. Left out are their 8 bits and their
coarser noise.

Since 31 May 2003 ETM+ scans without its scan-line corrector. A scan covers 16 lines; while the mirror swings across,
the satellite flies on by nearly as much, so that scans there and back form a zigzag: they overlap at one edge of the
swath and leave a wedge open at the other, the next pair the other way round. The wedges are 14 pixels at the edges,
nothing in the middle, and 22 % of the whole (USGS, "Landsat 7 Scan Line Corrector (SLC) Failure").
"""

from typing import NamedTuple

import numpy as np

from transformation.cross_sensor import OLI_TO_ETM, along
from utils.errors import ConfigError
from utils.sensors import ETM, MSI, OLI, SENSORS, TM, Sensor

SCAN = 16
"""Lines of a scan, pixels of 30 m."""
WIDEST_GAP = 14
"""Pixels that a gap is wide at the edges of the swath: 14 / 2 of every 32 lines are 22 %."""
UNUSED_BITS = 1 << 2 | 1 << 14 | 1 << 15
"""Of QA_PIXEL on Landsat 4 to 7, which have no cirrus band."""
SLC_FAILURE = 2003
"""Year."""


class Mission(NamedTuple):
    """A sensor's satellites, as far as the simulator writes them."""

    first: int
    """Year."""
    last: int
    satellite: int
    """Number of the Landsat, or of the Sentinel."""
    sensor_id: str


MISSIONS = {
    OLI.name: Mission(2013, 9999, 8, "OLI_TIRS"),
    ETM.name: Mission(1999, 2024, 7, "ETM"),
    TM.name: Mission(1982, 2012, 5, "TM"),
    MSI.name: Mission(2015, 9999, 2, "MSI"),
}
"""Those of which scenes and patches are written, by the sensor's name."""
LANDSAT_5_SINCE = 1984


class Observation(NamedTuple):
    """By what the land is seen, and when."""

    sensor: Sensor = OLI
    year: int | None = None
    """None: that of the simulator's world, 2017 or 2018."""
    slc_off: bool = False

    @classmethod
    def chosen(cls, sensor: str, year: int | None, slc_off: bool) -> "Observation":
        """From the command line.

        Raises:
            ConfigError: for a year in which no such sensor flew, or gaps of another than ETM+.
        """
        mission = MISSIONS[sensor]
        if year is None and sensor == TM.name:
            raise ConfigError(f"--sensor tm: give the --year, {mission.first} to {mission.last}")
        if year is not None and not mission.first <= year <= mission.last:
            years = (
                f"from {mission.first} on" if sensor in (OLI.name, MSI.name) else f"{mission.first} to {mission.last}"
            )
            raise ConfigError(f"--year {year}: {sensor.upper()} flew {years}; choose another year or --sensor")
        if slc_off and (sensor != ETM.name or (year is not None and year < SLC_FAILURE)):
            raise ConfigError(f"--slc-off: is for --sensor etm from {SLC_FAILURE} on; leave it out")
        return cls(SENSORS[sensor], year, slc_off)

    @property
    def options(self) -> str:
        """As the command line writes it, with a space before; nothing for the usual one."""
        sensor = "" if self.sensor is OLI else f" --sensor {self.sensor.name}"
        return sensor + (f" --year {self.year}" if self.year else "") + (" --slc-off" if self.slc_off else "")

    def satellite(self, year: int) -> int:
        """The number of the Landsat that has the sensor in a year."""
        if self.sensor is TM and year < LANDSAT_5_SINCE:
            return 4
        return MISSIONS[self.sensor.name].satellite

    def mission(self, year: int) -> str:
        """How its product ids begin in a year: LC08, LE07, LT05, LT04."""
        letter = {OLI.name: "C", ETM.name: "E", TM.name: "T"}[self.sensor.name]
        return f"L{letter}{self.satellite(year):02d}"


USUAL = Observation()
"""OLI, in the year of the simulator's world."""


def as_seen_by(numbers: np.ndarray, sensor: Sensor) -> np.ndarray:
    """OLI's seven bands as a sensor has them.

    Args:
        numbers: (7, …) uint16 Collection-2 numbers, 0 on fill.
        sensor: OLI, ETM+ or TM.

    Returns:
        (bands, …) uint16.
    """
    if sensor is OLI:
        return numbers
    return along(numbers[[OLI.common.index(name) for name in sensor.common]], OLI_TO_ETM)


def quality_of(qa: np.ndarray, sensor: Sensor) -> np.ndarray:
    """QA_PIXEL as the sensor's product has it."""
    return qa if sensor is OLI else qa & np.uint16(~UNUSED_BITS & 0xFFFF)


def scan_gaps(across: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Where nothing is scanned without the scan-line corrector, bool of the broadcast shape.

    Args:
        across: -1 at the left edge of the swath, 0 in its middle, 1 at its right edge.
        line: along the flight, pixels.
    """
    centre = np.where(across < 0, SCAN, 2 * SCAN)  # the pair that gapes on the right is half a period off
    off = np.abs((line - centre + SCAN) % (2 * SCAN) - SCAN)
    width = WIDEST_GAP * np.abs(across)
    return (off < width / 2) & (width >= 1)
