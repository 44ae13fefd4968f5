"""A program on disk, in two forms, and running it from there: by `torch.export`, and by ONNX."""

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.export import ExportedProgram

from release.program import INPUTS, OUTPUT
from utils.errors import ConfigError

OPSET = 18
"""Operators of ONNX 1.13 (2022), which runtimes in use know."""
PATCHES = "patches"
"""Name of the dimension that is free in ONNX."""

Run = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(N, 7, S, S) int32 and (N, 4) float32 to (N, D)."""


class Format(NamedTuple):
    """One form of a program."""

    ending: str
    packages: tuple[str, ...]
    """Those beside PyTorch that are needed to write and check it."""
    write: Callable[[ExportedProgram, Path], None]
    load: Callable[[Path], Run]


def write_torch_export(program: ExportedProgram, path: Path) -> None:
    """Write a `.pt2`, which holds no pickle."""
    torch.export.save(program, path)


def load_torch_export(path: Path) -> Run:
    """A `.pt2` as a function."""
    module = torch.export.load(path).module()

    def run(pixels: np.ndarray, metadata: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(torch.from_numpy(pixels), torch.from_numpy(metadata)).numpy()

    return run


def write_onnx(program: ExportedProgram, path: Path) -> None:
    """Write an `.onnx` of one file, without the notes on where in which source every operator comes from."""
    import onnx

    with _quiet():
        made = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(INPUTS),
            output_names=[OUTPUT],
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


def load_onnx(path: Path) -> Run:
    """An `.onnx` as a function, by onnxruntime on the CPU, on as many threads as PyTorch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(pixels: np.ndarray, metadata: np.ndarray) -> np.ndarray:
        (vectors,) = session.run([OUTPUT], dict(zip(INPUTS, (pixels, metadata), strict=True)))
        assert isinstance(vectors, np.ndarray)  # runtimes also know sparse tensors, lists and maps
        return vectors

    return run


FORMATS = {
    "torch_export": Format(".pt2", (), write_torch_export, load_torch_export),
    "onnx": Format(".onnx", ("onnx", "onnxscript", "onnxruntime"), write_onnx, load_onnx),
}


def require_packages(names: list[str]) -> None:
    """Raise ConfigError naming the packages that some formats need and that are missing."""
    for name in names:
        missing = [package for package in FORMATS[name].packages if importlib.util.find_spec(package) is None]
        if missing:
            raise ConfigError(
                f"--programs {name}: needs the packages {', '.join(missing)} (pip install -r requirements-export.txt); "
                "or leave it out: --programs torch_export"
            )


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
