"""A moving average of the weights, which is what is validated and given away."""

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class WeightAverage(Generic[M]):
    """An exponential moving average of a model's weights, kept where they are.

    Its memory grows from the first step on, to (1 + t) / (10 + t) after t of them, so that the first weights are soon
    forgotten; the decay is its limit. Nothing waits for the device.

    Attributes:
        model: with the average as its weights, in evaluation mode.

    Args:
        model: that is trained; the average begins with its weights.
        decay: share of the average that a step leaves, from 0 to 1.
    """

    def __init__(self, model: M, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._trained, self._decay = model, decay

    @torch.no_grad()
    def update(self, number: Tensor) -> None:
        """Take in the weights after the step of this number, () float32, counted from 0."""
        share = 1.0 - ((1.0 + number) / (10.0 + number)).clamp(max=self._decay)
        for average, now in zip(self.model.parameters(), self._trained.parameters(), strict=True):
            average.lerp_(now, share)
