"""Checksums of an array by blocks of rows: made while it is written, compared block by block while it is read."""

import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

BLOCK_BYTES = 32 * 2**20
"""Of a block, about."""


class RowChecksums(NamedTuple):
    """Of one array, as a JSON record holds it."""

    dtype: str
    """As numpy writes it: `<f4`."""
    shape: list[int]
    rows: int
    """Of a block; the last one may have fewer."""
    crc32: list[int]
    """Of every block's bytes, in C order."""

    def blocks(self) -> Iterator[tuple[slice, int]]:
        """Rows and checksum of every block."""
        starts = range(0, self.shape[0], self.rows)
        for start, crc in zip(starts, self.crc32, strict=True):
            yield slice(start, min(start + self.rows, self.shape[0])), crc


def row_slices(array: np.ndarray, most_bytes: int = BLOCK_BYTES) -> Iterator[slice]:
    """Slices of consecutive rows that cover an array, of about so many bytes each."""
    step = max(1, most_bytes // max(1, array[:1].nbytes))
    for start in range(0, len(array), step):
        yield slice(start, min(start + step, len(array)))


def crc_of(rows: np.ndarray, before: int = 0) -> int:
    """CRC-32 of an array's bytes in C order, going on from that of what stands before it."""
    return zlib.crc32(np.ascontiguousarray(rows).data, before)


def checksums_from(record: Any) -> RowChecksums:
    """Checksums as they stand in a record. Raises ValueError where they are none."""
    try:
        found = RowChecksums(**record)
        numbers = [found.rows, *found.shape, *found.crc32]
        blocks = -(-found.shape[0] // found.rows)
    except (TypeError, IndexError, ZeroDivisionError) as error:
        raise ValueError(f"no checksums: {error}") from error
    if not all(isinstance(one, int) for one in numbers) or found.rows < 1 or len(found.crc32) != blocks:
        raise ValueError("no checksums of blocks of rows")
    return found
