"""The encoder as a program of another runtime: ONNX Runtime in float32 or 8-bit integers, OpenVINO.

Packages are imported by name, see `models.inference.runtimes`.
"""

import tempfile
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.inference.encoder_program import HIDDEN, SENSITIVE, TOKENS, encoder_program
from models.inference.folded import FoldedEncoder
from models.inference.micro_batches import Encode, MicroBatches
from models.inference.protocol import PatchEncoder

PATCHES_AT_ONCE = 8
"""As `micro_batches.PATCHES_AT_ONCE`: attention scores of more leave the cache."""

Run = Callable[[dict[str, np.ndarray]], np.ndarray]
"""A program: arrays by the names of `models.inference.encoder_program` to tokens; called by several threads at once."""


def by_onnxruntime(model: PatchEncoder, read: int | None) -> Encode:
    """By ONNX Runtime, in float32."""
    return _encode(model, read, lambda program: _onnx_session(program.SerializeToString()))


def by_onnxruntime_int8(model: PatchEncoder, read: int | None) -> Encode:
    """Weights in 8 bits by output channel, what they are multiplied with in 8 bits by batch; sensitive products not."""
    return _encode(model, read, lambda program: _onnx_session(_in_eight_bits(program)))


def by_openvino(model: PatchEncoder, read: int | None) -> Encode:
    """By OpenVINO, in float32: some processors would compute in bfloat16 unless told so."""
    threads = torch.get_num_threads()
    streams = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    return _encode(model, read, lambda program: _openvino_requests(program, streams))


def _encode(model: PatchEncoder, read: int | None, build: Callable[[Any], Run]) -> Encode:
    """A few patches at a time; those with fill in some of them go another way through attention."""
    folded = FoldedEncoder(model.encoder, read)
    plain, masked = (build(encoder_program(folded, with_hidden)) for with_hidden in (False, True))

    @torch.no_grad()
    def encode(images: Tensor, meta: Tensor, visible: Tensor | None, bands: Tensor | None) -> Tensor:
        tokens, hidden = folded.embed(images, meta, visible, bands)
        if hidden is None or not hidden.any():
            return torch.from_numpy(plain({TOKENS: tokens.numpy()}))
        return torch.from_numpy(masked({TOKENS: tokens.numpy(), HIDDEN: hidden.numpy()}))

    return MicroBatches(encode, PATCHES_AT_ONCE)


def _onnx_session(program: bytes) -> Run:
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(program, options, providers=["CPUExecutionProvider"])
    return lambda arrays: np.asarray(session.run(None, arrays)[0])


def _in_eight_bits(program: Any) -> bytes:
    quantization = import_module("onnxruntime.quantization")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.onnx"
        path.write_bytes(program.SerializeToString())
        sensitive = [node.name for node in program.graph.node if node.name.startswith(SENSITIVE)]
        # Seven bits of a weight: sums of two products overflow on processors without VNNI otherwise.
        options = {"per_channel": True, "reduce_range": True, "nodes_to_exclude": sensitive}
        quantization.quantize_dynamic(str(path), str(path), **options)
        return path.read_bytes()


def _openvino_requests(program: Any, options: dict[str, Any]) -> Run:
    core = import_module("openvino").Core()
    compiled = core.compile_model(core.read_model(program.SerializeToString(), b""), "CPU", options)
    of_thread = threading.local()

    def run(arrays: dict[str, np.ndarray]) -> np.ndarray:
        if not hasattr(of_thread, "request"):
            of_thread.request = compiled.create_infer_request()
        return np.array(of_thread.request.infer(arrays)[0])

    return run
