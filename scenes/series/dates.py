"""The scenes of a series: found, dated, in the order of their times."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from scenes.input.product import Scene, SceneOptions, find_scene
from scenes.input.virtual_files import ARCHIVE_ENDINGS, shown
from utils.errors import ConfigError, DataError
from utils.metadata import AcquisitionTime

_FILE_ENDINGS = (".json", ".tif", ".tiff")


class Date(NamedTuple):
    """One scene of a series."""

    scene: Scene
    moment: datetime
    """UTC; midnight where the time of day is not known."""

    @property
    def stamp(self) -> str:
        """For names of files: 20180704T095231, or 20180704 where the time of day is not known."""
        return f"{self.moment:%Y%m%dT%H%M%S}" if self.scene.time.clock else f"{self.moment:%Y%m%d}"

    @property
    def text(self) -> str:
        """As ISO 8601 has it."""
        return f"{self.moment:%Y-%m-%dT%H:%M:%S}" if self.scene.time.clock else f"{self.moment:%Y-%m-%d}"


def find_series(
    paths: Sequence[Path], options: SceneOptions, times: Sequence[AcquisitionTime] | None = None
) -> list[Date]:
    """The scenes at some paths, earliest first.

    Args:
        paths: of scenes, or one folder that holds several.
        options: how their files are to be read.
        times: what the user adds, one a scene in the order of `paths`.

    Raises:
        DataError: as `find_scene`; for a scene without a date, and for two of one moment.
        ConfigError: for another number of times.
    """
    places = scenes_in(paths[0]) if len(paths) == 1 else list(paths)
    if times is not None and len(times) != len(places):
        raise ConfigError(f"--dates: are {len(times)}, the scenes {len(places)}; give one a scene, in their order")
    dates = []
    for place, added in zip(places, times or [AcquisitionTime()] * len(places), strict=True):
        scene = find_scene(place, options._replace(day=added.day, clock=added.clock))
        if scene.time.day is None:
            raise DataError(f"{shown(place)}: nothing says when it was taken; give --dates, one a scene")
        moment = datetime.combine(scene.time.day, scene.time.clock or time.min, UTC)
        dates.append(Date(scene, moment.replace(microsecond=0)))
    dates.sort(key=lambda one: one.moment)
    for one, other in pairwise(dates):
        if _same_moment(one, other):
            raise DataError(
                f"{shown(other.scene.path)}: is of the same moment as {shown(one.scene.path)} ({other.text}); "
                "give one of them"
            )
    return dates


def stated_times(moments: Sequence[datetime | str] | None) -> list[AcquisitionTime] | None:
    """Moments, or days as text, as what is known of times."""
    if moments is None:
        return None
    return [
        AcquisitionTime(date.fromisoformat(moment)) if isinstance(moment, str) else AcquisitionTime.at(moment)
        for moment in moments
    ]


def _same_moment(one: Date, other: Date) -> bool:
    """Whether nothing tells the times of two scenes apart."""
    known = one.scene.time.clock and other.scene.time.clock
    return one.moment == other.moment if known else one.moment.date() == other.moment.date()


def scenes_in(path: Path) -> list[Path]:
    """The scenes of a folder that holds several, by name: subfolders and archives, else single files.

    Anything else, a folder with the files of one product among it, is a scene itself.
    """
    if not path.is_dir():
        return [path]
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    if any("SR_B" in entry.name.upper() for entry in entries if entry.is_file()):
        return [path]
    folders = [entry for entry in entries if entry.is_dir() or entry.suffix.lower() in ARCHIVE_ENDINGS]
    files = [entry for entry in entries if entry.suffix.lower() in _FILE_ENDINGS and entry.is_file()]
    return folders or files or [path]


def date_of(text: str, dates: Sequence[Date], option: str) -> int:
    """The number of the date that a text names: a day, or a moment where a day has several.

    Raises:
        ConfigError: when it names none or several, with those that there are.
    """
    found = [number for number, one in enumerate(dates) if one.text.startswith(text) and len(text) >= 10]
    if len(found) != 1:
        listed = ", ".join(one.text for one in dates)
        raise ConfigError(f"{option} {text}: names {len(found) or 'none'} of the series; choose one of {listed}")
    return found[0]
