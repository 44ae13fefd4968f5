"""The learning rate as a pure function of the step, so that resuming needs no state."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

Schedule = Callable[[int], float]
"""From the number of an optimizer step, counted from 0, to its rate."""


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
        plan = Plan(base_lr, epochs, steps_per_epoch, warmup_fraction)
        return cls(base_lr, plan.warmup_steps, plan.total_steps)


@dataclass(frozen=True)
class WarmupStableDecayLR:
    """Linear from 0 over the warm-up, constant, then down to 0 over the last steps (arXiv:2405.18392).

    Up to the decay the rate does not depend on how many steps there are, so that a run can be prolonged.

    Attributes:
        base_lr: the highest rate.
        warmup_steps: optimizer steps of the linear part; 0 starts at `base_lr`.
        decay_start: number of the last step at the highest rate; not before the end of the warm-up.
        total_steps: optimizer steps in all.
        shape: from the share of the decay that is done, 0 to 1, to the share of the rate that is left.
    """

    base_lr: float
    warmup_steps: int
    decay_start: int
    total_steps: int
    shape: Callable[[float], float]

    def __call__(self, step: int) -> float:
        """Rate of the optimizer step with this number, counted from 0."""
        if step < self.warmup_steps:
            return self.base_lr * step / self.warmup_steps
        done = (step - self.decay_start) / max(1, self.total_steps - self.decay_start)
        return self.base_lr * self.shape(min(1.0, max(0.0, done)))


class Plan(NamedTuple):
    """What every schedule is made from."""

    base_lr: float
    """The highest rate."""
    epochs: int
    steps_per_epoch: int
    warmup_fraction: float
    """Share of the epochs, rounded down to whole ones."""
    decay_fraction: float = 0.0
    """Share of all steps, at the end; of no meaning for a cosine."""

    @property
    def warmup_steps(self) -> int:
        return int(self.warmup_fraction * self.epochs) * self.steps_per_epoch

    @property
    def total_steps(self) -> int:
        return self.epochs * self.steps_per_epoch


def _cosine(plan: Plan) -> Schedule:
    return WarmupCosineLR(plan.base_lr, plan.warmup_steps, plan.total_steps)


def _stable(plan: Plan, shape: Callable[[float], float]) -> Schedule:
    start = max(plan.warmup_steps, plan.total_steps - round(plan.decay_fraction * plan.total_steps))
    return WarmupStableDecayLR(plan.base_lr, plan.warmup_steps, start, plan.total_steps, shape)


SCHEDULES: dict[str, Callable[[Plan], Schedule]] = {
    "cosine": _cosine,
    "stable_linear": lambda plan: _stable(plan, lambda done: 1.0 - done),
    "stable_sqrt": lambda plan: _stable(plan, lambda done: 1.0 - math.sqrt(done)),
}
"""Every schedule by the name that configs give it: the published cosine, and warm-up, constant rate and a decay that is
linear or goes by 1 - sqrt."""


def same_until(first: Schedule, second: Schedule, steps: int) -> bool:
    """Whether two schedules give the first so many steps the same rates, to the bit."""
    return all(first(step) == second(step) for step in range(steps))
