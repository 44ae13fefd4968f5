"""An exported program as an ONNX file, and the encoder as one: normalised patches, metadata and bands to tokens."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from models.encoder import Encoder
from models.kernels.backend import EXPORT
from models.moe import NO_NOISE

OPSET = 18
"""Operators of ONNX 1.13 (2022), which runtimes in use know."""
PATCHES = "patches"
"""Name of the dimension that is free in ONNX."""

INPUTS, OUTPUT = ("images", "meta", "bands"), "tokens"
"""Of `write_encoder`."""


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


class _Tokens(nn.Module):
    """The encoder of patches without fill, without routing noise."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor, meta: Tensor, bands: Tensor) -> Tensor:
        noise = (NO_NOISE,) * len(self.encoder.layers)
        return self.encoder(images, meta, None, noise, EXPORT, bands=bands).pre_norm


def write_encoder(encoder: Encoder, images: Tensor, meta: Tensor, bands: Tensor, path: Path) -> None:
    """Write an encoder for any number of patches without fill.

    Args:
        encoder: in evaluation mode, on the CPU.
        images, meta, bands: two patches or more, as `Encoder.forward` takes them.
        path: the `.onnx`.
    """
    patches = Dim(PATCHES, min=1)
    inputs = (images, meta, bands)
    program = torch.export.export(_Tokens(encoder).eval(), inputs, dynamic_shapes=({0: patches},) * len(inputs))
    write_onnx(program, path, INPUTS, OUTPUT)


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
