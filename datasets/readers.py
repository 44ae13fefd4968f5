"""Ways from a list of indices to digital numbers on a device: this process, reader processes, or all held there."""

import queue
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from datasets.patches import PatchDataset, RawBatch
from utils.errors import KILLED_READER, ConfigError, UserError, is_killed_reader

RESIDENT_SHARE = 0.6
"""Part of a device's free memory that `resident: auto` may take."""

PREFETCHED = 3
"""Batches that are read ahead of an accelerator."""


class RawPatches(NamedTuple):
    """Digital numbers (DN) of B patches on a device."""

    pixels: Tensor
    """(B, C, S, S) uint16 on a CPU, int16 with the same bits elsewhere."""
    meta: Tensor | None
    """(B, F, 2) float32"""
    empty: np.ndarray
    """(B,) bool, on the host: patches without a single valid pixel."""
    without_number: np.ndarray
    """(B,) int64, on the host: see `RawBatch`."""


class Reader(Protocol):
    """Yields the patches of each list of indices."""

    def read(self, slices: Sequence[Sequence[int]]) -> Iterator[RawPatches]: ...


def reader(dataset: PatchDataset, num_workers: int, device: torch.device, resident: bool | str) -> Reader:
    """The reader for a dataset and a device.

    Args:
        dataset: the patches.
        num_workers: reader processes; 0, or a dataset with random access, reads in this process.
        device: where the tensors go.
        resident: see `datasets.loader.BatchLoader`.
    """
    if resident is True and not dataset.one_shape:
        raise ConfigError("data.resident: two sensors are not held on the device; use auto or false")
    if resident is True or (resident == "auto" and _fits(dataset, device)):
        return ResidentReader(dataset, device)
    if num_workers and not dataset.random_access:
        return WorkerReader(dataset, num_workers, device)
    return DirectReader(dataset, device)


class DirectReader:
    """Reads in this process; for an accelerator in a thread of it, a few batches ahead, through pinned memory."""

    def __init__(self, dataset: PatchDataset, device: torch.device) -> None:
        self.dataset, self.device = dataset, device

    def read(self, slices: Sequence[Sequence[int]]) -> Iterator[RawPatches]:
        read = (_on_host(self.dataset, self.dataset.gather(indices)) for indices in slices)
        if self.device.type == "cpu":
            return read
        pinned = (_pinned(raw, self.device) for raw in read)
        return (_moved(raw, self.device) for raw in ahead(pinned, PREFETCHED))


class WorkerReader:
    """Reads in processes of their own."""

    def __init__(self, dataset: PatchDataset, num_workers: int, device: torch.device) -> None:
        self.dataset, self.num_workers, self.device = dataset, num_workers, device

    def read(self, slices: Sequence[Sequence[int]]) -> Iterator[RawPatches]:
        loader = DataLoader(
            _Batches(self.dataset),
            batch_size=None,
            sampler=_Slices(slices),
            num_workers=self.num_workers,
            worker_init_fn=_ignore_signals,
        )
        try:
            for found in loader:
                if isinstance(found, UserError):
                    raise found
                pixels, meta, empty, without_number = found
                raw = RawPatches(pixels, meta, empty.numpy(), without_number.numpy())
                yield _moved(_pinned(raw, self.device), self.device)
        except RuntimeError as error:
            if not is_killed_reader(error):
                raise
            raise UserError(f"{self.dataset.root}: {KILLED_READER} num_workers") from error


