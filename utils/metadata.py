"""The metadata fields: what a model can be conditioned on beside the pixels, one row of `FIELDS` each.

Values travel as columns (N, F) of plain units, one a field of the table in its order, NaN where a value is not known.
Only at the model's door does `encode_metadata` turn the fields that a model has (`ModelConfig.meta_fields`) into
(sin, cos) pairs. A new field is a new row: datasets, packs, scenes, `MOEMAE.embed` and exported programs carry it.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from utils.solar_position import sun_elevation

UNKNOWN = math.nan
"""In place of a value that is not known."""

UNIX_EPOCH = 2440587.5
"""Julian day of 1970-01-01 00:00 UTC."""


class AcquisitionTime(NamedTuple):
    """When pixels were taken, UTC; None for what is not known."""

    day: date | None = None
    clock: time | None = None

    @classmethod
    def at(cls, moment: datetime) -> "AcquisitionTime":
        """A whole moment; it counts as UTC."""
        return cls(moment.date(), moment.time())

    @property
    def week(self) -> int | None:
        """ISO week, 1 to 53."""
        return self.day.isocalendar().week if self.day else None

    @property
    def hour(self) -> int | None:
        """Full hour."""
        return self.clock.hour if self.clock else None

    def __str__(self) -> str:
        return f"{self.day or 'unknown date'} {f'{self.clock:%H:%M:%S}' if self.clock else 'unknown time'} UTC"


class Acquisitions(NamedTuple):
    """When and where N patches were taken, each (N,) float64 with NaN for what is not known."""

    week: np.ndarray
    """ISO week, 1 to 53."""
    hour: np.ndarray
    """Full hour (UTC), 0 to 23."""
    julian_day: np.ndarray
    """Days and their fraction (UTC); known where both date and time of day are."""
    lat: np.ndarray
    """Degrees (EPSG:4326)."""
    lon: np.ndarray

    @classmethod
    def of(cls, times: Sequence[AcquisitionTime], lat: Any = None, lon: Any = None) -> "Acquisitions":
        """From times (N, or one for all) and places (N,) in degrees; None where no place is known."""
        moments = np.array([_numbers(one) for one in times], np.float64).reshape(-1, 3)
        places = [np.atleast_1d(np.asarray(UNKNOWN if one is None else one, np.float64)) for one in (lat, lon)]
        count = max(len(moments), *map(len, places))
        columns = (*moments.T, *places)
        return cls(*(np.broadcast_to(column, (count,)) for column in columns))


class MetadataField(NamedTuple):
    """One field."""

    name: str
    """As in `model.meta_fields`; its projection in the weights is called `<name>_proj`."""
    unit: str
    """Of the column."""
    period: float
    """Units of a whole turn: the angle is value * 2 pi / period."""
    limits: tuple[float, float]
    """Least and greatest value that can be stated."""
    derive: Callable[[Acquisitions], np.ndarray]
    """From when and where to the column (N,)."""
    mtl_key: str | None = None
    """Under which a scene's MTL file states it; that counts before what is derived."""
    published: Callable[[Tensor], Tensor] | None = None
    """What the published code makes of the value (`published_behaviour: true`)."""

    @property
    def radians_per_unit(self) -> float:
        return 2 * math.pi / self.period


def first_digit(hour: Tensor) -> Tensor:
    """The published code reads one digit of the hour's two: 09 -> 0, 10 and 11 -> 1."""
    return torch.floor(hour / 10)


_ROWS = (
    MetadataField("week", "ISO week", 52, (1, 53), lambda known: known.week),
    MetadataField("hour", "full hour, UTC", 24, (0, 23), lambda known: known.hour, published=first_digit),
    MetadataField("lat", "degrees, EPSG:4326", 360, (-90, 90), lambda known: known.lat),
    MetadataField("lon", "degrees, EPSG:4326", 360, (-180, 360), lambda known: known.lon),
    MetadataField("sun_elevation", "degrees above the horizon", 360, (-90, 90),
                  lambda known: sun_elevation(known.julian_day, known.lat, known.lon), "SUN_ELEVATION"),
)  # fmt: skip

