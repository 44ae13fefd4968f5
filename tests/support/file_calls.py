"""What a disk, a kill or a power loss does to a piece of work at each of its file calls.

`forked` does the work in a child process, where Python's audit events tell of every file that is opened, renamed,
linked, removed or cut in a folder, and `os.fsync` is wrapped. `states_after_power_loss` replays the same calls as a
file system may have kept them.
"""

import errno
import itertools
import os
import signal
import stat
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from utils.errors import UserError, describe_os_error

if sys.platform != "linux":
    pytest.skip("forks, and looks into /proc", allow_module_level=True)

import resource

EVENTS = ("open", "os.rename", "os.link", "os.remove", "os.truncate", "os.mkdir", "os.rmdir")
SAVED, REFUSED, TRACEBACK, KILLED = 0, 2, 1, 77
MOST_SECONDS = 120
"""After so long a child waits for something that will not come: it is killed, with the code -SIGALRM."""


class Fault(NamedTuple):
    """What happens at the file call of a number, or to the first file that grows beyond a size."""

    at: int | None = None
    """From 0; None lets all calls through."""
    error: int | None = None
    """The system's error there; None kills the process."""
    most_bytes: int | None = None
    kill: bool = False
    """With `most_bytes`: killed within the write, else the write comes short and then fails."""


class Ended(NamedTuple):
    code: int
    """One of SAVED, REFUSED, TRACEBACK, KILLED."""
    calls: int
    """File calls that were made."""
    said: str


def forked(work: Callable[[], object], folder: Path, fault: Fault | None = None) -> Ended:
    """Do the work in a child process with a fault among its file calls in a folder; `MOST_SECONDS` end it."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os._exit(_as_child(work, folder, fault or Fault(), write))
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = KILLED if status == -signal.SIGXFSZ else status
    calls = said.count("\n.")
    return Ended(code, calls, said.replace("\n.", ""))


def _as_child(work: Callable[[], object], folder: Path, fault: Fault, pipe: int) -> int:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(MOST_SECONDS)
    seen = itertools.count()
    inside = f"{folder.resolve()}{os.sep}"

    def call(name: str) -> None:
        number = next(seen)
        os.write(pipe, b"\n.")
        if number == fault.at:
            if fault.error is None:
                os._exit(KILLED)
            raise OSError(fault.error, os.strerror(fault.error), name)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in EVENTS and not (event == "open" and isinstance(arguments[2], int) and _only_reads(arguments[2])):
            names = [os.fsdecode(one) for one in arguments[:2] if isinstance(one, (str, bytes, os.PathLike))]
            if any(f"{name}{os.sep}".startswith(inside) for name in names):
                call(names[0])

    real = os.fsync

    def fsync(descriptor: int) -> None:
        call("fsync")
        real(descriptor)

    os.fsync = fsync
    sys.addaudithook(hook)
    if fault.most_bytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if fault.kill else signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.most_bytes, resource.RLIM_INFINITY))
    try:
        work()
        return SAVED
    except (UserError, OSError) as error:  # as `utils.errors.run_script` ends
        os.write(pipe, (describe_os_error(error) if isinstance(error, OSError) else str(error)).encode())
        return REFUSED
    except BaseException:
        os.write(pipe, traceback.format_exc().encode())
        return TRACEBACK


def _only_reads(flags: int) -> bool:
    return flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) == 0


def faults_of(calls: int, size: int) -> list[Fault]:
    """A kill, EIO and ENOSPC at each of so many calls, and files that end at eight sizes, killed there or short."""
    at_calls = [Fault(at, error) for at in range(calls) for error in (None, errno.EIO, errno.ENOSPC)]
    sizes = [size * part // 8 for part in range(8)]
    return at_calls + [Fault(most_bytes=most, kill=kill) for most in sizes for kill in (True, False)]


# --------------------------------------------------------------------------- power loss


State = dict[str, bytes]
"""Name to contents of the files of a folder."""


def states_after_power_loss(work: Callable[[], object], folder: Path) -> Iterator[State]:
    """Do the work, and give every state that the folder may be in when power fails before, within or after it.

    What is not synced may be lost: of files the contents, of the folder's names any subset of the changes since. Each
    state comes once.
    """
    log = _Log(folder)
    with pytest.MonkeyPatch.context() as patch:
        for name, noted in (("replace", log.renamed), ("rename", log.renamed), ("link", log.linked),
                            ("unlink", log.unlinked), ("fsync", log.synced)):  # fmt: skip
            patch.setattr(os, name, _noting(getattr(os, name), noted))
        work()
    log.note({})
    seen = set()
    for state in log.states:
        key = tuple(sorted(state.items()))
        if key not in seen:
            seen.add(key)
            yield dict(state)


def _noting(call: Callable[..., Any], noted: Callable[..., Callable[[], None]]) -> Callable[..., Any]:
    def noting(*arguments: Any, **options: Any) -> Any:
        afterwards = noted(*arguments)
        result = call(*arguments, **options)
        afterwards()
        return result

    return noting


class _Log:
    """What is on the disk for certain, and the changes of names that may be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.contents: dict[int, bytes] = {}
        self.names: dict[str, int] = {}
        for path in folder.iterdir():
            self.names[path.name] = path.stat().st_ino
            self.contents[path.stat().st_ino] = path.read_bytes()
        self.pending: list[dict[str, int | None]] = []
        self.states: list[State] = []

    def note(self, change: dict[str, int | None]) -> None:
        if change:
            self.pending.append(change)
        for chosen in itertools.product((False, True), repeat=len(self.pending)):
            names: dict[str, int | None] = dict(self.names)
            for one in itertools.compress(self.pending, chosen):
                names |= one
            self.states.append({name: self.contents.get(at, b"") for name, at in names.items() if at is not None})

    def _inside(self, path: Any) -> bool:
        return isinstance(path, (str, os.PathLike)) and Path(path).parent == self.folder

    def renamed(self, source: Any, target: Any) -> Callable[[], None]:
        inode = Path(source).stat().st_ino
        same = Path(target).exists() and Path(target).stat().st_ino == inode  # the system then does nothing

        def afterwards() -> None:
            if self._inside(target) and not same:
                self.note({Path(source).name: None, Path(target).name: inode})

        return afterwards

    def linked(self, source: Any, target: Any) -> Callable[[], None]:
        inode = Path(source).stat().st_ino
        return lambda: self.note({Path(target).name: inode}) if self._inside(target) else None

    def unlinked(self, path: Any, **_: Any) -> Callable[[], None]:
        inside = self._inside(path) and Path(path).exists()
        return lambda: self.note({Path(path).name: None}) if inside else None

    def synced(self, descriptor: int) -> Callable[[], None]:
        found = os.fstat(descriptor)

        def afterwards() -> None:
            if stat.S_ISDIR(found.st_mode):
                for change in self.pending:
                    for name, inode in change.items():
                        if inode is None:
                            self.names.pop(name, None)
                        else:
                            self.names[name] = inode
                self.pending = []
            else:
                self.contents[found.st_ino] = Path(f"/proc/self/fd/{descriptor}").read_bytes()

        return afterwards
