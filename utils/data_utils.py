"""Acquisition times from patch ids, and small helpers for messages."""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from utils.errors import DataError
from utils.metadata import AcquisitionTime

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
    def time(self) -> AcquisitionTime:
        """Date and time of day."""
        return AcquisitionTime.at(self.when)

    @property
    def published_hour(self) -> int:
        """The hour that the published code reads, of whose two digits it then keeps the first.

        The first two digits of the text: right where there are six, and 95 for `T95032`, which has lost its zero.
        """
        return int(self.time_text[:2])


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


def list_some(items: Iterable[object], most: int = 5) -> str:
    """The first few items and how many more there are, for an error's one line."""
    items = [str(item) for item in items]
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
