"""How far a run is and what it has seen: all that a resumed run takes up besides weights and optimizer."""

from typing import Any

import torch

from models.config import ModelConfig
from training.averages import EpochSums
from training.collapse import CollapseAlarm


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
    """

    def __init__(self, model: ModelConfig, device: torch.device) -> None:
        self._model, self._device = model, device
        self.epoch, self.batch_in_epoch = 0, 0
        self.sums = EpochSums(model, device)
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
        self.sums = EpochSums(self._model, self._device)
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
