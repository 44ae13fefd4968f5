"""What every row is measured under, and the patches it is measured on."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.machine import Limits
from datasets.bigearthnet import BigEarthNetDatasetLS
from datasets.patches import Batch
from models.config import ModelConfig

SAMPLE = Path(__file__).resolve().parent.parent / "sample_dataset" / "bigearthnet-l"
SAMPLE_SPLIT = "samples.csv"
"""All 304 patches."""

QUICK_DEPTH = 2


class Setting(NamedTuple):
    """One run of the benchmark."""

    device: torch.device
    limits: Limits
    rounds: int
    """Turns of everything that takes seconds; what takes minutes has fewer."""
    quick: bool
    """Smaller sizes, to see that everything runs; the goals then mean nothing."""
    seed: int = 0
    published: Path | None = None
    """Folder of the published code, which is then the reference on a CPU in place of the stand-in."""

    @property
    def config(self) -> ModelConfig:
        """Size S, as the reference computes it; a quick run takes two blocks of it, since compiling takes minutes."""
        depth = QUICK_DEPTH if self.quick else None
        return ModelConfig.of_size("S", depth=depth, published_behaviour=True)

    @property
    def kind(self) -> str:
        """ "cpu" or "cuda"."""
        return self.device.type


class SampleBatch(NamedTuple):
    """Patches of BigEarthNet-Landsat, all of which have metadata; fields as in `Batch`."""

    images: Tensor
    meta: Tensor
    valid: Tensor

    def to(self, device: torch.device) -> "SampleBatch":
        """The same on `device`."""
        return SampleBatch(*(tensor.to(device, non_blocking=True) for tensor in self))

    def training(self) -> Batch:
        """As a training step takes it."""
        return Batch(self.images, self.meta, self.valid, None, [f"patch {index}" for index in range(len(self.images))])


def sample_batch(count: int, start: int = 0) -> SampleBatch:
    """`count` patches of the sample on the CPU, over and over from `start`."""
    dataset = BigEarthNetDatasetLS(SAMPLE, SAMPLE_SPLIT, published_behaviour=True)
    distinct = min(count, len(dataset))
    batch = dataset.batch([(start + index) % len(dataset) for index in range(distinct)])
    assert batch.meta is not None  # BigEarthNet-Landsat has time and place
    rows = torch.arange(count) % distinct
    return SampleBatch(*(tensor[rows].contiguous() for tensor in (batch.images, batch.meta, batch.valid)))
