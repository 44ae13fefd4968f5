"""An ONNX graph, written operator by operator."""

from importlib import import_module
from typing import Any

import numpy as np

OPSET, IR_VERSION = 18, 8
"""Operators and file format of ONNX 1.13 (2022), which runtimes in use know."""


class OnnxGraph:
    """Operators that follow one another; values are known by the names that each call returns."""

    def __init__(self) -> None:
        self._onnx = import_module("onnx")  # by name, see `models.inference.runtimes`
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._lists: dict[tuple[int, ...], str] = {}

    def constant(self, values: Any) -> str:
        """Numbers that every run has in common, as an array."""
        name = f"constant_{len(self._constants)}"
        self._constants[name] = self._onnx.numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def integers(self, *values: int) -> str:
        """The same of a list of integers, such as a shape; equal lists are stored once."""
        if values not in self._lists:
            self._lists[values] = self.constant(np.array(values, np.int64))
        return self._lists[values]

    def __call__(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """An operator with one output."""
        return self.several(operator, 1, *inputs, **attributes)[0]

    def several(self, operator: str, outputs: int, *inputs: str, label: str = "", **attributes: Any) -> list[str]:
        """An operator with so many outputs; its name begins with `label`, or with what it is."""
        names = [f"{label or operator}_{len(self._nodes)}_{place}" for place in range(outputs)]
        self._nodes.append(self._onnx.helper.make_node(operator, inputs, names, names[0], **attributes))
        return names

    def model(self, inputs: dict[str, tuple[Any, ...]], output: str, shape: tuple[Any, ...]) -> Any:
        """The graph as an `onnx.ModelProto`.

        Args:
            inputs: float32, by name; of each its shape, where a dimension that is free has a name.
            output: a value that an operator returned, and `shape`, its own.
        """
        helper, kind = self._onnx.helper, self._onnx.TensorProto.FLOAT
        given = [helper.make_tensor_value_info(name, kind, sides) for name, sides in inputs.items()]
        made = [helper.make_tensor_value_info(output, kind, shape)]
        graph = helper.make_graph(self._nodes, "encoder", given, made, list(self._constants.values()))
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
