"""An exported program as an ONNX file."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import torch
from torch.export import ExportedProgram

from models.inference.onnx_graph import OPSET

PATCHES = "patches"
"""Name of the dimension that is free in ONNX."""


def write_onnx(program: ExportedProgram, path: Path, inputs: Sequence[str], output: str) -> None:
    """Write an `.onnx` of one file, without the notes on where in which source every operator comes from."""
    onnx = import_module("onnx")  # by name, see `models.inference.runtimes`
    with _quiet():
        made = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=[output],
            external_data=False,
            verbose=False,
        )
    assert made is not None  # it is only without `dynamo`
    model = made.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = PATCHES
        del value.metadata_props[:]
    del model.graph.value_info[:]  # they name the free dimension otherwise, and follow from the rest
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes on its own progress."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
