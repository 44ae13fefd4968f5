"""A function of patches on several threads, a few patches at a time and each by kernels of one thread.

Operations on so few numbers gain little from a second thread inside each of them; a second batch does not wait for the
first.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Generic, TypeVar

import torch
from torch import Tensor

from utils.threads import single_threads

PATCHES_AT_ONCE = 16
"""Patches that go through all blocks together: fewer spend their time on starting operations, more leave the cache."""

Encode = Callable[[Tensor, Tensor, Tensor | None, Tensor | None], Tensor]
"""Normalised patches (B, C, H, W), metadata (B, F, 2), visible patches (B, N) and given bands (B, C), each bool or None
for all, to tokens (B, P + N, D) or the first of them."""


class MicroBatches:
    """An encoder on as many threads as PyTorch has, a few patches at a time.

    The parts of a batch do not depend on the number of threads, so neither does what comes out of a batch of several.
    One of a single part is computed where it is asked for, by kernels of all threads.

    Args:
        encode: called by several threads at once.
        at_once: patches at a time.
    """

    def __init__(self, encode: Encode, at_once: int = PATCHES_AT_ONCE) -> None:
        self.encode, self.at_once = encode, at_once

    def __call__(self, images: Tensor, meta: Tensor, visible: Tensor | None, bands: Tensor | None) -> Tensor:
        """Tokens of a batch of any size; arguments as of `encode`."""

        def tokens(part: slice) -> Tensor:
            given = (None if values is None else values[part] for values in (visible, bands))
            return self.encode(images[part], meta[part], *given)

        return torch.cat(Parts(tokens, len(images), self.at_once, torch.get_num_threads()).results())


T = TypeVar("T")


class Parts(Generic[T]):
    """Work on parts of some rows: begun by several threads at once, or left to whoever asks for the results.

    Args:
        work: called by several threads at once, for which PyTorch has one thread each: what it divides in turn by that
            number, it does part after part.
        count: rows; of none there is one empty part.
        at_once: rows of a part.
        threads: with one, or for a single part, nothing is begun before the results are asked for.
    """

    def __init__(self, work: Callable[[slice], T], count: int, at_once: int, threads: int) -> None:
        self._work = work
        self._parts = [slice(start, start + at_once) for start in range(0, max(count, 1), at_once)]
        self._begun: list[Future[T]] = []
        if threads > 1 and len(self._parts) > 1 and _threads_are_told_apart():
            pool = _pool(threads, os.getpid())
            self._begun = [pool.submit(work, part) for part in self._parts]

    def results(self) -> list[T]:
        """Of all parts, in their order; the first failure ends the rest."""
        try:
            return [one.result() for one in self._begun] or [self._work(part) for part in self._parts]
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Leave out what no thread has begun with."""
        for one in self._begun:
            one.cancel()


@lru_cache(maxsize=2)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads of this process, each with kernels of one thread; those of a parent do not live on in a fork."""
    return single_threads(threads, "embedding")


@lru_cache(maxsize=1)
def _threads_are_told_apart() -> bool:
    """Whether PyTorch's number of threads is one of each thread, as it is with OpenMP."""
    return "parallel backend: OpenMP" in torch.__config__.parallel_info()
