"""What computes an embedding on a CPU: PyTorch as in training, or something faster that gives the same to 1e-4.

Each is compared with PyTorch, with all bands and with some, on patches made for it before it is used. One in 8-bit
integers is nearly the same, and is used only where it is asked for. Patches with fill, and other devices, are PyTorch's
in any case. Packages are imported by name: a release carries this file for `transformers`, which takes every import
statement in it for a package that it needs.
"""

import importlib.util
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.inference.folded import FoldedEncoder
from models.inference.micro_batches import PATCHES_AT_ONCE, MicroBatches
from models.inference.protocol import PatchEncoder
from models.moe import routing_margins
from utils.errors import ConfigError

TOLERANCE = 1e-4
"""Greatest difference of any number of a token from PyTorch's."""

ROUNDED = 0.1
"""Greatest root-mean-square difference of 8-bit tokens, in shares of the tokens' own: 0.014 in the shipped weights."""

CANDIDATES, CHECKED = 12, 4
"""Patches of random numbers, and those of them that are compared: an embedding is not continuous where two experts of a
token come out equal, so the ones farthest from any such tie are taken."""

TRIES = 3
"""Of each, to see which is the fastest, on a micro-batch a thread; the least time counts."""

WORTH_FOLDING, WORTH_EXPORTING = 2_048, 20_000
"""Patches from which `auto` tries folded weights, which takes about as long as embedding 200 patches on two threads,
and programs for other runtimes, which are exported in half a minute."""

Encode = Callable[[Tensor, Tensor, Tensor | None, Tensor | None], Tensor]
"""Normalised patches (B, C, H, W), metadata (B, F, 2), visible patches (B, N) and given bands (B, C), each bool or None
for all, to tokens (B, P + N, D)."""

Run = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""The same of an exported program, which has no visible patches, and bands always."""


class Runtime(NamedTuple):
    """One that can be asked for."""

    build: Callable[[PatchEncoder], Encode]
    packages: tuple[str, ...] = ()
    """Those that it needs beside the project's own."""
    worth_from: float = WORTH_FOLDING
    """Patches from which `auto` tries it."""
    exact: bool = True
    """Whether it gives PyTorch's numbers but for rounding in float32."""


def _torch(model: PatchEncoder) -> Encode:
    return lambda images, meta, visible, bands: (
        model.encode(images, meta, visible=visible, bands=bands, noise=False).pre_norm
    )


def _folded(model: PatchEncoder) -> Encode:
    return MicroBatches(FoldedEncoder(model.encoder))


def _onnxruntime(model: PatchEncoder) -> Encode:
    return _onnx_session(model, eight_bits=False)


def _onnxruntime_int8(model: PatchEncoder) -> Encode:
    """Weights in 8 bits by output channel, what they are multiplied with in 8 bits by batch."""
    return _onnx_session(model, eight_bits=True)


def _onnx_session(model: PatchEncoder, eight_bits: bool) -> Encode:
    onnxruntime = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with _onnx_file(model) as path:
        if eight_bits:
            quantization = import_module("onnxruntime.quantization")
            # Seven bits of a weight: sums of two products overflow on processors without VNNI otherwise.
            quantization.quantize_dynamic(path, path, per_channel=True, reduce_range=True)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: np.ndarray, meta: np.ndarray, bands: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(None, {"images": images, "meta": meta, "bands": bands})[0])

    return MicroBatches(_where_all_is_visible(run, model))


def _openvino(model: PatchEncoder) -> Encode:
    openvino = import_module("openvino")
    with _onnx_file(model) as path:
        core = openvino.Core()
        threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
        compiled = core.compile_model(core.read_model(path), "CPU", threads)

    def run(images: np.ndarray, meta: np.ndarray, bands: np.ndarray) -> np.ndarray:
        return np.array(compiled({"images": images, "meta": meta, "bands": bands})[0])

    return _where_all_is_visible(run, model)


RUNTIMES = {
    "torch": Runtime(_torch),
    "folded": Runtime(_folded),
    "onnxruntime": Runtime(_onnxruntime, ("onnx", "onnxscript", "onnxruntime"), WORTH_EXPORTING),
    "onnxruntime-int8": Runtime(_onnxruntime_int8, ("onnx", "onnxscript", "onnxruntime"), math.inf, exact=False),
    "openvino": Runtime(_openvino, ("onnx", "onnxscript", "openvino"), WORTH_EXPORTING),
}
"""By the name that configs, command lines and `MOEMAE.embed` give them."""

CHOICES = ("auto", *RUNTIMES)


@contextmanager
def _onnx_file(model: PatchEncoder) -> Iterator[str]:
    """The encoder as a file that is there as long as it is read."""
    from models.inference.onnx_program import write_encoder

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.onnx"
        write_encoder(model.encoder, *_random_patches(model, 2), _random_bands(model, 2), path)
        yield str(path)


def _where_all_is_visible(run: Run, model: PatchEncoder) -> Encode:
    """A program for patches without fill; PyTorch for those with some."""
    otherwise = _torch(model)

    def of_program(images: Tensor, meta: Tensor, bands: Tensor | None) -> Tensor:
        given = np.ones(images.shape[:2], bool) if bands is None else bands.numpy()
        return torch.from_numpy(run(images.numpy(), meta.numpy(), given))

    @torch.no_grad()
    def encode(images: Tensor, meta: Tensor, visible: Tensor | None, bands: Tensor | None) -> Tensor:
        if visible is None:
            return of_program(images, meta, bands)
        whole = visible.all(dim=1)
        parts = []
        if len(rows := whole.nonzero().flatten()):
            parts.append((rows, of_program(images[rows], meta[rows], None if bands is None else bands[rows])))
        if len(rows := (~whole).nonzero().flatten()):
            some = None if bands is None else bands[rows]
            parts.append((rows, otherwise(images[rows], meta[rows], visible[rows], some)))
        places = torch.cat([rows for rows, _ in parts])
        return torch.cat([tokens for _, tokens in parts])[places.argsort()]

    return encode


