"""From a dataset to batches: which order, how many readers, and what is left out and counted."""

import signal
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from datasets.bigearthnet import BigEarthNetDatasetLS
from datasets.eurosat import EuroSATDatasetLS
from datasets.patches import Batch, PatchDataset
from utils.data_config import DATASETS, EuroSATInfo
from utils.errors import UserError
from utils.randomness import generator


def build_dataset(
    name: str,
    dataset_path: str,
    split_file: str,
    *,
    labels: str = "none",
    image_size: int,
    crop: str | None = None,
    statistics: str = "auto",
    published_behaviour: bool = False,
) -> PatchDataset:
    """The dataset that a config names.

    Args:
        name: a key of `DATASETS`.
        dataset_path, split_file: as the dataset classes take them.
        labels: "none", "error" or "skip" (BigEarthNet-Landsat; EuroSAT-Landsat's labels are in the file names).
        image_size: side of the model's input, pixels.
        crop: "center", "resize", or None for the dataset's own.
        statistics: a key of `DATASETS`, or "auto" for the dataset's own.
        published_behaviour: see the dataset classes.
    """
    options: dict[str, Any] = {"image_size": image_size, "published_behaviour": published_behaviour}
    if crop is not None:
        options["crop"] = crop
    if statistics != "auto":
        options["statistics"] = DATASETS[statistics].STATISTICS
    if name == EuroSATInfo.NAME:
        return EuroSATDatasetLS(dataset_path, split_file, **options)
    return BigEarthNetDatasetLS(dataset_path, split_file, labels=labels, **options)


def shuffled(size: int, seed: int, epoch: int) -> list[int]:
    """The order of an epoch, a pure function of (seed, epoch)."""
    return torch.randperm(size, generator=generator(seed, "order", epoch)).tolist()


class BatchLoader:
    """Batches of a dataset in a given order.

    Patches without a single valid pixel are left out and counted in `skipped_fill`. The last batch may be smaller.

    Args:
        dataset: the patches.
        batch_size: patches a batch.
        num_workers: reader processes; 0 reads in this one (as do datasets held in memory).
        device: where the tensors go.
    """

    def __init__(self, dataset: PatchDataset, batch_size: int, num_workers: int, device: torch.device) -> None:
        self.dataset, self.batch_size, self.device = dataset, batch_size, device
        self.num_workers = 0 if dataset.in_memory else num_workers
        self.skipped_fill = 0

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.dataset) // self.batch_size)

    def batches(self, order: Sequence[int] | None = None, start: int = 0) -> Iterator[Batch]:
        """The batches of one pass.

        Args:
            order: dataset indices; None is the dataset's own order.
            start: how many batches to leave out at the beginning, to go on in the middle of a pass.

        Raises:
            UserError: what the dataset raises for a bad file, also when a worker process met it.
        """
        order = range(len(self.dataset)) if order is None else order
        slices = [
            order[at : at + self.batch_size] for at in range(start * self.batch_size, len(order), self.batch_size)
        ]
        loader = DataLoader(
            _Batches(self.dataset),
            batch_size=None,
            sampler=_Slices(slices),
            num_workers=self.num_workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=_ignore_signals,
        )
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            yield self._without_empty(batch).to(self.device)

    def _without_empty(self, batch: Batch) -> Batch:
        filled = batch.valid.flatten(1).any(dim=1)
        if filled.all():
            return batch
        self.skipped_fill += int((~filled).sum())
        return batch.select(filled)


def _ignore_signals(worker: int) -> None:
    """A signal to the whole process group is the main process's to answer; readers end with it."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


class _Slices(Sampler):
    def __init__(self, slices: list[Sequence[int]]) -> None:
        self.slices = slices

    def __iter__(self) -> Iterator[Sequence[int]]:
        return iter(self.slices)

    def __len__(self) -> int:
        return len(self.slices)


class _Batches(Dataset):
    """Reads whole batches; an error that a user can mend travels back as a value, so that it stays one line."""

    def __init__(self, dataset: PatchDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, indices: Sequence[int]) -> Batch | UserError:
        try:
            return self.dataset.batch(indices)
        except UserError as error:
            return error
