"""Text and arrays from files that may be damaged or hostile: what their parsers raise, as one kind of error."""

import json
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

_DAMAGE = (
    EOFError,
    IndexError,
    KeyError,
    NotImplementedError,
    OverflowError,
    RuntimeError,  # an encrypted member of an archive
    SyntaxError,
    TypeError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


@contextmanager
def damage_as_value_error() -> Iterator[None]:
    """Raise ValueError, with a line, for whatever parsers of Python and NumPy raise for what they cannot read."""
    try:
        yield
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except MemoryError as error:
        raise ValueError("it says that it is larger than the memory") from error
    except _DAMAGE as error:
        said = str(error).splitlines()
        raise ValueError(said[0] if said else type(error).__name__) from error


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: for what is none, or is nested too deeply, or has a number of thousands of digits.
    """
    with damage_as_value_error():
        return json.loads(text)


def read_npz(path: Path, most_bytes: int | None = None) -> dict[str, np.ndarray]:
    """All arrays of an `.npz`, without objects.

    Args:
        path: the file.
        most_bytes: of all arrays together, as the archive states it; None is no limit.

    Raises:
        ValueError: for a damaged file, another format, or more bytes.
        OSError: where it cannot be read.
    """
    with damage_as_value_error():
        with zipfile.ZipFile(path) as archive:
            stated = sum(member.file_size for member in archive.infolist())
        if most_bytes is not None and stated > most_bytes:
            raise ValueError(f"it unpacks to {stated:,} bytes, where {most_bytes:,} are the most")
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    if foreign := [key for key, array in arrays.items() if not isinstance(array, np.ndarray)]:
        raise ValueError(f"its member {foreign[0]!r} is no array")
    return arrays


def map_npy(path: Path) -> np.ndarray:
    """The array of a `.npy` as a read-only memory map.

    Raises:
        ValueError: for a damaged header, or one that does not fit to the file.
        OSError: where it cannot be read.
    """
    with damage_as_value_error():
        return np.load(path, mmap_mode="r", allow_pickle=False)


def is_there(path: Path) -> bool:
    """Whether a file is there that another file names; a name that no file can have is not."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with half a letter in it
        return False
