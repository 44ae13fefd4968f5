"""Which of a model's bands a sensor has: pixels of those, in the places where a model takes them."""

from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import Tensor

from transformation.transformer import Normalized, ZScoreNormalize
from utils.sensors import OLI, Sensor


class PresentBands(NamedTuple):
    """Those of a sensor among the seven of OLI, in their order."""

    present: tuple[bool, ...]

    @classmethod
    def of(cls, sensor: Sensor) -> "PresentBands":
        return cls.named(sensor.common)

    @classmethod
    def named(cls, common: Collection[str]) -> "PresentBands":
        """Those of some common names."""
        return cls(tuple(name in common for name in OLI.common))

    def normalized(self, numbers: Tensor, normalize: ZScoreNormalize) -> Normalized:
        """Digital numbers of the given bands, (B, given, H, W) uint16, as (B, C, H, W) z-scores and the valid mask.

        In place of a missing band stands the dataset's mean: no fill, so that given bands alone say what is hidden.
        """
        if all(self.present):
            return normalize(numbers)
        bits = numbers.view(torch.int16)
        means = normalize.mean.flatten().round().to(torch.int32).to(torch.int16).to(numbers.device)
        whole = means[None, :, None, None].repeat(len(bits), 1, *bits.shape[2:])
        whole[:, list(self.places)] = bits
        return normalize(whole)

    @property
    def places(self) -> tuple[int, ...]:
        """Of the given bands among the model's."""
        return tuple(place for place, given in enumerate(self.present) if given)

    @property
    def missing(self) -> tuple[str, ...]:
        """Common names of the others."""
        return tuple(name for name, given in zip(OLI.common, self.present, strict=True) if not given)

    def mask(self, count: int, device: torch.device) -> Tensor | None:
        """(count, C) bool as a model takes it; None where all are given."""
        if all(self.present):
            return None
        return torch.tensor(self.present, device=device).expand(count, -1)