FIELDS = {field.name: field for field in _ROWS}
"""Every field by name. The order is that of the columns; a model's own order is `ModelConfig.meta_fields`."""

PUBLISHED_FIELDS = ("week", "hour", "lat", "lon")
"""The fields of the paper (arXiv:2509.10919), in the order of its tokens: the default."""

_COLUMN = {name: index for index, name in enumerate(FIELDS)}


def metadata_columns(known: Acquisitions, stated: Mapping[str, Any] | None = None) -> np.ndarray:
    """All fields of N patches, (N, F) float64 in the order of `FIELDS`; NaN where not known.

    Args:
        known: when and where they were taken.
        stated: values of some fields, one for all patches or (N,), that count before what is derived; NaN states
            nothing.
    """
    columns = np.stack([field.derive(known) for field in FIELDS.values()], axis=1)
    for name, values in (stated or {}).items():
        values = np.asarray(values, np.float64)
        column = columns[:, _COLUMN[name]]
        columns[:, _COLUMN[name]] = np.where(np.isnan(values), column, values)
    return columns


def column_of(columns: np.ndarray, name: str) -> np.ndarray:
    """The column (N,) of a field."""
    return columns[:, _COLUMN[name]]


def select_fields(columns: np.ndarray, fields: Iterable[str]) -> np.ndarray:
    """The columns of some fields in their order, (N, F) of (N, len(FIELDS))."""
    return columns[:, [_COLUMN[name] for name in fields]]


def unknown_columns(count: int) -> np.ndarray:
    """The columns of patches of which nothing is known, (count, len(FIELDS)) NaN."""
    return np.full((count, len(FIELDS)), UNKNOWN)


def units_of(fields: Iterable[str]) -> str:
    """The fields with their units, for people: "week (ISO week), hour (full hour, UTC), …"."""
    return ", ".join(f"{name} ({FIELDS[name].unit})" for name in fields)


def with_fields(columns: np.ndarray, fields: Sequence[str], values: np.ndarray | float) -> np.ndarray:
    """A copy of the columns with some fields, (N, F), put in."""
    columns = columns.copy()
    columns[:, [_COLUMN[name] for name in fields]] = values
    return columns


def encode_metadata(
    columns: np.ndarray, fields: Sequence[str] = PUBLISHED_FIELDS, published_behaviour: bool = False
) -> np.ndarray:
    """Columns as a model takes them: float32 (B, F, 2), rows (sin, cos) of its fields; (0, 0) for what is not known.

    Args:
        columns: (B, len(FIELDS)), as `metadata_columns` gives them.
        fields: of the model, in its order.
        published_behaviour: the hour is cut to its first digit, as the released weights were trained.
    """
    values = torch.from_numpy(select_fields(columns, fields))
    return encode_values(values, fields, published_behaviour).float().numpy()


def encode_values(values: Tensor, fields: Sequence[str], published_behaviour: bool) -> Tensor:
    """The same for the model's own columns: (B, F) in any floating type to (B, F, 2) of that type."""
    known = ~values.isnan()
    angles = []
    for name, value in zip(fields, torch.where(known, values, 0.0).unbind(dim=1), strict=True):
        field = FIELDS[name]
        shown = field.published(value) if published_behaviour and field.published else value
        angles.append(shown * field.radians_per_unit)
    angle = torch.stack(angles, dim=1) if angles else values
    return torch.stack([angle.sin(), angle.cos()], dim=-1) * known.unsqueeze(-1)


def _numbers(when: AcquisitionTime) -> tuple[float, float, float]:
    """ISO week, full hour and Julian day of a time."""
    week, hour = (UNKNOWN if value is None else float(value) for value in (when.week, when.hour))
    if when.day is None or when.clock is None:
        return week, hour, UNKNOWN
    seconds = when.clock.hour * 3600 + when.clock.minute * 60 + when.clock.second
    return week, hour, UNIX_EPOCH + (when.day - date(1970, 1, 1)).days + seconds / 86400
