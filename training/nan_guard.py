"""Asynchronous detection of non-finite losses and gradients: the device keeps note, the host reads it now and then.

Reading a value back after every step would make the host wait for the device, and on a GPU that wait would cost more
than the step.
"""

import math

import torch
from torch import Tensor

from models.losses import Losses
from utils.errors import TrainingDiverged

MEASURED = ("masked loss", "visible loss", "balance loss", "total loss", "gradient norm")


class NanGuard:
    """Whether a step had a non-finite loss or gradient, and what the first such step measured; both kept on the device.

    Attributes:
        broken: () float32, 0 until the first step that was not finite and 1 from then on.
    """

    def __init__(self, device: torch.device) -> None:
        self.broken = torch.zeros((), device=device)
        self._first = torch.zeros(1 + len(MEASURED), device=device)

    def note(self, losses: Losses, grad_norm: Tensor, number: Tensor, scaled: bool) -> None:
        """Check a step, without waiting for the device.

        Args:
            losses: of the step.
            grad_norm: before clipping.
            number: () float32, of the step.
            scaled: the loss is scaled, so that an infinite norm is ordinary: the scaler leaves such a step out.
        """
        measured = torch.stack([losses.masked, losses.visible, losses.balance, losses.total, grad_norm])
        if scaled:
            measured = torch.cat([measured[:-1], torch.zeros_like(measured[-1:])])
        bad = (~measured.isfinite().all()).float()
        first = (bad > 0) & (self.broken == 0)
        self._first.copy_(torch.where(first, torch.cat([number[None], measured]), self._first))
        self.broken.copy_(torch.maximum(self.broken, bad))

    def require_finite(self) -> None:
        """Wait for the device and check.

        Raises:
            TrainingDiverged: naming the first step that was not finite and its loss term or gradient norm.
        """
        if not self.broken.item():
            return
        step, *values = self._first.tolist()
        name, value = next(pair for pair in zip(MEASURED, values, strict=True) if not math.isfinite(pair[1]))
        raise diverged(name, value, int(step))


def diverged(name: str, value: float, step: int) -> TrainingDiverged:
    """The error for a measurement that is not finite."""
    return TrainingDiverged(
        f"{name} is {value} at step {step}; the last good checkpoint is untouched. "
        "Lower training.learning_rate, or look at the data of that step"
    )
