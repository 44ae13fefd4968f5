"""One process at a time in a folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.errors import UserError
from utils.reporting import reporter

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None
try:
    import msvcrt
except ImportError:  # everywhere else
    msvcrt = None

LOCK_FILE = ".held"
"""Stands, empty, in folders that were held on Windows, where a folder itself cannot be locked. It is left there: to
remove it would take it from a process that has opened it meanwhile."""


@contextmanager
def held_alone(folder: Path, otherwise: str) -> Iterator[None]:
    """Hold a folder against a second run of the same command, however this one ends: the system lets a lock go.

    Raises:
        UserError: naming the folder and, with `otherwise`, what the process that holds it is doing.
    """
    if fcntl is None and msvcrt is None:
        reporter.info(f"note: {folder}: this system has no locks; a second run in it would not be noticed")
        yield
        return
    file = None if fcntl is not None else folder / LOCK_FILE
    descriptor = os.open(folder, os.O_RDONLY) if file is None else os.open(file, os.O_RDWR | os.O_CREAT)
    try:
        try:
            _lock(descriptor)
        except (BlockingIOError, PermissionError) as error:  # of flock, of msvcrt
            raise UserError(f"{folder}: another process is {otherwise}") from error
        try:
            yield
        finally:
            _let_go(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Raises OSError at once where another process has it."""
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    elif msvcrt is not None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]


def _let_go(descriptor: int) -> None:
    """Before the file is closed: Windows lets go of a closed file's lock only after a while."""
    if fcntl is None and msvcrt is not None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
