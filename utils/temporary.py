"""Temporary files and folders beside their place, named after their owner; those of dead ones are removed.

A name is `.<stem>.<process>-<start>-<machine>.<random>.tmp<suffix>`. The suffix stays last, so that writers which look
at it (numpy, matplotlib) behave.
"""

import os
import re
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from utils.owners import Owner, this_process
from utils.reporting import reporter, size_text

_NAME = re.compile(r"\..*\.(\d{1,19})-(\d*)-([0-9a-f]{8})\.\w+\.tmp(\..*)?", re.DOTALL)
RESERVED = ".reserved"
"""Ends names that hold a place for files with a time in their names."""
_RESERVATION = re.compile(r"\..*_\d{8}-\d{6}" + re.escape(RESERVED), re.DOTALL)
FORGOTTEN_AFTER_SECONDS = 24 * 3600.0
"""Without a change, the temporary file of another machine's process is taken for a dead one's."""


def temporary_file(target: Path) -> Path:
    """A new, empty file beside `target`."""
    handle, name = tempfile.mkstemp(prefix=_prefix(target.stem), suffix=f".tmp{target.suffix}", dir=target.parent)
    os.close(handle)
    return Path(name)


def temporary_folder(target: Path) -> Path:
    """A new, empty folder beside `target`."""
    return Path(tempfile.mkdtemp(prefix=_prefix(target.name), suffix=".tmp", dir=target.parent))


def _prefix(stem: str) -> str:
    return f".{stem}.{'-'.join(map(str, this_process()))}."


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that are dead by now left unfinished in a folder, and say how much it was."""
    found = [path for path in folder.glob(".*") if _is_left(path)]
    size = sum(_size(path) for path in found)
    for path in found:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):  # another process removes it, too
                path.unlink()
    if found:
        reporter.info(f"{folder}: removed {len(found)} unfinished of runs that were killed ({size_text(size)})")


def _is_left(path: Path) -> bool:
    name = _NAME.fullmatch(path.name)
    if name is None and not _RESERVATION.fullmatch(path.name):
        return False
    alive = None if name is None else Owner(int(name[1]), name[2], name[3]).alive
    if alive is not None:
        return not alive
    try:
        return time.time() - path.lstat().st_mtime > FORGOTTEN_AFTER_SECONDS
    except OSError:
        return False


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    total = 0
    for file in files:
        with suppress(OSError):
            total += file.lstat().st_size
    return total
