"""What the user states about a scene beyond its files, and how that goes together with what the files say."""

from datetime import date, time
from pathlib import Path
from typing import NamedTuple

from scenes.input.stacks import BandChoice
from scenes.input.virtual_files import shown
from transformation.cross_sensor import ETM_TO_OLI
from utils.errors import ConfigError
from utils.metadata import AcquisitionTime
from utils.sensors import ETM, SENSORS, TAKEN, TM, Sensor


class SceneOptions(NamedTuple):
    """What the user states about a scene beyond its files."""

    bands: BandChoice | None = None
    """Which bands of a stack are the sensor's, counted from 1, or the names of all its bands."""
    scale: tuple[float, float] | None = None
    """reflectance = value * scale[0] + scale[1]; None: Collection-2 Level-2 numbers, and the numbers are checked."""
    qa: Path | None = None
    """A QA_PIXEL file; None looks for one."""
    day: date | None = None
    """Of acquisition (UTC), where nothing else says it."""
    clock: time | None = None
    """Time of day of acquisition (UTC), likewise."""
    sensor: str | None = None
    """oli, etm or tm, where the files do not say it."""
    adjust: str | None = None
    """By which published lines ETM+'s and TM's reflectance is turned into OLI's: "rma" or "ols"; None: not at all."""


DEFAULT_OPTIONS = SceneOptions()
"""Nothing stated: a product as it is delivered."""


def with_stated_time(known: AcquisitionTime, options: SceneOptions, path: Path) -> AcquisitionTime:
    """What is known of the time, and what the user adds. Raises ConfigError where the two contradict each other."""
    for name, of_files, of_user in (("--date", known.day, options.day), ("--time", known.clock, options.clock)):
        if None not in (of_files, of_user) and of_files != of_user:
            raise ConfigError(
                f"{name} {of_user}: {shown(path)} says {of_files}; leave {name} out, or correct what is wrong"
            )
    return AcquisitionTime(known.day or options.day, known.clock or options.clock)


def stated_sensor(name: str | None) -> Sensor | None:
    """The sensor of a name. Raises ConfigError for a name that is none of those whose scenes are read."""
    known = [sensor.name for sensor in TAKEN]
    if name is not None and name not in known:
        raise ConfigError(f"--sensor {name}: choose one of {', '.join(known)}")
    return SENSORS[name] if name is not None else None


def adjustment(sensor: Sensor, asked: str | None) -> str | None:
    """What is asked for, where the sensor has lines. Raises ConfigError elsewhere."""
    if asked is None:
        return None
    if asked not in ETM_TO_OLI:
        raise ConfigError(f"--adjust-to-oli {asked}: choose one of {', '.join(ETM_TO_OLI)}")
    if sensor.name not in (ETM.name, TM.name):
        raise ConfigError(f"--adjust-to-oli: is for ETM+ and TM, the scene is of {sensor.title}; leave it out")
    return asked
