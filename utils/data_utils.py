"""From a patch's id and place to the metadata that the model is conditioned on."""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

import numpy as np

from utils.errors import DataError

_PATCH_ID = re.compile(r"S2[A-Z]_MSIL2A_(?P<date>\d{8})T(?P<time>\d{5,6})_(?P<row>\d+)_(?P<column>\d+)")


class PatchTime(NamedTuple):
    """When the Sentinel-2 acquisition was taken that a BigEarthNet patch is named after.

    The Landsat scene of BigEarthNet-Landsat is the least cloudy one within two months of it, so week and hour are
    approximate for the pixels.
    """

    when: datetime
    """UTC."""
    time_text: str
    """The time as it stands in the id: six digits, or five where the leading zero was lost."""

    @property
    def week(self) -> int:
        """ISO week, 1 to 53."""
        return self.when.isocalendar().week

    def hour(self, published_behaviour: bool = False) -> int:
        """Full hour, 0 to 23; as published, the first digit of the text (09 -> 0, 10 and 11 -> 1, lost zero -> 9)."""
        return int(self.time_text[0]) if published_behaviour else self.when.hour


def parse_patch_id(patch_id: str) -> PatchTime:
    """Date and time of a BigEarthNet id such as `S2A_MSIL2A_20170613T101031_11_66`.

    A five-digit time has lost its leading zero: `T95032` is 09:50:32.

    Raises:
        DataError: when the text is not such an id or holds no real date and time.
    """
    match = _PATCH_ID.fullmatch(patch_id)
    try:
        if match is None:
            raise ValueError
        when = datetime.strptime(match["date"] + match["time"].zfill(6), "%Y%m%d%H%M%S")
    except ValueError:
        raise DataError(
            f"patch id {patch_id!r} cannot be read; expected a form such as S2A_MSIL2A_20170613T101031_11_66"
        ) from None
    return PatchTime(when, match["time"])


def encode_metadata(
    week: Iterable[float], hour: Iterable[float], lat: Iterable[float], lon: Iterable[float]
) -> np.ndarray:
    """Cyclic metadata, float32 (B, 4, 2): rows week, hour, latitude, longitude as (sin, cos).

    Args:
        week: ISO weeks; the angle is week * 2 pi / 52.
        hour: hours; the angle is hour * 2 pi / 24.
        lat, lon: degrees in EPSG:4326; the angle is the value in radians.
    """
    angles = np.stack(
        [
            np.asarray(list(week), dtype=np.float64) * (2 * np.pi / 52),
            np.asarray(list(hour), dtype=np.float64) * (2 * np.pi / 24),
            np.radians(np.asarray(list(lat), dtype=np.float64)),
            np.radians(np.asarray(list(lon), dtype=np.float64)),
        ],
        axis=1,
    )
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).astype(np.float32)


def list_some(items: Iterable[object], most: int = 5) -> str:
    """The first few items and how many more there are, for an error's one line."""
    items = [str(item) for item in items]
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
