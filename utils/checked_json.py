"""JSON records that carry a checksum of themselves, so that a damaged one is noticed before it is believed."""

import hashlib
import json
from pathlib import Path
from typing import Any

from utils.files import write_json

CHECKSUM = "checksum"
"""Hex SHA-256 of all entries but these two, as JSON with sorted keys and without spaces."""
CHECKSUM_OF = "checksum_of"
"""Says so to whoever reads the file, and is the second sign that a checksum belongs there: one damaged key does not
make a record look like one that was written without."""
FIX = f"restore it; if you changed it yourself, take {CHECKSUM} and {CHECKSUM_OF} out of it"


def write_checked_json(path: str | Path, record: dict[str, Any]) -> Path:
    """Write a record with its checksum, atomically."""
    return write_json(path, {**record, CHECKSUM_OF: "all other entries", CHECKSUM: checksum_of(record)})


def checksum_of(record: dict[str, Any]) -> str:
    """Of all entries of a record but the checksum's own; the same for a record and what is read back of it."""
    entries = {key: value for key, value in record.items() if key not in (CHECKSUM, CHECKSUM_OF)}
    return hashlib.sha256(json.dumps(entries, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def has_checksum(record: dict[str, Any]) -> bool:
    """Whether a record was written with a checksum; older ones were not."""
    return CHECKSUM in record or CHECKSUM_OF in record


def is_changed(record: dict[str, Any]) -> bool:
    """Whether a record differs from what was written; False where it has no checksum."""
    return has_checksum(record) and record.get(CHECKSUM) != checksum_of(record)
