"""The features of a probe, visited in chunks of centred rows: on the CPU or a GPU, and never copied whole if large."""

import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from utils.threads import single_threads, torch_threads

CPU_CHUNK_BYTES = 8 * 2**20
"""Features visited at a time on the CPU: few enough to stay in its cache between the two products of a visit."""

CUDA_CHUNK_BYTES = 256 * 2**20
"""The same on a GPU, where a chunk must keep thousands of cores busy."""


T = TypeVar("T")


class FeatureRows:
    """Features (N, D) and their statistics.

    A large matrix stays where it is: a memory map is read in chunks, each converted and centred in a buffer that is
    used again, whatever its alignment and byte order. On a GPU with room for it, the matrix moves there once.

    Attributes:
        count: N.
        width: D.
        mean: (D,) float64, on the device.
        std: (D,) float64, population standard deviation; exactly 1 for a feature that never changes.
        stored: precision of the features as they come, float32 or float64.
        device: where chunks are.
        threads: chunks that `visit` works on at a time.
    """

    def __init__(self, x: np.ndarray, device: torch.device, resident: bool = False, threads: int = 1):
        """Visit the features once for their statistics.

        Args:
            x: (N, D), real numbers of any type, order and alignment.
            device: CPU or CUDA.
            resident: copy the features to the device, in their own precision.
            threads: chunks that `visit` works on at a time; a GPU takes one after the other.
        """
        self.threads = threads if device.type == "cpu" else 1
        # One pool for all visits: threads that come and go leave the buffers of their linear algebra behind.
        self._pool = single_threads(self.threads)
        self._own = threading.local()
        self.count, self.width = x.shape
        self.device = device
        self._x = x
        single = np.can_cast(x.dtype, np.float32, "safe")
        self.stored = torch.float32 if single else torch.float64
        self._resident: Tensor | None = None
        if resident:
            matrix = torch.empty(x.shape, dtype=self.stored, device=device)
            buffers: dict[str, Tensor] = {}
            for rows in self._slices(self.chunk_bytes):
                matrix[rows] = self._load(rows, buffers)
            self._resident = matrix
        self.mean, self.std = self._statistics()

    @property
    def chunk_bytes(self) -> int:
        """Bytes of features visited at a time."""
        return CPU_CHUNK_BYTES if self.device.type == "cpu" else CUDA_CHUNK_BYTES

    def chunks(
        self, dtype: torch.dtype, chunk_bytes: int | None = None, every: int = 1
    ) -> Iterator[tuple[slice, Tensor]]:
        """Rows and their centred features (n, D) in `dtype`; a chunk is valid until the next is asked for.

        Args:
            dtype: of the chunks.
            chunk_bytes: of features, as stored, in a chunk.
            every: one row of so many, evenly spaced.
        """
        buffers: dict[str, Tensor] = {}
        for rows in self._slices(chunk_bytes or self.chunk_bytes, every):
            yield rows, self._centred(rows, dtype, buffers)

    def visit(self, function: Callable[[slice, Tensor], T], dtype: torch.dtype) -> Iterator[T]:
        """What `function` gives for the rows and centred features of every chunk, in their order.

        Several threads take a chunk each and use one thread of linear algebra. They meet only at the end, unlike those
        of a single product, which wait for each other in every one; and the results do not depend on their number.
        """
        if self.threads == 1:
            for rows, chunk in self.chunks(dtype):
                yield function(rows, chunk)
            return

        def work(rows: slice) -> T:
            return function(rows, self._centred(rows, dtype, vars(self._own)))

        with torch_threads(1):
            yield from self._pool.map(work, self._slices(self.chunk_bytes))

    def _slices(self, chunk_bytes: int, every: int = 1) -> list[slice]:
        step = every * max(1, chunk_bytes // (self.width * self.stored.itemsize))
        return [slice(start, min(start + step, self.count), every) for start in range(0, self.count, step)]

    def _load(self, rows: slice, buffers: dict[str, Tensor]) -> Tensor:
        """Features (n, D) as stored, on the device: of the matrix there, or in a buffer that is used again."""
        if self._resident is not None:
            return self._resident[rows]
        raw = self._buffer(buffers, rows, self.stored, torch.device("cpu"))
        np.copyto(raw.numpy(), self._x[rows], casting="unsafe")
        return raw.to(self.device)

    def _centred(self, rows: slice, dtype: torch.dtype, buffers: dict[str, Tensor]) -> Tensor:
        raw, mean = self._load(rows, buffers), self.mean.to(dtype)
        if self._resident is None and raw.dtype == dtype:
            return raw.sub_(mean)
        return torch.sub(raw, mean, out=self._buffer(buffers, rows, dtype, self.device))

    def _buffer(self, buffers: dict[str, Tensor], rows: slice, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Room for the features of `rows`, (n, D), in the thread's own `buffers`."""
        name, length = f"{dtype} {device}", len(range(self.count)[rows])
        if name not in buffers or len(buffers[name]) < length:
            pinned = device.type == "cpu" and self.device.type == "cuda"
            buffers[name] = torch.empty((length, self.width), dtype=dtype, device=device, pin_memory=pinned)
        return buffers[name][:length]

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (D,), of differences from the first row, so that a large mean costs no digits."""
        self.mean = torch.from_numpy(np.array(self._x[0], np.float64)).to(self.device)
        total = torch.zeros(2, self.width, dtype=torch.float64, device=self.device)
        for part in self.visit(_sums, torch.float64):
            total += part
        offset, square = total / self.count
        std = (square - offset.square()).clamp(min=0).sqrt()
        return self.mean + offset, torch.where(std > 0, std, torch.ones_like(std))


def _sums(rows: slice, chunk: Tensor) -> Tensor:
    """Sum and sum of squares of every column, (2, D)."""
    return torch.stack([chunk.sum(dim=0), chunk.square().sum(dim=0)])
