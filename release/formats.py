"""A program on disk, in two forms, and running it from there: by `torch.export`, and by ONNX."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.export import ExportedProgram

from models.inference.onnx_program import write_onnx as write_program
from release.program import INPUTS, OUTPUT
from utils.errors import ConfigError

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
    """Write an `.onnx` of one file."""
    write_program(program, path, INPUTS, OUTPUT)


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


def missing_packages(name: str) -> list[str]:
    """Packages of a format that are not installed."""
    return [package for package in FORMATS[name].packages if importlib.util.find_spec(package) is None]


def require_packages(names: list[str]) -> None:
    """Raise ConfigError naming the packages that some formats need and that are missing."""
    for name in names:
        if missing := missing_packages(name):
            raise ConfigError(
                f"--programs {name}: needs the packages {', '.join(missing)} (pip install -r requirements-export.txt); "
                "or leave it out: --programs torch_export"
            )