class ResidentReader:
    """Holds the digital numbers of all patches on the device: a batch is a gather there.

    Reads the whole dataset once, with a bar on a terminal.
    """

    def __init__(self, dataset: PatchDataset, device: torch.device, chunk: int = 1024) -> None:
        self.device = device
        shape = (len(dataset), *dataset.gather([0]).pixels.shape[1:])
        self._pixels = torch.empty(shape, dtype=torch.int16, device=device)
        self._empty, self._without_number = np.zeros(len(dataset), dtype=bool), np.zeros(len(dataset), np.int64)
        metas = []
        starts = range(0, len(dataset), chunk)
        for start in tqdm(starts, desc=f"loading onto {device}", leave=False, disable=None):
            rows = range(start, min(start + chunk, len(dataset)))
            raw = _on_host(dataset, dataset.gather(rows))
            self._pixels[start : start + len(rows)] = raw.pixels.view(torch.int16).to(device)
            self._empty[start : start + len(rows)] = raw.empty
            self._without_number[start : start + len(rows)] = raw.without_number
            metas.append(raw.meta)
        self._meta = None if metas[0] is None else torch.cat(metas).to(device)

    def read(self, slices: Sequence[Sequence[int]]) -> Iterator[RawPatches]:
        for indices in slices:
            host = torch.as_tensor(indices)
            at = _pin(host, self.device).to(self.device, non_blocking=True)
            meta = None if self._meta is None else self._meta.index_select(0, at)
            rows = host.numpy()
            yield RawPatches(self._pixels.index_select(0, at), meta, self._empty[rows], self._without_number[rows])


def empty_patches(pixels: np.ndarray) -> np.ndarray:
    """Which of (B, C, H, W) digital numbers have no valid pixel (nodata only), (B,) bool.

    Few have a fill pixel in the middle: only those are looked at whole.
    """
    empty = np.logical_not(pixels[:, :, pixels.shape[2] // 2, pixels.shape[3] // 2].all(axis=1))
    for row in np.flatnonzero(empty):
        empty[row] = not pixels[row].all(axis=0).any()
    return empty


def ahead(items: Iterator[RawPatches], count: int) -> Iterator[RawPatches]:
    """The same items, made in a thread, up to `count` ahead; its errors arrive here, and leaving ends it."""
    made: queue.Queue = queue.Queue(maxsize=count)
    stop = threading.Event()

    def put(entry: tuple[str, object]) -> None:
        while not stop.is_set():
            try:
                return made.put(entry, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put(("item", item))
                if stop.is_set():
                    return
            put(("end", None))
        except BaseException as error:  # whatever it is, it is the caller's
            put(("error", error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            kind, value = made.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        stop.set()
        thread.join()


def _fits(dataset: PatchDataset, device: torch.device) -> bool:
    """Whether `resident: auto` takes a dataset: one with random access that fits beside the training on a GPU."""
    if device.type != "cuda" or not dataset.random_access or not dataset.one_shape:
        return False
    needed = len(dataset) * dataset.gather([0]).pixels.nbytes
    return needed <= RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]


def _on_host(dataset: PatchDataset, raw: RawBatch) -> RawPatches:
    published = dataset.published_behaviour  # fill is data there
    empty = np.zeros(len(raw.pixels), dtype=bool) if published else empty_patches(raw.pixels)
    lost = np.zeros(len(empty), np.int64) if raw.without_number is None else raw.without_number
    return RawPatches(torch.from_numpy(raw.pixels), dataset.encode(raw.columns), empty, lost)


def _pin(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.pin_memory() if device.type == "cuda" else tensor


def _pinned(raw: RawPatches, device: torch.device) -> RawPatches:
    if device.type == "cpu":
        return raw
    meta = None if raw.meta is None else _pin(raw.meta, device)
    return raw._replace(pixels=_pin(raw.pixels.view(torch.int16), device), meta=meta)


def _moved(raw: RawPatches, device: torch.device) -> RawPatches:
    meta = None if raw.meta is None else raw.meta.to(device, non_blocking=True)
    return raw._replace(pixels=raw.pixels.to(device, non_blocking=True), meta=meta)


def _ignore_signals(worker: int) -> None:
    """A signal to the whole process group is the main process's to answer; readers end with it."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


class _Slices(Sampler):
    def __init__(self, slices: Sequence[Sequence[int]]) -> None:
        self.slices = slices

    def __iter__(self) -> Iterator[Sequence[int]]:
        return iter(self.slices)

    def __len__(self) -> int:
        return len(self.slices)


class _Batches(Dataset):
    """Reads whole batches; an error that a user can fix travels back as a value, so that it stays one line."""

    def __init__(self, dataset: PatchDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None, Tensor, Tensor] | UserError:
        try:
            raw = _on_host(self.dataset, self.dataset.gather(indices))
        except UserError as error:
            return error
        return raw.pixels, raw.meta, torch.from_numpy(raw.empty), torch.from_numpy(raw.without_number)
