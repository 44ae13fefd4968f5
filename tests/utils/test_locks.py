"""A folder is held by one process at a time, on systems of either kind."""

import errno
import fcntl
import json
import os
import platform
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from open_files import open_files

from utils import locks
from utils.errors import UserError
from utils.locks import held_alone


def locking(descriptor: int, mode: int, count: int) -> None:
    """Windows' way, by this system's locks: refused with PermissionError; of one byte, far behind what is written."""
    assert count == 1 and os.lseek(descriptor, 0, os.SEEK_CUR) == locks.LOCKED_BYTE
    try:
        fcntl.flock(descriptor, fcntl.LOCK_UN if mode == 0 else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise PermissionError(13, "Permission denied") from error


@pytest.fixture(params=["unix", "windows"])
def system(request, monkeypatch) -> str:
    if request.param == "windows":
        monkeypatch.setattr(locks, "fcntl", None)
        monkeypatch.setattr(locks, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2, LK_UNLCK=0))
    return request.param


def test_a_second_run_is_refused_until_the_first_ends(system: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for end in (None, RuntimeError):
        try:
            with held_alone(tmp_path, "at work"), held_alone(tmp_path / "other", "at work"):
                for _ in range(2):
                    with pytest.raises(UserError, match=rf"another process is at work \(process {os.getpid()} on "):
                        with held_alone(tmp_path, "at work"):
                            raise AssertionError("held twice")
                if end is not None:
                    raise end
        except RuntimeError:
            assert end is RuntimeError
    assert not open_files(tmp_path), "every file that was opened is closed"
    left = [path.name for path in tmp_path.iterdir() if path.is_file()]
    assert left == ([] if system == "unix" else [locks.LOCK_FILE])


def no_locks(descriptor: int, mode: int) -> None:
    raise OSError(errno.EOPNOTSUPP, "Operation not supported")


@pytest.fixture(params=["no fcntl", "a file system without locks"])
def without_locks(request, monkeypatch) -> None:
    monkeypatch.setattr(locks, "msvcrt", None)
    if request.param == "no fcntl":
        monkeypatch.setattr(locks, "fcntl", None)
    else:
        monkeypatch.setattr(fcntl, "flock", no_locks)


def test_without_locks_the_file_says_who(tmp_path: Path, without_locks, caplog) -> None:
    """And of another machine's it is said that nobody can know."""
    caplog.set_level("INFO", "moemae")
    with held_alone(tmp_path, "at work"):
        with pytest.raises(UserError, match=rf"at work \(process {os.getpid()} on .*; if it is not, remove .*\.held"):
            with held_alone(tmp_path, "at work"):
                raise AssertionError("held twice")
        assert caplog.messages[-1].endswith("has no locks; a second run on another machine is not noticed")
        record = json.loads((tmp_path / locks.LOCK_FILE).read_text())
    assert not any(tmp_path.iterdir()) and not open_files(tmp_path)
    for change, said in (
        (
            {"host": "elsewhere", "machine": "x"},
            "the last one (process 5 on elsewhere, since some day) may still be at work",
        ),
        ({"pid": 2**30}, "is not noticed"),
        ({"pid": "x"}, "is not noticed"),
        ({"started": "0"}, "is not noticed"),
    ):
        other = {**record, "pid": 5 if "host" in change else os.getpid(), "since": "some day", **change}
        (tmp_path / locks.LOCK_FILE).write_text(json.dumps(other))
        with held_alone(tmp_path, "at work"):
            assert caplog.messages[-1].endswith(said)


def test_who_holds_it_since_when(tmp_path: Path) -> None:
    with held_alone(tmp_path, "at work"):
        since = r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
        with pytest.raises(
            UserError, match=rf"at work \(process {os.getpid()} on {re.escape(platform.node())}, {since}\)$"
        ):
            with held_alone(tmp_path, "at work"):
                raise AssertionError("held twice")
        with held_alone(tmp_path, "at work", "another.kind"):
            pass
        (tmp_path / locks.LOCK_FILE).write_text("not yet")
        with pytest.raises(UserError, match=r"another process is at work$"), held_alone(tmp_path, "at work"):
            raise AssertionError("held twice")


def test_what_dead_processes_leave_is_no_obstacle(tmp_path: Path) -> None:
    """A file of one that was killed; and one that a child of it still holds open, and with it the lock."""
    file = tmp_path / locks.LOCK_FILE
    file.write_text("half a rec" * 100)
    with held_alone(tmp_path, "at work"):
        whole = json.loads(file.read_text())
    assert not file.exists()
    with file.open("w") as child:
        child.write(json.dumps({**whole, "pid": 2**30}))
        child.flush()
        fcntl.flock(child, fcntl.LOCK_EX)
        with held_alone(tmp_path, "at work"):
            with pytest.raises(UserError, match=f"process {os.getpid()}"), held_alone(tmp_path, "at work"):
                raise AssertionError("held twice")
    assert not file.exists()


def test_the_file_of_the_next_holder_stays(tmp_path: Path) -> None:
    """Somebody has removed the file by hand, and another process holds a new one."""
    file = tmp_path / locks.LOCK_FILE
    with held_alone(tmp_path, "at work"):
        file.unlink()
        file.write_text("another's")
    assert file.read_text() == "another's"
    with held_alone(tmp_path, "at work"):
        file.unlink()
    assert not file.exists()


def test_a_file_that_its_holder_removes_meanwhile(tmp_path: Path, monkeypatch) -> None:
    """Opened before the first one ended, locked after it: what is locked then is no longer in the folder."""
    file, real, gone = tmp_path / locks.LOCK_FILE, fcntl.flock, []

    def flock(descriptor: int, mode: int) -> None:
        if not gone:
            gone.append(file.unlink())
        real(descriptor, mode)

    monkeypatch.setattr(fcntl, "flock", flock)
    with held_alone(tmp_path, "at work"):
        assert file.exists() and len(gone) == 1
        assert open_files(tmp_path) == [str(file)], "the file that is gone is closed"
    assert not open_files(tmp_path)
