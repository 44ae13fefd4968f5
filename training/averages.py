"""Running sums over an epoch, small enough to be stored in every checkpoint."""

from typing import Any

import torch

from models.config import ModelConfig
from training.step import StepResult


class EpochSums:
    """Sums of one epoch's measurements in float64.

    A step that the loss scaler left out (its gradient norm is not finite) counts in `skipped_steps` and not in the
    mean norm. The sums go through `state` and `restore` unchanged, so that a resumed epoch ends with the same averages.
    """

    _NUMBERS = ("steps", "skipped_steps", "patches", "skipped_fill", "lr")
    TERMS = ("train_loss", "train_m_loss", "train_um_loss", "train_moe_loss", "grad_norm")

    def __init__(self, config: ModelConfig) -> None:
        self.steps = 0
        self.skipped_steps = 0
        self.patches = 0
        self.skipped_fill = 0
        self.lr = 0.0
        self._sums = torch.zeros(len(self.TERMS), dtype=torch.float64)
        self._usage = [torch.zeros(experts, dtype=torch.int64) for experts in config.experts]

    def add(self, result: StepResult, lr: float, patches: int) -> None:
        """Count one step of so many patches."""
        self.steps += 1
        self.patches += patches
        self.lr += lr
        losses = result.losses
        measured = torch.stack([losses.total, losses.masked, losses.visible, losses.balance, result.grad_norm])
        measured = measured.cpu().double()
        if not measured[-1].isfinite():
            self.skipped_steps += 1
            measured[-1] = 0.0
        self._sums += measured
        for counts, routing in zip(self._usage, result.routing, strict=True):
            if routing is not None:
                counts += (routing.gates > 0).sum(dim=0).cpu()

    def averages(self) -> dict[str, Any]:
        """Per step: loss terms, gradient norm and rate; per encoder block: each expert's share of the assignments."""
        steps = max(1, self.steps)
        shares = [(counts / counts.sum()).tolist() if counts.sum() else None for counts in self._usage]
        averages = {term: value / steps for term, value in zip(self.TERMS, self._sums.tolist(), strict=True)}
        averages["grad_norm"] *= steps / max(1, self.steps - self.skipped_steps)
        counts = {"skipped_fill": self.skipped_fill, "skipped_steps": self.skipped_steps}
        return {**averages, "avg_lr": self.lr / steps, **counts, "expert_usage": shares}

    def state(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            **{name: getattr(self, name) for name in self._NUMBERS},
            "sums": self._sums.tolist(),
            "usage": [counts.tolist() for counts in self._usage],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        for name in self._NUMBERS:
            setattr(self, name, state[name])
        self._sums.copy_(torch.tensor(state["sums"], dtype=torch.float64))
        for counts, values in zip(self._usage, state["usage"], strict=True):
            counts.copy_(torch.tensor(values))
