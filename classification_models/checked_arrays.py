"""Arrays of an `.npz`, mapped or read, and the checksums that they are compared with before they are believed."""

import math
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from utils.archives import damage_of_member
from utils.errors import DataError
from utils.row_checksums import RowChecksums, crc_of, row_slices

REMAKE = "make it again with `python -m embed.compute_embed`"


class ArrayCheck(NamedTuple):
    """What an array is compared with, the first time that a process visits it."""

    blocks: RowChecksums | None
    """From the JSON."""
    crc32: int | None
    """Else of all bytes of the array; None where they have been read through the archive, which compares them."""
    header: int
    """CRC-32 of what stands before them."""
    file: tuple[Any, ...]
    """What tells the file from others, and from what it was before it was written anew."""


_compared: set[tuple[Any, ...]] = set()
"""Files of which this process has compared the array."""


def read_array(path: Path, archive: zipfile.ZipFile, key: str) -> np.ndarray:
    """The array `key`, read into memory; the archive compares its checksum."""
    info = archive.getinfo(f"{key}.npy")
    with archive.open(info) as member:
        _read_header(path, info, member, key)
        member.seek(0)
        return np.lib.format.read_array(member, allow_pickle=False)


def require_whole(archive: zipfile.ZipFile, read: Collection[str]) -> None:
    """Read what is in an archive beside the arrays that have been read: one may be there under a damaged name."""
    known = {f"{key}.npy" for key in read}
    for member in archive.infolist():
        if member.filename not in known and (problem := damage_of_member(archive, member)):
            raise ValueError(f"{member.filename}: {problem}")


def open_array(path: Path, archive: zipfile.ZipFile, key: str) -> tuple[np.ndarray, ArrayCheck]:
    """The array `key`, mapped from the file if it is stored uncompressed, else read, and what to compare it with."""
    info, found = archive.getinfo(f"{key}.npy"), path.stat()
    file = (path.resolve(), found.st_ino, found.st_size, found.st_mtime_ns)
    with archive.open(info) as member:
        shape, dtype, fortran_order = _read_header(path, info, member, key)
        header_bytes = member.tell()
    if info.compress_type != zipfile.ZIP_STORED or fortran_order or 0 in shape:
        return read_array(path, archive, key), ArrayCheck(None, None, 0, file)
    start = _data_offset(path, info) + header_bytes
    with path.open("rb") as raw:
        raw.seek(start - header_bytes)
        header = zlib.crc32(raw.read(header_bytes))
    return np.memmap(path, dtype, "r", start, shape), ArrayCheck(None, info.CRC, header, file)


def _read_header(
    path: Path, info: zipfile.ZipInfo, member: IO[bytes], key: str
) -> tuple[tuple[int, ...], np.dtype, bool]:
    """Shape, type, and whether columns stand together, of an array in an archive."""
    version = np.lib.format.read_magic(member)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"npy format {version}")
    shape, fortran_order, dtype = readers[version](member)
    if dtype.hasobject:
        raise DataError(f"{path}: {key} holds Python objects, which are never loaded; store plain numbers or text")
    if member.tell() + dtype.itemsize * math.prod(shape) != info.file_size:
        raise ValueError("array length and file length differ")
    return shape, dtype, fortran_order


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """First byte of a member: its local header has 30 bytes, then a name and an extra field (PKWARE APPNOTE 4.3.7)."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        header = file.read(30)
    if len(header) < 30:
        raise ValueError("truncated local header")
    name_bytes, extra_bytes = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    return info.header_offset + 30 + name_bytes + extra_bytes


def compared_chunks(path: Path, x: np.ndarray, check: ArrayCheck, most_bytes: int) -> Iterator[slice]:
    """Slices of rows that cover an array, the first time compared with its checksums: to be visited to the end.

    Args:
        path: of the file, for messages.
        x: as `open_array` gives it.
        check: of it.
        most_bytes: of a slice, about, where the checksums do not say.

    Raises:
        DataError: naming the file, and the rows where they are known, that are not what was written.
    """
    if check.file in _compared or (check.blocks is None and check.crc32 is None):
        yield from row_slices(x, most_bytes)
        return
    if check.blocks is not None:
        for rows, expected in check.blocks.blocks():
            if crc_of(x[rows]) != expected:
                raise DataError(f"{path}: rows {rows.start} to {rows.stop - 1} differ from what was written; {REMAKE}")
            yield rows
    else:
        found = check.header
        for rows in row_slices(x, most_bytes):
            found = crc_of(x[rows], found)
            yield rows
        if found != check.crc32:
            raise DataError(f"{path}: differs from what was written (checksum of the archive); {REMAKE}")
    _compared.add(check.file)
