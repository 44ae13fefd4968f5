"""Several processes that share the work of one run, started by `torchrun`."""

import os
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from utils.errors import ConfigError, UserError, process_count
from utils.reporting import reporter

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others: longer than one of them ever works alone (reading data, joining files)."""

QUIET_SECONDS = 3.0
"""How long a process waits to be ended when another one reports the error: exiting first could end that one before it
has printed."""

AGAIN_SECONDS = 0.02
"""How long a signal that comes at the wrong moment is put off."""

_NEEDED = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What `torchrun` sets for a process, besides WORLD_SIZE."""


class _SharedCounters(Protocol):
    """What is needed of the store that all processes of a run share."""

    def add(self, key: str, amount: int, /) -> int:
        """Add to a counter and give its new value."""
        ...


class _Stopped(UserError):
    exit_code = 128 + signal.SIGTERM


class Processes(NamedTuple):
    """This process among those of the run."""

    rank: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    def say(self, text: str) -> None:
        """Print a line, once."""
        if self.main:
            reporter.info(text)

    def sum(self, values: Tensor) -> Tensor:
        """The sum of everyone's `values`, the same bits everywhere; `values` stay as they are."""
        if self.count == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total

    def share(self, work: Callable[[], T]) -> T:
        """Do `work` on the main process only and give its result, any picklable value on the CPU, to everyone."""
        if self.count == 1:
            return work()
        box: list[Any] = [work() if self.main else None]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: T) -> list[T]:
        """Everyone's `value` by rank, on the main process; an empty list elsewhere."""
        if self.count == 1:
            return [value]
        box: list[Any] | None = [None] * self.count if self.main else None
        dist.gather_object(value, box, dst=0)
        return box or []

    def wait(self) -> None:
        """Go on when everyone is here."""
        self.sum(torch.zeros(1))


ALONE = Processes()


def local_rank() -> int:
    """Number of this process on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def joined_processes() -> Iterator[Processes]:
    """Join the processes that `torchrun` started; alone without it.

    Within, only the main process prints. When one process fails all end, and only the first to fail reports its error.
    A process that died without an error shows as a lost connection. SIGTERM, with which `torchrun` ends the others,
    unwinds the stack, so that temporary files are removed.

    Raises:
        UserError: when the others cannot be reached, or are lost later on.
        SystemExit: where another process has reported the error.
    """
    count = process_count()
    if count == 1:
        yield ALONE
        return
    if missing := [name for name in _NEEDED if name not in os.environ]:
        raise ConfigError(f"WORLD_SIZE is {count} but {missing[0]} is not set; start several processes with torchrun")
    processes = Processes(int(os.environ["RANK"]), count)
    with _quiet(processes.main), _unwound_by_sigterm():
        store = _join(processes)
        try:
            yield processes
        except (Exception, KeyboardInterrupt) as error:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends anyway, and may have to say why
            raise _reported_once(error, processes, _is_first(store)) from error
        dist.destroy_process_group()  # only after success: with a process gone, this would wait for it


def _join(processes: Processes) -> _SharedCounters:
    """Connect; values on the CPU travel by gloo, those on GPUs by NCCL."""
    # Defaults of its functions hold the group of the moment it is imported, and the optimizer imports it. Held, the
    # group's threads outlive `destroy_process_group`, and one that needs Python while it shuts down aborts the process.
    import torch.distributed.nn

    on_gpus = torch.cuda.is_available() and dist.is_nccl_available()
    try:
        store, rank, count = next(iter(rendezvous("env://", timeout=TIMEOUT)))
        backend = "cpu:gloo,cuda:nccl" if on_gpus else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        name = f"process {processes.rank} of {processes.count}"
        raise UserError(f"{name} cannot reach the others ({_reason(error)})") from error
    return store


def _is_first(store: _SharedCounters) -> bool:
    """Whether no other process of the run has failed before this one."""
    try:
        return store.add("failures", 1) == 1
    except RuntimeError:  # the process that kept the store is gone
        return True


def _reported_once(error: BaseException, processes: Processes, first: bool) -> BaseException:
    """What to raise for an error: a message, or a silent exit where another process has reported it."""
    lost = isinstance(error, RuntimeError) and _is_lost_connection(error)
    if not lost and not isinstance(error, (UserError, OSError, KeyboardInterrupt)):
        return error  # a defect of this project keeps its traceback
    if not first:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(0.0 if isinstance(error, _Stopped) else QUIET_SECONDS)
        return SystemExit(getattr(error, "exit_code", UserError.exit_code))
    if lost:
        return UserError(
            f"process {processes.rank} of {processes.count}: another process of this run is gone or does not answer "
            f"({_reason(error)}); look for its message, then start again (pretraining: with --resume)"
        )
    return error


def _is_lost_connection(error: RuntimeError) -> bool:
    """Gloo raises plain RuntimeErrors that name its source files."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def _reason(error: BaseException) -> str:
    """The first sentence of an error, without the place in the source that gloo begins with."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[[^]]*\.cc:\d+\] *", "", line).partition(". ")[0][:160]


class _OffTerminal:
    """A stream for errors on which nobody draws a progress bar."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def isatty(self) -> bool:
        return False

    def write(self, text: str, /) -> Any:
        return self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _quiet(main: bool) -> Iterator[None]:
    """Leave printing, bars and warnings to the main process."""
    if main:
        yield
        return
    with (
        Path(os.devnull).open("w") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(_OffTerminal(sys.stderr)),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _unwound_by_sigterm() -> Iterator[None]:
    def unwind(number: int, frame: FrameType | None) -> None:
        if _in_destructor(frame):  # which would print the exception and go on without it
            again = threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), number))
            again.daemon = True
            again.start()
            return
        raise _Stopped("stopped by SIGTERM: somebody asked for it, or another process of this run has failed")

    earlier = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


def _in_destructor(frame: FrameType | None) -> bool:
    """Whether Python is just deleting an object, a progress bar for example."""
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False
