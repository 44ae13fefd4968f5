"""Available memory, and one line of error where it is not enough."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from utils.errors import UserError

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def available_memory(device: torch.device) -> int:
    """Bytes that can be taken on a device without swapping; file cache counts as available.

    On Linux the smaller of what the machine has left and what the control group (a container's limit) leaves.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    limits = [value for value in (_meminfo(), _cgroup()) if value is not None]
    if not limits and hasattr(os, "sysconf"):
        limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    return min(limits, default=sys.maxsize)  # on Windows nobody says


def _meminfo() -> int | None:
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _cgroup() -> int | None:
    """What a control group (version 2) leaves, its file cache counted as free."""
    try:
        limit, used = ((_CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        statistics = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    if limit == "max":
        return None
    return int(limit) - int(used) + int(statistics.get("inactive_file", 0)) + int(statistics.get("active_file", 0))


def gibibytes(count: float) -> str:
    """Bytes as text."""
    return f"{count / 2**30:.1f} GiB"


def require_memory(needs: Mapping[str, int], available: int, what: str, fix: str) -> int:
    """The sum of `needs`, names to bytes.

    Raises:
        UserError: when more is needed than available, with the amounts and the fix.
    """
    total = sum(needs.values())
    if total > available:
        parts = ", ".join(f"{name} {gibibytes(size)}" for name, size in needs.items() if size >= 0.05 * total)
        raise UserError(f"{what} needs {gibibytes(total)} ({parts}), {gibibytes(available)} are available: {fix}")
    return total


@contextmanager
def explain_lack_of_memory(fix: str) -> Iterator[None]:
    """Turn a failed allocation inside, on any device, into one line.

    Raises:
        UserError: instead of the allocator's own error.
    """
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        known = isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)
        if not known:
            raise
        raise UserError(f"the memory did not suffice ({str(error).splitlines()[0][:100]}): {fix}") from error
