"""From a dataset to batches: which order, who reads, and what is left out and counted."""

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from datasets.labelled_folder import NAME as LABELLED_FOLDER
from datasets.labelled_folder import FolderOptions, LabelledFolderDataset
from datasets.pack.dataset import PackedDataset
from datasets.pack.format import is_pack
from datasets.patches import Batch, Labels, PatchDataset
from datasets.readers import RawPatches, reader
from utils.data_config import DATASETS, OTHER_SENSORS, Crop, DatasetInfo, dataset_info
from utils.data_utils import list_some
from utils.metadata import PUBLISHED_FIELDS
from utils.randomness import generator
from utils.reporting import reporter


def build_dataset(
    name: str,
    dataset_path: str,
    split_file: str,
    *,
    labels: Labels = "none",
    image_size: int,
    crop: Crop | None = None,
    statistics: str = "auto",
    published_behaviour: bool = False,
    meta_fields: Sequence[str] = PUBLISHED_FIELDS,
    folder: FolderOptions = FolderOptions(),  # noqa: B008 - immutable
) -> PatchDataset:
    """The dataset that a config names.

    Args:
        name: a key of `DATASETS` or `OTHER_SENSORS`, or "labelled_folder".
        dataset_path, split_file: as the dataset classes take them; or a pack, and one of its split files or any other.
        labels: "none", "error" or "skip" (BigEarthNet-Landsat; EuroSAT-Landsat's labels are in the file names).
        image_size: side of the model's input, pixels.
        crop: "center", "resize", or None for the dataset's own.
        statistics: a key of `DATASETS`, or "auto" for the dataset's own.
        published_behaviour, meta_fields: see the dataset classes.
        folder: of a labelled folder, see `LabelledFolderDataset`; the others do without.
    """
    options: dict[str, Any] = {
        "image_size": image_size,
        "published_behaviour": published_behaviour,
        "meta_fields": meta_fields,
    }
    if crop is not None:
        options["crop"] = crop
    if name == LABELLED_FOLDER:
        return LabelledFolderDataset(dataset_path, split_file, options=folder, statistics=statistics, **options)
    if statistics != "auto":
        options["statistics"] = DATASETS[statistics].STATISTICS
    if is_pack(dataset_path) and name not in OTHER_SENSORS:
        return PackedDataset(dataset_path, split_file, dataset=name, labels=labels, **options)
    info = dataset_info(name)
    if info.LABEL_FILES:
        options["labels"] = labels
    return _reader_of(info)(dataset_path, split_file, **options)


def _reader_of(info: type[DatasetInfo]) -> Callable[..., PatchDataset]:
    """The class that reads a dataset's files, imported when it is needed."""
    module, _, name = info.READER.partition(":")
    return getattr(import_module(module), name)


def shuffled(size: int, seed: int, epoch: int) -> list[int]:
    """The order of an epoch, a pure function of (seed, epoch)."""
    return torch.randperm(size, generator=generator(seed, "order", epoch)).tolist()


class Part(NamedTuple):
    """Which share of the work is this process's: number `index` of `count`."""

    index: int = 0
    count: int = 1

    def of(self, size: int) -> slice:
        """The share of `size` things: contiguous, all shares equally large but for rounding."""
        return slice(size * self.index // self.count, size * (self.index + 1) // self.count)


class BatchLoader:
    """Batches of a dataset in a given order, normalised on the device.

    Patches without a single valid pixel count nowhere; `skipped_fill` counts them. What files hide without saying so
    (NaN, infinity) is said after a pass, each file once.

    Args:
        dataset: the patches.
        batch_size: patches a batch, of all processes together.
        num_workers: reader processes; 0 reads in this one (as do datasets that cost no more than a copy).
        device: where the tensors go.
        resident: hold all digital numbers on the device: True, False, or "auto" where they fit on a CUDA device.
    """

    def __init__(
        self,
        dataset: PatchDataset,
        batch_size: int,
        num_workers: int,
        device: torch.device,
        resident: bool | str = False,
    ) -> None:
        self.dataset, self.batch_size, self.device = dataset, batch_size, device
        self.reader = reader(dataset, num_workers, device, resident)
        self.skipped_fill = 0
        self._without_number: dict[str, int] = {}
        self._said: set[str] = set()

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.dataset) // self.batch_size)

    def batches(self, order: Sequence[int] | None = None, part: Part = Part()) -> Iterator[Batch]:  # noqa: B008
        """The batches of one pass, for evaluation, without patches that have no valid pixel; the last may be smaller.

        Args:
            order: dataset indices; None is the dataset's own order.
            part: the batches that this process takes.

        Raises:
            UserError: what the dataset raises for a bad file, also when a reader process met it.
        """
        slices = self._slices(order)
        slices = slices[part.of(len(slices))]
        for indices, raw in zip(slices, self.reader.read(slices), strict=True):
            batch = self._batch(indices, raw)
            if raw.empty.any():
                self.skipped_fill += int(raw.empty.sum())
                batch = batch.select(~raw.empty)
            yield batch
        self._say_without_number()

    def training_batches(
        self,
        order: Sequence[int],
        start: int = 0,
        part: Part = Part(),  # noqa: B008 - immutable
        padded: bool = False,
    ) -> Iterator[Batch]:
        """The batches of one pass, for training: patches without valid pixels (nodata) stay, with an empty mask.

        Args:
            order: dataset indices.
            start: how many batches to leave out at the beginning, to go on in the middle of a pass.
            part: the rows of every batch that this process takes.
            padded: fill the last batch up, with rows without a valid pixel and without an id, so that all batches
                have one shape. Needed where there are several parts.
        """
        slices = self._slices(order)[start:]
        rows = part.of(self.batch_size) if padded else slice(None)
        shares = [list(indices[rows]) for indices in slices]
        full = rows.stop - rows.start if padded else 0
        asked = [share + [slices[0][0]] * (full - len(share)) for share in shares]
        for indices, raw in zip(shares, self.reader.read(asked), strict=True):
            batch = self._batch(indices, raw)
            batch.valid[len(indices) :] = False  # the rows that pad it
            self.skipped_fill += int(raw.empty[: len(indices)].sum())
            yield batch
        self._say_without_number()

    def _slices(self, order: Sequence[int] | None) -> list[Sequence[int]]:
        order = range(len(self.dataset)) if order is None else order
        return [order[at : at + self.batch_size] for at in range(0, len(order), self.batch_size)]

    def _batch(self, indices: Sequence[int], raw: RawPatches) -> Batch:
        images, valid = self.dataset.normalize(raw.pixels)
        labels = self.dataset.labels_of(indices)
        ids = [self.dataset.ids[index] for index in indices]
        for at in np.flatnonzero(raw.without_number[: len(ids)]):
            self._without_number[ids[at]] = int(raw.without_number[at])
        bands = self.dataset.bands_of(indices)
        if bands is not None:  # rows that pad the batch have all
            bands = F.pad(bands, (0, 0, 0, len(images) - len(bands)), value=True).to(images.device)
        return Batch(images, raw.meta, valid, labels, ids, bands)

    def _say_without_number(self) -> None:
        new = {name: count for name, count in self._without_number.items() if name not in self._said}
        if new:
            self._said |= new.keys()
            most = sorted(new, key=lambda name: (-new[name], name))
            listed = list_some(f"{name} ({new[name]:,})" for name in most)
            reporter.warning(
                f"note: {self.dataset.root}: NaN or infinite numbers, or such beyond all reflectance, in "
                f"{sum(new.values()):,} pixels of {len(new):,} files are taken for hidden: {listed}"
            )
