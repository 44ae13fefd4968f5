"""`torch.compile` where it is wanted and possible, and a line where it is not."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
import torch._functorch.config as _functorch_config


def _nothing(text: str) -> None:
    pass


class Compilation(NamedTuple):
    """Whether to compile, decided once."""

    wanted: bool
    say: Callable[[str], None] = _nothing
    """Prints a line."""

    @classmethod
    def chosen(
        cls, choice: str, device: torch.device, calls: int, worth_from: int, say: Callable[[str], None]
    ) -> "Compilation":
        """What a config's `compile` means.

        Args:
            choice: "off", "on", or "auto": on CUDA, and on a CPU for work that is long enough.
            device: where the work is done.
            calls: how often the function will be called.
            worth_from: calls from which compiling on a CPU, which takes minutes, pays.
            say: prints a line.
        """
        if choice == "on" or (choice == "auto" and (device.type == "cuda" or calls >= worth_from)):
            if device.type in ("cpu", "cuda"):
                return cls(True, say)
            say(f"compile: not used on {device.type}")
        return cls(False)

    def of(self, function: Callable) -> Callable:
        """The function, compiled at its first call; where that fails, as it is, with a line.

        Its tensors keep their shapes from call to call, or it is compiled anew.
        """
        if not self.wanted:
            return function
        current = torch.compile(function, dynamic=False)

        def call(*arguments: object) -> object:
            nonlocal current
            if current is function:
                return function(*arguments)
            try:
                with _backward_too():
                    return current(*arguments)
            except Exception as error:
                if not _of_the_compiler(error):
                    raise
                self.say(f"compile: not possible here ({_reason(error)}); going on without")
                current = function
                return function(*arguments)

        return call


EAGER = Compilation(False)


def _backward_too() -> AbstractContextManager:
    """Compile the backward pass with the forward one: an error at its first run could no longer fall back to eager."""
    return _functorch_config.patch(force_non_lazy_backward_lowering=True)


def _of_the_compiler(error: Exception) -> bool:
    """Whether an error comes from compiling rather than from what is compiled."""
    kinds = {kind.__module__ for kind in type(error).__mro__}
    return any(module.startswith(("torch._dynamo", "torch._inductor", "triton")) for module in kinds)


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.endswith("raised:")]
    return f"{type(error).__name__}: {lines[0][:120]}" if lines else type(error).__name__
