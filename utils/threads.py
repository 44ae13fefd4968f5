"""How many threads PyTorch's linear algebra uses, and in what precision it multiplies."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import torch

from utils.cores import usable_cores
from utils.reporting import reporter

ASKED_FOR = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables by which a user, or `torchrun`, sets the number of threads."""


@cache
def keep_within_quota() -> None:
    """Use no more threads than the cores that a container's quota is worth, unless the environment sets their number.

    PyTorch counts the machine's cores. With more threads than quota all of them are halted for a part of the time,
    in the middle of each product that they share.
    """
    if any(os.environ.get(name) for name in ASKED_FOR):
        return
    usable, present = usable_cores(), torch.get_num_threads()
    if usable < present:
        torch.set_num_threads(usable)
        reporter.info(f"threads      {usable}, the cores that may be used; OMP_NUM_THREADS sets another number")


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Give PyTorch's products `count` threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def single_threads(count: int, name: str = "") -> ThreadPoolExecutor:
    """So many threads, each of which computes PyTorch's operations alone; all other threads keep their numbers."""
    return ThreadPoolExecutor(count, name, initializer=_compute_alone, initargs=(torch.get_num_threads(),))


def _compute_alone(others: int) -> None:
    torch.get_num_threads()  # at its first operation a thread takes over the process's number: before, not after
    torch.set_num_threads(1)
    # That is the process's number now, too, which threads that are yet to come would take over.
    other = threading.Thread(target=torch.set_num_threads, args=(others,))
    other.start()
    other.join()


@contextmanager
def full_precision() -> Iterator[None]:
    """Multiply float32 numbers as such inside, whatever the process allows elsewhere (TF32, bfloat16)."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
