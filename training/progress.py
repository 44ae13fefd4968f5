"""How far a run is and what it has measured: all that a resumed run takes up besides weights and optimizer."""

from typing import Any

import torch
from torch import Tensor

from models.config import ModelConfig
from training.collapse import CollapseAlarm
from training.step import StepResult


class EpochSums:
    """Sums of one epoch's measurements.

    A step that the loss scaler left out (its gradient norm is not finite) counts in `skipped_steps` and not in the
    mean norm. The sums go through `state` and `restore` unchanged, so that a resumed epoch ends with the same averages.

    Args:
        config: of the model.
        device: where the measurements are.
        targets: names of those that the steps measure.
    """

    _NUMBERS = ("steps", "patches", "lr")
    TERMS = ("train_loss", "train_m_loss", "train_um_loss", "train_moe_loss", "grad_norm")
    _COUNTS = ("skipped_steps", "counted_patches")

    def __init__(self, config: ModelConfig, device: torch.device, targets: tuple[str, ...] = ()) -> None:
        self.steps = 0
        self.patches = 0
        """Including those of fill only."""
        self.lr = 0.0
        self._experts, self._targets = config.experts, targets
        routed = sum(count for count in config.experts if count > 1)
        # MPS has no float64.
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self._sums = torch.zeros(
            len(self.TERMS) + len(self._COUNTS) + routed + len(targets), dtype=dtype, device=device
        )

    def add(self, result: StepResult, lr: float, patches: int) -> None:
        """Count one step of so many patches, fill or not, without waiting for the device."""
        self.steps += 1
        self.patches += patches
        self.lr += lr
        losses, norm = result.losses, result.grad_norm
        finite = norm.isfinite()
        measured = torch.stack(
            [losses.total, losses.masked, losses.visible, losses.balance, torch.where(finite, norm, 0.0), ~finite,
             result.counted]
        )  # fmt: skip
        of_targets = [] if result.targets is None else [result.targets]
        self._sums += torch.cat([measured, result.chosen, *of_targets])

    @property
    def counted_patches(self) -> int:
        """Patches with a valid pixel. Waits for the device."""
        return self._read()["counted_patches"]

    def averages(self) -> dict[str, Any]:
        """Per step: loss terms, gradient norm and rate; per encoder block: each expert's share of the assignments."""
        steps = max(1, self.steps)
        found = self._read()
        averages = {term: found[term] / steps for term in self.TERMS}
        averages["grad_norm"] *= steps / max(1, self.steps - found["skipped_steps"])
        counts = {"skipped_fill": self.patches - found["counted_patches"], "skipped_steps": found["skipped_steps"]}
        averages |= {"avg_lr": self.lr / steps, **counts, "expert_usage": self._usage()}
        if not self._targets:
            return averages
        errors = self._sums[-len(self._targets) :].tolist()
        return {**averages, "target_errors": {name: e / steps for name, e in zip(self._targets, errors, strict=True)}}

    def _read(self) -> dict[str, Any]:
        values = self._sums.tolist()
        terms = dict(zip(self.TERMS, values, strict=False))
        counts = dict(zip(self._COUNTS, map(round, values[len(self.TERMS) :]), strict=False))
        return {**terms, **counts}

    def _usage(self) -> list[list[float] | None]:
        routed = sum(count for count in self._experts if count > 1)
        chosen = self._sums[len(self.TERMS) + len(self._COUNTS) :][:routed].cpu()
        parts: list[Tensor] = list(chosen.split([count for count in self._experts if count > 1]))
        blocks = [parts.pop(0) if count > 1 else None for count in self._experts]
        return [None if block is None or not block.sum() else (block / block.sum()).tolist() for block in blocks]

    def state(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {**{name: getattr(self, name) for name in self._NUMBERS}, "sums": self._sums.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        for name in self._NUMBERS:
            setattr(self, name, state[name])
        self._sums.copy_(torch.tensor(state["sums"], dtype=torch.float64))


class Progress:
    """Of one run.

    Attributes:
        epoch: how many are done.
        batch_in_epoch: how many batches of the current one are done.
        sums: of the current epoch's measurements.
        alarm: for experts that are no longer used.
        best_loss: the lowest so far of validation, or of training where there is no validation.
        best_train_loss: the lowest training loss of an epoch.

    Args:
        model: of the model that is trained.
        device: where measurements are.
        targets: names of those that the steps measure.
    """

    def __init__(self, model: ModelConfig, device: torch.device, targets: tuple[str, ...] = ()) -> None:
        self._measured = (model, device, targets)
        self.epoch, self.batch_in_epoch = 0, 0
        self.sums = EpochSums(*self._measured)
        self.alarm = CollapseAlarm()
        self.best_loss, self.best_train_loss = float("inf"), float("inf")

    def finish_epoch(self, row: dict[str, Any]) -> bool:
        """Go on to the next epoch; True where the one that ends is the best so far.

        Args:
            row: of its log: "train_loss" and, with a validation split, "val_loss".
        """
        self.best_train_loss = min(self.best_train_loss, row["train_loss"])
        judged = row.get("val_loss", row["train_loss"])
        best = judged < self.best_loss
        self.best_loss = min(judged, self.best_loss)
        self.epoch, self.batch_in_epoch = self.epoch + 1, 0
        self.sums = EpochSums(*self._measured)
        return best

    def state(self) -> dict[str, Any]:
        """Everything but `best_train_loss`, which checkpoints have as published, as plain values."""
        return {
            "epoch": self.epoch,
            "batch_in_epoch": self.batch_in_epoch,
            "best_loss": self.best_loss,
            "sums": self.sums.state(),
            "collapsed": self.alarm.state(),
        }

    def restore(self, state: dict[str, Any], best_train_loss: float) -> None:
        """The inverse of `state`."""
        self.epoch, self.batch_in_epoch = state["epoch"], state["batch_in_epoch"]
        self.best_loss, self.best_train_loss = state["best_loss"], best_train_loss
        self.sums.restore(state["sums"])
        self.alarm.restore(state.get("collapsed", []))  # runs saved before there was an alarm have none
