"""The learning rate as a pure function of the step, so that resuming needs no state."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class WarmupCosineLR:
    """Linear from 0 over the warm-up, then half a cosine down to 0 (arXiv:2509.10919).

    Attributes:
        base_lr: the highest rate.
        warmup_steps: optimizer steps of the linear part; 0 starts at `base_lr`.
        total_steps: optimizer steps in all.
    """

    base_lr: float
    warmup_steps: int
    total_steps: int

    def __call__(self, step: int) -> float:
        """Rate of the optimizer step with this number, counted from 0."""
        if step < self.warmup_steps:
            return self.base_lr * step / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        return self.base_lr * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))

    @classmethod
    def by_epochs(cls, base_lr: float, epochs: int, steps_per_epoch: int, warmup_fraction: float) -> "WarmupCosineLR":
        """The published schedule: int(warmup_fraction * epochs) epochs of warm-up."""
        return cls(base_lr, int(warmup_fraction * epochs) * steps_per_epoch, epochs * steps_per_epoch)
