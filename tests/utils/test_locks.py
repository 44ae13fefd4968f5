"""A folder is held by one process at a time, on systems of either kind."""

import fcntl
from pathlib import Path
from types import SimpleNamespace

import pytest

from utils import locks
from utils.errors import UserError
from utils.locks import held_alone


def locking(descriptor: int, mode: int, count: int) -> None:
    """Windows' way, by this system's locks: refused with PermissionError."""
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
                    with pytest.raises(UserError, match="another process is at work"), held_alone(tmp_path, "at work"):
                        raise AssertionError("held twice")
                if end is not None:
                    raise end
        except RuntimeError:
            assert end is RuntimeError
    left = [path.name for path in tmp_path.iterdir() if path.is_file()]
    assert left == ([] if system == "unix" else [locks.LOCK_FILE])


def test_a_system_without_locks_says_so(tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(locks, "msvcrt", None)
    caplog.set_level("INFO", "moemae")
    with held_alone(tmp_path, "at work"), held_alone(tmp_path, "at work"):
        assert sum("a second run in it would not be noticed" in line for line in caplog.messages) == 2
