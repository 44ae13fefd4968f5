"""A whole training step as one CUDA graph: for a network this small, launching its kernels one by one is the cost."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

WARM_UP = 3
"""Steps done as usual before the capture, so that everything is compiled and every buffer is there."""


class CapturedStep:
    """Calls a function of tensors on CUDA: as it is at first, then captured and replayed.

    The results of a replay are overwritten by the next one.

    Args:
        compute: from a NamedTuple of tensors (which may nest) to a result of tensors. Whatever else it reads and
            changes stays in its place from call to call, and nothing in it depends on values on the host.
        say: prints a line where capturing fails; the steps then go on as usual.
    """

    def __init__(self, compute: Callable[[Any], Any], say: Callable[[str], None]) -> None:
        self._compute, self._say = compute, say
        self._calls = 0
        self._inputs: Any = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result: Any = None
        self._failed = False

    def __call__(self, inputs: Any) -> Any:
        if self._failed:
            return self._compute(inputs)
        self._take(inputs)
        self._calls += 1
        if self._calls <= WARM_UP:
            return self._beside(self._inputs)
        graph = self._graph or self._capture()
        if graph is None:
            return self._compute(inputs)
        graph.replay()
        return self._result

    def _take(self, inputs: Any) -> None:
        """Copy inputs into tensors that stay where they are."""
        if self._inputs is None:
            self._inputs = _copied(inputs)
        _copy_into(self._inputs, inputs)

    def _beside(self, inputs: Any) -> Any:
        """One step on another stream, which is how CUDA wants to be warmed up for a capture."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            result = self._compute(inputs)
        torch.cuda.current_stream().wait_stream(stream)
        return result

    def _capture(self) -> torch.cuda.CUDAGraph | None:
        graph = torch.cuda.CUDAGraph()
        try:
            # "thread_local": a reader's thread goes on pinning memory meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._result = self._compute(self._inputs)
        except (RuntimeError, AssertionError) as error:
            self._failed, self._result = True, None
            reason = next(iter(str(error).splitlines()), type(error).__name__)[:120]
            self._say(f"CUDA graph: not possible here ({reason}); going on without")
            return None
        self._graph = graph
        return graph


def _copied(value: Any) -> Any:
    """The same structure with tensors of its own; tensors in a tuple within it are kept (they stay in place)."""
    return type(value)(*(item.clone() if isinstance(item, Tensor) and item.dim() else item for item in value))


def _copy_into(target: Any, source: Any) -> None:
    for kept, item in zip(target, source, strict=True):
        if isinstance(item, Tensor) and kept is not item:
            kept.copy_(item, non_blocking=True)
