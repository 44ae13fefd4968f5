"""Time and place as people have them, to metadata columns. What is missing stays missing; nothing is guessed."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np

from utils.errors import DataError
from utils.metadata import FIELDS, Acquisitions, AcquisitionTime, metadata_columns

FORMS = "a datetime, an ISO 8601 text such as 2017-06-13T10:10:31 or 2017-06-13, or a numpy datetime64 (UTC)"

_COARSER_THAN_DAYS = ("Y", "M", "W")
_HOW_MANY = "give one for all, or one a patch"


def when_where_columns(
    count: int, when: Any = None, lat: Any = None, lon: Any = None, stated: Mapping[str, Any] | None = None
) -> np.ndarray:
    """Metadata columns of every patch, float64 (count, len(FIELDS)); NaN is what is not known.

    Args:
        count: how many patches.
        when: one time for all patches or one a patch: datetime, ISO text or datetime64, UTC where no zone is given;
            a date without a time has no hour; None and NaT are not known.
        lat, lon: degrees (EPSG:4326) of the patch centres, one for all or one a patch; None and NaN are not known.
        stated: values of fields by name, one for all or one a patch, that count before what follows from time and
            place; None and NaN state nothing.

    Raises:
        DataError: for another number of values than patches, for what is no time, place or field, and for values
            outside a field's limits.
    """
    if (lat is None) != (lon is None):
        raise DataError("lat and lon belong together: give both or neither")
    times = _one_or_each([acquisition_time(one) for one in _times(when)], count, "when")
    places = [np.full(count, math.nan) if values is None else _numbers(values, count, name, "degrees (EPSG:4326)")
              for values, name in ((lat, "lat"), (lon, "lon"))]  # fmt: skip
    if (np.isnan(places[0]) != np.isnan(places[1])).any():
        raise DataError("lat and lon belong together: where one is missing (NaN), leave out the other too")
    _require_places(*places)
    return metadata_columns(Acquisitions.of(times, *places), stated_values(stated or {}, count))


def stated_values(stated: Mapping[str, Any], count: int) -> dict[str, np.ndarray]:
    """The same as checked arrays (count,)."""
    found = {}
    for name, values in stated.items():
        if name not in FIELDS:
            raise DataError(f"metadata: unknown field {name!r}; choose among {', '.join(FIELDS)}")
        field = FIELDS[name]
        found[name] = _numbers(values, count, f"metadata[{name!r}]", field.unit)
        low, high = field.limits
        if ((found[name] < low) | (found[name] > high)).any():
            raise DataError(f"metadata[{name!r}]: holds values outside {low:g} to {high:g} ({field.unit})")
    return found


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


def acquisition_time(when: Any) -> AcquisitionTime:
    """One time in UTC."""
    if when is None or when != when:  # NaT and NaN are not equal to themselves
        return AcquisitionTime()
    if isinstance(when, np.datetime64):
        unit = np.datetime_data(when.dtype)[0]
        if unit in _COARSER_THAN_DAYS:
            raise DataError(f"when: {when} does not say which day; give {FORMS}")
        when = when.astype("datetime64[D]").item() if unit == "D" else when.astype("datetime64[us]").item()
    if isinstance(when, str):
        try:
            when = parse_time(when)
        except ValueError:
            raise DataError(f"when: {when!r} is no time; give {FORMS}") from None
    if isinstance(when, datetime):
        return AcquisitionTime.at(when if when.tzinfo is None else when.astimezone(UTC))
    if isinstance(when, date):
        return AcquisitionTime(when)
    raise DataError(f"when: {when!r} is no time; give {FORMS}")


def parse_time(text: str) -> date:
    """An ISO 8601 text as datetime, or as date where it has no time of day. Raises ValueError for any other."""
    text = text.strip()
    if text.isdigit() and len(text) != len("20200802"):  # seconds since 1970, a year: no date, though some read as one
        raise ValueError(text)
    try:
        return date.fromisoformat(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
    try:
        moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(text) from None
    return moment


def _numbers(values: Any, count: int, name: str, unit: str) -> np.ndarray:
    """One number for all patches or one a patch, as (count,) float64; None is NaN."""
    try:
        numbers = np.atleast_1d(np.asarray(values, dtype=np.float64))
    except (TypeError, ValueError):
        raise DataError(f"{name}: {str(values)[:60]!r} is no number; give {unit}") from None
    if numbers.ndim != 1:
        raise DataError(f"{name}: an array of {numbers.ndim} dimensions for {count} patches; {_HOW_MANY}")
    return np.array(_one_or_each(numbers, count, name))


def _one_or_each(values: Sequence[Any] | np.ndarray, count: int, name: str) -> Any:
    """The values where there is one a patch, a single one `count` times."""
    if len(values) not in (1, count):
        raise DataError(f"{name}: {len(values)} values for {count} patches; {_HOW_MANY}")
    return values if len(values) == count else [values[0]] * count


def _require_places(lat: np.ndarray, lon: np.ndarray) -> None:
    limits = FIELDS["lat"].limits, FIELDS["lon"].limits
    if any(((values < low) | (values > high)).any() for values, (low, high) in zip((lat, lon), limits, strict=True)):
        raise DataError(
            f"lat {np.nanmin(lat):g} to {np.nanmax(lat):g}, lon {np.nanmin(lon):g} to {np.nanmax(lon):g} are no "
            "degrees of EPSG:4326; project the patch centres first, and mind the order lat, lon"
        )
