"""Running sums over an epoch, small enough to be stored in every checkpoint."""

from typing import Any

import torch

from models.config import ModelConfig
from training.step import StepResult


class EpochSums:
    """Sums of one epoch's measurements, kept on the device until somebody asks.

    They go through `state` and `restore` unchanged, so that a resumed epoch ends with the same averages.
    """

    TERMS = ("train_loss", "train_m_loss", "train_um_loss", "train_moe_loss", "grad_norm")

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self.steps = 0
        self.patches = 0
        self.lr = 0.0
        self._sums = torch.zeros(len(self.TERMS), dtype=torch.float64, device=device)
        self._usage = [torch.zeros(experts, dtype=torch.int64, device=device) for experts in config.experts]

    def add(self, result: StepResult, lr: float, patches: int) -> None:
        """Count one step of so many patches."""
        self.steps += 1
        self.patches += patches
        self.lr += lr
        losses = result.losses
        measured = [losses.total, losses.masked, losses.visible, losses.balance, result.grad_norm]
        self._sums += torch.stack(measured).double()
        for counts, routing in zip(self._usage, result.routing, strict=True):
            if routing is not None:
                counts += (routing.gates > 0).sum(dim=0)

    def averages(self) -> dict[str, Any]:
        """Per step: loss terms, gradient norm and rate; per encoder block: each expert's share of the assignments."""
        steps = max(1, self.steps)
        shares = [(counts / counts.sum()).tolist() if counts.sum() else None for counts in self._usage]
        averages = {term: value / steps for term, value in zip(self.TERMS, self._sums.tolist(), strict=True)}
        return {**averages, "avg_lr": self.lr / steps, "expert_usage": shares}

    def state(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "steps": self.steps,
            "patches": self.patches,
            "lr": self.lr,
            "sums": self._sums.tolist(),
            "usage": [counts.tolist() for counts in self._usage],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.steps, self.patches, self.lr = state["steps"], state["patches"], state["lr"]
        self._sums.copy_(torch.tensor(state["sums"], dtype=torch.float64))
        for counts, values in zip(self._usage, state["usage"], strict=True):
            counts.copy_(torch.tensor(values))
