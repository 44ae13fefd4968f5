"""Two datasets as one, for pretraining: all patches of the first, and of the second as many as make up a share.

Of two sensors, whose patches have other bands, every batch is of one (`SensorMixture`, `epoch_order`).
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.loader import shuffled
from datasets.patches import MEMORY_LIMIT, PatchDataset, RawBatch
from transformation.transformer import Normalized
from utils.errors import ConfigError
from utils.metadata import unknown_columns
from utils.randomness import generator


class MixedDataset(PatchDataset):
    """Every patch of `first`, then those of `second` over and over until they are `share` of all.

    An epoch thus has every patch of the first once. What the second has no metadata for is unknown.

    Args:
        first: gives the name, the crop and the z-scores' statistics.
        second: patches of the same bands.
        share: of `second` among all patches, above 0 and below 1.

    Raises:
        ConfigError: when the two are normalised with different statistics.
    """

    def __init__(self, first: PatchDataset, second: PatchDataset, share: float) -> None:
        if first.statistics_name != second.statistics_name:
            raise ConfigError(
                f"training.mixture: {second.root} is normalised with {second.statistics_name}, the training split with "
                f"{first.statistics_name}; leave out data.statistics"
            )
        self._join(first, second, share, max(1, round(len(first) * share / (1.0 - share))))

    def _join(self, first: PatchDataset, second: PatchDataset, share: float, wanted: int) -> None:
        """Take `wanted` patches of the second."""
        self.first, self.second, self.share = first, second, share
        self.name, self.classes, self.multilabel, self.sensor = first.name, (), False, first.sensor
        self._of_second = [at % len(second) for at in range(wanted)]
        ids = [*first.ids, *(second.ids[at] for at in self._of_second)]
        PatchDataset.__init__(
            self,
            first.root,
            ids,
            first.image_size,
            first.crop,
            first.statistics,
            first.published_behaviour,
            first.meta_fields,
        )
        self.simulated = first.simulated and second.simulated

    @property
    def kind(self) -> str:
        """Patches that no satellite took are never called real ones."""
        if self.first.simulated == self.second.simulated:
            return self.first.kind
        return f"patches ({len(self.first):,} {self.first.kind} and {len(self._of_second):,} {self.second.kind})"

    def _part(self, index: int) -> tuple[PatchDataset, int]:
        """The dataset that a patch is from, and its index there."""
        after = index - len(self.first)
        return (self.first, index) if after < 0 else (self.second, self._of_second[after])

    def path_of(self, index: int) -> Path:
        dataset, at = self._part(index)
        return dataset.path_of(at)

    def bands_of(self, indices: Sequence[int]) -> Tensor | None:
        """See `PatchDataset.bands_of`; where one of the two lacks bands, of every batch alike."""
        if all(dataset.bands_of([0]) is None for dataset in (self.first, self.second)):
            return None
        found = [dataset.bands_of([at]) for dataset, at in map(self._part, indices)]
        every = torch.ones(1, len(self.sensor.bands), dtype=torch.bool)
        return torch.cat([every if bands is None else bands for bands in found])

    def read(self, indices: Sequence[int]) -> RawBatch:
        """Pixels and metadata of some patches; see `PatchDataset.read`."""
        parts = [self._part(index) for index in indices]
        size = self.image_size
        pixels = np.empty((len(parts), len(self.sensor.bands), size, size), np.uint16)
        columns, without_number = unknown_columns(len(parts)), np.zeros(len(parts), np.int64)
        for dataset in (self.first, self.second):
            rows = [row for row, part in enumerate(parts) if part[0] is dataset]
            if not rows:
                continue
            raw = dataset.gather([parts[row][1] for row in rows])
            pixels[rows] = raw.pixels
            if raw.columns is not None:
                columns[rows] = raw.columns
            if raw.without_number is not None:
                without_number[rows] = raw.without_number
        return RawBatch(pixels, columns, without_number)

    def hold_in_memory(self, most_bytes: int = MEMORY_LIMIT, threads: int = 2) -> bool:
        """Each of the two by itself: a patch that comes again is held once."""
        held = [part.hold_in_memory(most_bytes, threads) for part in (self.first, self.second)]
        return all(held)

    @property
    def random_access(self) -> bool:
        return self.first.random_access and self.second.random_access

    def fingerprint(self) -> str:
        """Hex SHA-256 of both fingerprints and the share."""
        parts = [self.first.fingerprint(), self.second.fingerprint(), self.share]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class SensorMixture(MixedDataset):
    """The same of two sensors, for batches of one sensor each: `order` gives them, `read` takes no others.

    The second gives whole batches, as many as come nearest to its share.

    Args:
        first, second, share: as `MixedDataset` takes them; each has its own bands and statistics.
        batch_size: patches a batch.
    """

    one_shape = False

    def __init__(self, first: PatchDataset, second: PatchDataset, share: float, batch_size: int) -> None:
        batches = max(1, round(len(first) * share / (1.0 - share) / batch_size))
        self._join(first, second, share, batches * batch_size)
        self.batch_size = batch_size
        self.normalize = self._normalized  # pyright: ignore[reportAttributeAccessIssue] - called the same way

    def _normalized(self, pixels: Tensor) -> Normalized:
        dataset = self.first if pixels.shape[1] == len(self.first.sensor.bands) else self.second
        return dataset.normalize(pixels)

    def bands_of(self, indices: Sequence[int]) -> Tensor | None:
        """See `PatchDataset.bands_of`; of patches of one sensor."""
        parts = [self._part(index) for index in indices]
        return parts[0][0].bands_of([at for _, at in parts])

    def read(self, indices: Sequence[int]) -> RawBatch:
        """Pixels and metadata of patches of one sensor; see `PatchDataset.read`."""
        parts = [self._part(index) for index in indices]
        dataset = parts[0][0]
        assert all(part[0] is dataset for part in parts), "a batch is of one sensor"
        raw = dataset.gather([part[1] for part in parts])
        return raw if raw.columns is not None else raw._replace(columns=unknown_columns(len(parts)))

    def order(self, seed: int, epoch: int) -> list[int]:
        """Indices of an epoch: batches of either sensor in random order, then what is left over of the first."""
        size, count = self.batch_size, len(self.first)
        first = shuffled(count, seed, epoch)
        second = _permuted(len(self) - count, seed, "order of second sensor", epoch)
        whole = first[: count // size * size] + [count + at for at in second]
        drawn = _permuted(len(whole) // size, seed, "order of sensors", epoch)
        return [index for at in drawn for index in whole[at * size : (at + 1) * size]] + first[count // size * size :]


def _permuted(count: int, seed: int, role: str, epoch: int) -> list[int]:
    return torch.randperm(count, generator=generator(seed, role, epoch)).tolist()


def epoch_order(dataset: PatchDataset, seed: int, epoch: int) -> list[int]:
    """The order of an epoch of training, a pure function of (seed, epoch)."""
    return dataset.order(seed, epoch) if isinstance(dataset, SensorMixture) else shuffled(len(dataset), seed, epoch)


def of_first_sensor(dataset: PatchDataset) -> PatchDataset:
    """The patches of the first sensor."""
    return dataset.first if isinstance(dataset, SensorMixture) else dataset
