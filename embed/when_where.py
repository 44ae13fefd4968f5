"""Time and place as people have them, to what the model is told. What is missing stays missing; nothing is guessed."""

import math
from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any

import numpy as np

from utils.data_utils import encode_metadata
from utils.errors import DataError

UNKNOWN = math.nan
"""In place of a week, hour, latitude or longitude that is not known."""

FORMS = "a datetime, an ISO 8601 text such as 2017-06-13T10:10:31 or 2017-06-13, or a numpy datetime64 (UTC)"

_COARSER_THAN_DAYS = ("Y", "M", "W")


def when_where_columns(count: int, when: Any = None, lat: Any = None, lon: Any = None) -> np.ndarray:
    """Week, hour, latitude and longitude of every patch, float64 (count, 4); NaN is what is not known.

    Args:
        count: how many patches.
        when: one time for all patches or one a patch: datetime, ISO text or datetime64, UTC where no zone is given;
            a date without a time has no hour; None and NaT are not known.
        lat, lon: degrees (EPSG:4326) of the patch centres, one for all or one a patch; None and NaN are not known.

    Raises:
        DataError: for another number of values than patches, for what is no time, and for what is no place.
    """
    if (lat is None) != (lon is None):
        raise DataError("lat and lon belong together: give both or neither")
    columns = np.full((count, 4), UNKNOWN)
    columns[:, :2] = _broadcast([_week_and_hour(one) for one in _times(when)], count, "when", (2,))
    if lat is not None:
        columns[:, 2], columns[:, 3] = (
            _broadcast(_degrees(values, name), count, name) for values, name in ((lat, "lat"), (lon, "lon"))
        )
    if (np.isnan(columns[:, 2]) != np.isnan(columns[:, 3])).any():
        raise DataError("lat and lon belong together: where one is missing (NaN), leave out the other too")
    _require_places(columns[:, 2], columns[:, 3])
    return columns


def encode_when_where(columns: np.ndarray, published_behaviour: bool) -> np.ndarray:
    """Columns of `when_where_columns` as the model's metadata, float32 (B, 4, 2); (0, 0) for what is not known.

    Args:
        columns: (B, 4) week, hour, latitude, longitude.
        published_behaviour: the hour is the first digit of its two, as the released weights were trained.
    """
    known = np.isfinite(columns)
    week, hour, lat, lon = np.where(known, columns, 0.0).T
    encoded = encode_metadata(week, hour // 10 if published_behaviour else hour, lat, lon)
    return encoded * known[..., None].astype(np.float32)


def _times(when: Any) -> list[Any]:
    """One or several times as a list; a single one as a list of one."""
    if when is None or isinstance(when, (str, date, np.datetime64)):
        return [when]
    values = np.asarray(when)
    if values.dtype.kind == "M" and np.datetime_data(values.dtype)[0] in _COARSER_THAN_DAYS:
        raise DataError(f"when: {values.dtype} does not say which day; give {FORMS}")
    if values.dtype.kind not in "MOU" or values.ndim > 1:
        raise DataError(f"when: cannot be read as time ({values.dtype}, {values.ndim} dimensions); give {FORMS}")
    return list(values) if values.ndim else [values[()]]


def _week_and_hour(when: Any) -> tuple[float, float]:
    """ISO week and full hour in UTC of one time."""
    if when is None or when != when:  # NaT and NaN are not equal to themselves
        return UNKNOWN, UNKNOWN
    if isinstance(when, np.datetime64):
        unit = np.datetime_data(when.dtype)[0]
        if unit in _COARSER_THAN_DAYS:
            raise DataError(f"when: {when} does not say which day; give {FORMS}")
        when = when.astype("datetime64[D]").item() if unit == "D" else when.astype("datetime64[us]").item()
    if isinstance(when, str):
        when = _parse(when)
    if isinstance(when, datetime):
        moment = when if when.tzinfo is None else when.astimezone(UTC)
        return float(moment.isocalendar().week), float(moment.hour)
    if isinstance(when, date):
        return float(when.isocalendar().week), UNKNOWN
    raise DataError(f"when: {when!r} is no time; give {FORMS}")


def _parse(text: str) -> date:
    """An ISO text as datetime, or as date where it has no time of day."""
    for read in (date.fromisoformat, datetime.fromisoformat):
        try:
            return read(text.strip())
        except ValueError:
            continue
    raise DataError(f"when: {text!r} is no time; give {FORMS}")


def _degrees(values: Any, name: str) -> np.ndarray:
    try:
        degrees = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{name}: {str(values)[:60]!r} is no number; give degrees (EPSG:4326)") from None
    return np.atleast_1d(degrees)


def _broadcast(values: Iterable[Any], count: int, name: str, tail: tuple[int, ...] = ()) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 + len(tail) or len(array) not in (1, count):
        values = f"{len(array)} values" if array.ndim == 1 + len(tail) else f"an array of {array.ndim} dimensions"
        raise DataError(f"{name}: {values} for {count} patches; give one for all, or one a patch")
    return np.broadcast_to(array, (count, *tail))


def _require_places(lat: np.ndarray, lon: np.ndarray) -> None:
    if (np.abs(lat) > 90).any() or (lon < -180).any() or (lon > 360).any():
        raise DataError(
            f"lat {np.nanmin(lat):g} to {np.nanmax(lat):g}, lon {np.nanmin(lon):g} to {np.nanmax(lon):g} are no "
            "degrees of EPSG:4326; project the patch centres first, and mind the order lat, lon"
        )