def require_known(asked: str) -> None:
    """Raise ConfigError for a name that is none of `CHOICES`, or a runtime whose packages are missing."""
    if asked not in CHOICES:
        raise ConfigError(f"backend: {asked!r} is not known; use {', '.join(CHOICES)}")
    if asked != "auto" and (missing := missing_packages(asked)):
        raise ConfigError(
            f"backend: {asked} needs {', '.join(missing)}; pip install {' '.join(missing)}, or use torch or folded"
        )


def compiling_asked(asked: str, compile_it: str) -> str:
    """`compile` for a runtime: "auto" is "off" for those that PyTorch does not compile.

    "auto" of both is PyTorch where the work is long enough for its compiler.
    """
    return "off" if asked not in ("torch", "auto") and compile_it == "auto" else compile_it


def choose_runtime(asked: str, model: PatchEncoder, patches: int) -> tuple[str, Encode]:
    """The runtime that is asked for, checked; of "auto" the fastest that is installed and passes.

    Args:
        asked: one of `CHOICES`.
        model: in evaluation mode.
        patches: how many there are to embed.

    Returns:
        Its name, and what it computes.

    Raises:
        ConfigError: for an unknown name, a missing package (with the command that installs it), another device than
            the CPU, or a difference from PyTorch; "auto" passes over such.
    """
    require_known(asked)
    plain = _torch(model)
    if asked == "torch":
        return asked, plain
    if next(model.parameters()).device.type != "cpu":
        if asked == "auto":
            return "torch", plain
        raise ConfigError(f"backend: {asked} runs on the CPU; use torch, or device cpu")
    check = _Check(model, plain)
    if asked != "auto":
        return asked, check.passed(asked)
    found = {"torch": plain}
    for name, runtime in RUNTIMES.items():
        if name != "torch" and patches >= runtime.worth_from and not missing_packages(name):
            try:
                found[name] = check.passed(name)
            except ConfigError:
                continue
    fastest = min(found, key=lambda name: check.seconds(found[name])) if len(found) > 1 else "torch"
    return fastest, found[fastest]


def missing_packages(name: str) -> list[str]:
    """Packages of a runtime that are not installed."""
    return [package for package in RUNTIMES[name].packages if importlib.util.find_spec(package) is None]


class _Check:
    """Patches whose tokens by PyTorch are known."""

    @torch.no_grad()
    def __init__(self, model: PatchEncoder, plain: Encode) -> None:
        images, meta = _random_patches(model, CANDIDATES)
        some = _random_bands(model, CANDIDATES)
        ties = [model.encode(images, meta, bands=bands, noise=False).routing for bands in (None, some)]
        margins = torch.minimum(*(routing_margins(routing, CANDIDATES) for routing in ties))
        rows = margins.argsort(descending=True)[:CHECKED]
        self.model, self.bands, self.images, self.meta = model, some[rows], images[rows], meta[rows]
        self.expected = self._of_all_and_some_bands(plain)

    def _of_all_and_some_bands(self, encode: Encode) -> Tensor:
        return torch.stack([encode(self.images, self.meta, None, bands) for bands in (None, self.bands)])

    @torch.no_grad()
    def passed(self, name: str) -> Encode:
        """What a runtime computes, compared.

        Raises:
            ConfigError: where it differs, or cannot be built.
        """
        try:
            encode = RUNTIMES[name].build(self.model)
            found = self._of_all_and_some_bands(encode)
        except ConfigError:
            raise
        except Exception as error:  # exporters and runtimes raise anything
            reason = (str(error).splitlines() or [""])[0][:120]
            raise ConfigError(f"backend: {name} fails here ({type(error).__name__}: {reason}); use torch") from error
        if not RUNTIMES[name].exact:
            share = float((found - self.expected).square().mean().sqrt() / self.expected.square().mean().sqrt())
            if not share <= ROUNDED:
                raise ConfigError(f"backend: {name} is {share:.0%} away from PyTorch (> {ROUNDED:.0%}); use torch")
            return encode
        difference = float((found - self.expected).abs().max())
        if not difference <= TOLERANCE:
            raise ConfigError(f"backend: {name} is {difference:.1e} away from PyTorch (> {TOLERANCE:g}); use torch")
        return encode

    @torch.no_grad()
    def seconds(self, encode: Encode) -> float:
        """Of a micro-batch a thread."""
        times = PATCHES_AT_ONCE * torch.get_num_threads() // CHECKED
        images, meta = (part.repeat(times, *[1] * (part.dim() - 1)) for part in (self.images, self.meta))
        taken = []
        for _ in range(TRIES):
            started = time.perf_counter()
            encode(images, meta, None, None)
            taken.append(time.perf_counter() - started)
        return min(taken)


def _random_patches(model: PatchEncoder, count: int) -> tuple[Tensor, Tensor]:
    config, generator = model.config, torch.Generator().manual_seed(0)
    images = torch.randn(count, config.in_channels, config.img_size, config.img_size, generator=generator)
    angles = 6 * torch.rand(count, len(config.meta_fields), generator=generator)
    return images, torch.stack([angles.sin(), angles.cos()], dim=-1)


def _random_bands(model: PatchEncoder, count: int) -> Tensor:
    """(count, C) bool: half of them are missing, the last one never."""
    bands = torch.rand(count, model.config.in_channels, generator=torch.Generator().manual_seed(1)) > 0.5
    bands[:, -1] = True
    return bands
