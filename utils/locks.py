"""One process at a time in a folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.errors import UserError

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None


@contextmanager
def held_alone(folder: Path, otherwise: str) -> Iterator[None]:
    """Hold a folder against a second run of the same command, however this one ends.

    On Windows, which has no such lock, a second run is not noticed.

    Raises:
        UserError: naming the folder and, with `otherwise`, what the process that holds it is doing.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{folder}: another process is {otherwise}") from error
        yield
    finally:
        os.close(descriptor)
