"""Which device a run uses."""

import ctypes
from contextlib import suppress
from functools import cache

import torch

from utils.calibration import bfloat16_is_fast
from utils.errors import ConfigError
from utils.processes import Processes, local_rank
from utils.reporting import reporter
from utils.threads import keep_within_quota


def select_device(name: str) -> torch.device:
    """The device a config asks for: "auto", "cpu", "cuda", "cuda:1", "mps".

    An accelerator that this machine lacks falls back to the CPU, with one line saying so. In a container the threads
    of this process are kept within its quota.

    Raises:
        ConfigError: for a name that is no device.
    """
    _keep_freed_memory()
    keep_within_quota()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"model.device: {name!r} is no device; use auto, cpu, cuda, cuda:N or mps") from error
    present = {
        "cpu": lambda: True,
        "cuda": lambda: torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available,
    }
    if device.type not in present:
        raise ConfigError(f"model.device: {name!r} is not supported; use auto, cpu, cuda, cuda:N or mps")
    if not present[device.type]():
        reporter.info(f"device {name} is not available on this machine; using the CPU")
        return torch.device("cpu")
    return device


@cache
def _keep_freed_memory() -> None:
    """Have the C library keep large blocks that are freed, for the next ones, where it is glibc.

    Otherwise it hands each back to the system, which clears the pages of the next anew: on a CPU that takes a sixth
    of the time of an embedding.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for parameter, value in _MALLOC_SETTINGS.items():
        mallopt(parameter, value)


def give_back_freed_memory() -> None:
    """Return to the system what the C library keeps, where it is glibc: files that are read again can stay there."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


# Numbers of glibc's malloc.h: M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD.
_MALLOC_SETTINGS = {-4: 0, -1: 2**31 - 1, -2: 64 << 20}


def mixed_precision(device: torch.device, amp: bool | str) -> torch.dtype | None:
    """The autocast type; None computes in float32.

    Args:
        device: where the model runs.
        amp: False; True or "auto": on CUDA bfloat16 where the GPU has it, else float16, elsewhere None; "bf16": on
            CUDA and on CPUs that have it, else a line says that it goes on in float32; "fp16": on CUDA.
    """
    if amp is False or device.type not in ("cpu", "cuda"):
        return None
    if amp == "bf16":
        if device.type == "cuda" or bfloat16_is_fast():
            return torch.bfloat16
        reporter.info("bfloat16     slower than float32 on this processor, which has none; going on in float32")
        return None
    if device.type == "cpu":
        return None
    if amp == "fp16":
        return torch.float16
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def process_device(name: str, processes: Processes) -> torch.device:
    """As `select_device`; of several processes each gets a GPU of its own, which becomes its current one.

    Raises:
        ConfigError: for a name that is no device, for one device for several processes, or where GPUs are too few.
    """
    if processes.count > 1:
        if ":" in name or name == "mps":
            raise ConfigError(f"model.device: {name} is one device for {processes.count} processes; use auto or cpu")
        if name in ("auto", "cuda") and torch.cuda.is_available():
            if local_rank() >= (present := torch.cuda.device_count()):
                raise ConfigError(
                    f"more processes than GPUs on this machine: start {present} (--nproc_per_node), or use "
                    "model.device: cpu"
                )
            name = f"cuda:{local_rank()}"
    device = select_device(name)
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)
    return device
