"""Zip archives (`.pth`, `.npz`) whose own checksums agree: PyTorch and memory maps do not look at them."""

import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

PIECE = 1 << 22
"""Bytes that are read at a time."""
ZIP_START = b"PK\x03\x04"

DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError, OverflowError)
"""What `zipfile` raises on damaged archives; RuntimeError where the encryption bit is set."""


def damage_of(file: str | Path | BinaryIO) -> str | None:
    """Read an archive once; what is wrong with it, in a few words, None where every member's CRC-32 agrees."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if len({member.filename for member in members}) < len(members):
                return "two members have one name"
            for member in members:
                if problem := damage_of_member(archive, member):
                    return f"{member.filename}: {problem}"
    except DAMAGED as error:
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    return None


def damage_of_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> str | None:
    """The same of one member."""
    if member.external_attr & 0x10:  # PyTorch's reader then takes it for a folder, and returns memory as it was
        return "is marked as a folder"
    try:
        with archive.open(member) as content:
            while content.read(PIECE):
                pass
    except DAMAGED as error:
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    return None
