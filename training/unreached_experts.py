"""Experts that no token of a step reached are left alone, as the published code does by the way it is written.

There every expert has a weight matrix of its own, which has no gradient in such a step, and AdamW passes over it: no
weight decay, no momentum, and its count of steps stays. Stacked experts are one parameter, whose rows of such an expert
have gradients of zero, which AdamW takes for a step like any other.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from models.moe import SharedSwiGLUExperts
from models.moe_mae import MOEMAE


class Stack(NamedTuple):
    """The experts of one layer."""

    count: int
    bias: Tensor
    """Whose gradients say which of them were reached."""
    parameters: tuple[Tensor, ...]
    """Of `count` pieces on top of each other: those that an optimizer has."""

    def unreached(self) -> Tensor:
        """(E,) float32, 1 for experts whose gradient is zero throughout. Nothing waits for the device."""
        return (_gradient(self.bias).view(self.count, -1) == 0).all(dim=1).float()


def stacks_of(model: MOEMAE, only: Collection[int] | None = None) -> list[Stack]:
    """The layers of several experts, encoder's and decoder's, with those parameters whose ids are in `only`."""
    layers = [m for m in model.modules() if isinstance(m, SharedSwiGLUExperts) and m.experts > 1]
    return [
        Stack(m.experts, m.W.bias, tuple(p for p in (m.W.weight, m.W.bias) if only is None or id(p) in only))
        for m in layers
    ]


class AdamWByExpert(torch.optim.AdamW):
    """AdamW that treats every expert as a parameter of its own, which is passed over where no token reached it.

    The state of stacked parameters is that of AdamW but for `step`, (E,): each expert counts its own steps.

    Args:
        parameters: all that are trained.
        stacks: the experts among them.
        settings: of `torch.optim.AdamW`, fused.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], stacks: list[Stack], **settings: Any) -> None:
        super().__init__(parameters, **settings)
        self._stacks = stacks

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update all parameters that have a gradient; `closure` is not used."""
        stacked = [(p, p.grad) for stack in self._stacks for p in stack.parameters]
        for parameter, _ in stacked:
            parameter.grad = None  # passed over by the step of all others
        super().step()
        for parameter, gradient in stacked:
            parameter.grad = gradient
        groups = {id(p): group for group in self.param_groups for p in group["params"]}
        for stack in self._stacks:
            if stack.bias.grad is not None:
                self._step(stack, groups[id(stack.bias)])

    def _step(self, stack: Stack, group: dict[str, Any]) -> None:
        # What leaves a step out that is not finite, where it is 1, does so for one expert.
        found_inf = getattr(self, "found_inf", None)
        left_out = stack.unreached() if found_inf is None else torch.maximum(stack.unreached(), found_inf)
        states = [self._state(p, stack.count) for p in stack.parameters]
        weights, gradients = [p.detach() for p in stack.parameters], [_gradient(p) for p in stack.parameters]
        moments = [[state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step")]
        pieces = [[value.view(stack.count, -1) for value in of_kind] for of_kind in (weights, gradients, *moments)]
        for expert in range(stack.count):
            weights, gradients, first, second, steps = ([value[expert] for value in of_kind] for of_kind in pieces)
            adamw(
                weights,
                gradients,
                first,
                second,
                [],
                steps,
                fused=True,
                capturable=group["capturable"],
                grad_scale=getattr(self, "grad_scale", None),
                found_inf=left_out[expert],
                amsgrad=False,
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
            )

    def _state(self, parameter: Tensor, count: int) -> dict[str, Tensor]:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(count, device=parameter.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        elif state["step"].dim() == 0:  # of a run that an earlier version began: all experts had all steps
            state["step"] = state["step"].expand(count).clone()
        return state


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
