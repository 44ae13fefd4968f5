"""One process at a time in a folder, and who it is."""

import errno
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.owners import Owner, this_process
from utils.parsing import parse_json
from utils.reporting import reporter

try:
    import fcntl
except ImportError:  # pragma: no cover - on Windows; tests set it to None
    fcntl = None
try:
    import msvcrt
except ImportError:  # everywhere else
    msvcrt = None

LOCK_FILE = ".held"
"""Stands in a folder as long as it is held, and says by whom; after a kill until the next one holds it. A file is
locked, not the folder: on network file systems a folder's lock is known to one machine only."""

LOCKED_BYTE = 1 << 30
"""Of the file, on Windows, where nobody else can read what is locked."""

NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF)
"""What file systems without locks answer."""


@contextmanager
def held_alone(folder: Path, otherwise: str, name: str = LOCK_FILE) -> Iterator[None]:
    """Hold a folder against a second run of the same command, however this one ends: the system lets a lock go.

    Where system or file system have no locks, the file that a process leaves while it holds the folder decides: one of
    this machine that is alive keeps it; of one elsewhere nobody can know, which is said.

    Args:
        folder: that is there.
        otherwise: what a process that holds it is doing.
        name: of the file; one for each kind of run that may be in a folder.

    Raises:
        UserError: naming the folder, who holds it, and since when.
    """
    file = folder / name
    descriptor = _opened(file, f"{folder}: another process is {otherwise}")
    try:
        _write_who(descriptor)
        yield
    finally:
        if msvcrt is None:  # Windows removes no file that is open
            _remove_if_own(file, descriptor)
        _let_go(descriptor)
        os.close(descriptor)


def _opened(file: Path, refusal: str) -> int:
    """The lock file, open and locked by this process where there are locks. Raises UserError where another has it."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            locked, others = _lock(descriptor), False
        except (BlockingIOError, PermissionError):  # of flock, of msvcrt
            locked, others = True, True
        who = _read_who(descriptor)
        alive = _owner(who).alive if who else None
        if others and alive is not False:
            os.close(descriptor)
            raise UserError(f"{refusal}{_said(who)}")
        if not locked and alive:
            os.close(descriptor)
            raise UserError(f"{refusal}{_said(who)}; if it is not, remove {file}")
        if others:  # children of a process that is dead hold its file; the next ones hold another
            _remove_if_own(file, descriptor)
        elif not locked:
            beside = f"; the last one{_said(who)} may still be at work" if who and alive is None else ""
            reporter.info(f"note: {file.parent}: has no locks; a second run on another machine is not noticed{beside}")
            return descriptor
        elif _is_at(file, descriptor):
            return descriptor
        os.close(descriptor)  # its holder has removed it meanwhile


def _lock(descriptor: int) -> bool:
    """Lock a file; False where there are no locks. Raises OSError at once where another process has it."""
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif msvcrt is not None:
            os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
        else:
            return False
    except OSError as error:
        if error.errno in NO_LOCKS:
            return False
        raise
    return True


def _let_go(descriptor: int) -> None:
    """Before the file is closed: Windows lets go of a closed file's lock only after a while."""
    if fcntl is None and msvcrt is not None:
        with suppress(OSError):  # there was no lock
            os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]


def _write_who(descriptor: int) -> None:
    record = {
        **this_process()._asdict(),
        "host": platform.node(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, json.dumps(record).encode())


def _read_who(descriptor: int) -> dict[str, Any]:
    """What a lock file says; empty where it says nothing yet, or nothing that can be read."""
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        record = parse_json(os.read(descriptor, 4096))
    except (OSError, ValueError):
        return {}
    whole = isinstance(record, dict) and isinstance(record.get("pid"), int) and set(Owner._fields) <= record.keys()
    return record if whole else {}


def _owner(who: dict[str, Any]) -> Owner:
    return Owner(*(who[key] for key in Owner._fields))


def _said(who: dict[str, Any]) -> str:
    return f" (process {who.get('pid')} on {who.get('host')}, since {who.get('since')})" if who else ""


def _is_at(file: Path, descriptor: int) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except OSError:
        return False


def _remove_if_own(file: Path, descriptor: int) -> None:
    with suppress(OSError):
        if _is_at(file, descriptor):
            file.unlink()
