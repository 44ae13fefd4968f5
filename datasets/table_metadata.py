"""When and where the images of a table were taken, from its columns of dates, times of day and degrees."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.table_columns import CLOCK, DAY, LAT, LON, Columns, Row
from utils.errors import DataError
from utils.metadata import FIELDS
from utils.when_where import parse_time, when_where_columns


def table_metadata(path: Path, columns: Columns, rows: Sequence[Row]) -> tuple[np.ndarray | None, list[str]]:
    """Metadata columns of a table's images, and what is passed over.

    A column of which no cell can be read is something else and is passed over; so is latitude without longitude, or a
    time of day without a date. Where every time is midnight the times are dates, as programs write them, and no hour
    is known.

    Args:
        path: of the table, for messages.
        columns: of its header.
        rows: its images.

    Returns:
        (N, len(FIELDS)), NaN where a cell is empty, or None where the table has nothing of it; and a sentence for every
        column that is passed over.

    Raises:
        DataError: naming line, column and cell, where some cells of a column can be read and one cannot.
    """
    passed_over: list[str] = []

    def values(which: int) -> list[Any]:
        return _values(path, columns, rows, which, passed_over)

    def alone(which: int, lacking: str) -> list[Any]:
        passed_over.append(f"column {columns.header_of(which)} is passed over: there is no {lacking}")
        return [None] * len(rows)

    days, clocks, lat, lon = (values(which) for which in (DAY, CLOCK, LAT, LON))
    if _known(clocks) and not _known(days) and not any(isinstance(one, datetime) for one in clocks):
        clocks = alone(CLOCK, "column of dates")
    if _known(lat) != _known(lon):
        lat = lon = alone(LAT, "longitude") if _known(lat) else alone(LON, "latitude")
    for row, here, there in zip(rows, lat, lon, strict=True):
        if (here is None) != (there is None):
            raise DataError(f"{path}: line {row.line}: latitude and longitude belong together: give both or neither")
    times = [_joined(day, clock) for day, clock in zip(days, clocks, strict=True)]
    if not _known(times) and not _known(lat):
        return None, passed_over
    if all(one is None or not isinstance(one, datetime) or one.time() == time() for one in times):
        times = [one.date() if isinstance(one, datetime) else one for one in times]
    places = [np.array([np.nan if one is None else one for one in degrees]) for degrees in (lat, lon)]
    return when_where_columns(len(rows), np.array(times, dtype=object), places[0], places[1]), passed_over


def _values(path: Path, columns: Columns, rows: Sequence[Row], which: int, passed_over: list[str]) -> list[Any]:
    """What the cells of a column say; None where nothing stands there, or where it is passed over."""
    read, wanted = _READ[which]
    found: list[Any] = []
    wrong: list[tuple[int, str]] = []
    for row in rows:
        text = row.taken[which]
        found.append(None)
        if text is not None:
            try:
                found[-1] = read(text)
            except ValueError:
                wrong.append((row.line, text))
    if wrong:
        line, text = wrong[0]
        column, why = f"column {columns.header_of(which)}", f"{text!r} is no {wanted}"
        if _known(found):
            cure = "correct it, leave the cell empty, or give the column another name"
            raise DataError(f"{path}: line {line}: {column}: {why}; {cure}")
        passed_over.append(f"{column} is passed over: {why}")
    return found


def _known(values: Sequence[Any]) -> bool:
    return any(value is not None for value in values)


def _joined(day: date | None, clock: time | datetime | None) -> date | None:
    """A date with its time of day; of two whole times the first, and a time of day is nothing without a date."""
    if isinstance(day, datetime) or clock is None:
        return day
    if isinstance(clock, datetime):
        return clock
    return None if day is None else datetime.combine(day, clock)


def _clock(text: str) -> time | datetime:
    """A time of day with a colon, or a whole time."""
    if ":" in text:
        with suppress(ValueError):
            return time.fromisoformat(text.removesuffix("Z"))
    moment = parse_time(text)
    if not isinstance(moment, datetime):
        raise ValueError(text)
    return moment


def _degrees(field: str) -> Callable[[str], float]:
    low, high = FIELDS[field].limits

    def read(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return read


class _Reading(NamedTuple):
    read: Callable[[str], Any]
    """Raises ValueError."""
    wanted: str


_READ = {
    DAY: _Reading(parse_time, "date or time of ISO 8601, such as 2020-08-02 or 2020-08-02T18:30"),
    CLOCK: _Reading(_clock, "time of day, such as 18:30"),
    LAT: _Reading(_degrees("lat"), "latitude in degrees, from -90 to 90"),
    LON: _Reading(_degrees("lon"), "longitude in degrees, from -180 to 360"),
}
"""Of the cells of `Columns.taken`."""
