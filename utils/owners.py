"""Which process something belongs to, and whether that process is alive."""

import hashlib
import os
import platform
from pathlib import Path
from typing import NamedTuple


class Owner(NamedTuple):
    """A process, told from all others, of other machines and of other times too."""

    pid: int
    started: str
    """In ticks since its machine was; empty where nobody says."""
    machine: str
    """Eight hex digits: of the host's name and, in a container, of its numbers of processes."""

    @property
    def alive(self) -> bool | None:
        """None where this machine cannot know: it is another's process."""
        if self.machine != _machine() or os.name == "nt":
            return None  # os.kill would end it on Windows
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except PermissionError:  # it is another user's
            pass
        now = _started(self.pid)
        return not now or now == self.started  # else the number has been given to another process


def this_process() -> Owner:
    """The process that asks."""
    return Owner(os.getpid(), _started(os.getpid()), _machine())


def _machine() -> str:
    try:
        processes = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - not a path; containers number theirs anew
    except OSError:
        processes = ""
    return hashlib.sha256(f"{platform.node()} {processes}".encode()).hexdigest()[:8]


def _started(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
