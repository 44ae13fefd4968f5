"""What computes an embedding on a CPU: PyTorch as in training, or something faster that gives the same to 1e-4.

Each is compared with PyTorch, with all bands and with some, with fill and without, on patches made for it before it is
used. One in 8-bit integers is nearly the same, and is used only where it is asked for. Other devices are PyTorch's in
any case. Packages are imported by name: a release carries this file for `transformers`, which takes every import
statement in it for a package that it needs.
"""

import importlib.util
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from models.inference.folded import FoldedEncoder
from models.inference.micro_batches import PATCHES_AT_ONCE, Encode, MicroBatches
from models.inference.programs import by_onnxruntime, by_onnxruntime_int8, by_openvino
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

WORTH_FOLDING = 2_048
"""Patches from which `auto` tries other runtimes: each takes about as long as embedding 200 patches on two threads."""


class Runtime(NamedTuple):
    """One that can be asked for."""

    build: Callable[[PatchEncoder, int | None], Encode]
    """From a model, and how many tokens of a patch are read, from the first on; None for all."""
    packages: tuple[str, ...] = ()
    """Those that it needs beside the project's own."""
    worth_from: float = WORTH_FOLDING
    """Patches from which `auto` tries it."""
    exact: bool = True
    """Whether it gives PyTorch's numbers but for rounding in float32."""


def _torch(model: PatchEncoder, read: int | None) -> Encode:
    return lambda images, meta, visible, bands: model.encode(
        images, meta, visible=visible, bands=bands, noise=False, to_read=True
    ).pre_norm[:, :read]


def _folded(model: PatchEncoder, read: int | None) -> Encode:
    return MicroBatches(FoldedEncoder(model.encoder, read))


RUNTIMES = {
    "torch": Runtime(_torch),
    "folded": Runtime(_folded),
    "onnxruntime": Runtime(by_onnxruntime, ("onnx", "onnxruntime")),
    "onnxruntime-int8": Runtime(by_onnxruntime_int8, ("onnx", "onnxruntime"), math.inf, exact=False),
    "openvino": Runtime(by_openvino, ("onnx", "openvino")),
}
"""By the name that configs, command lines and `MOEMAE.embed` give them."""

CHOICES = ("auto", *RUNTIMES)


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


def choose_runtime(asked: str, model: PatchEncoder, patches: int, read: int | None = None) -> tuple[str, Encode]:
    """The runtime that is asked for, checked; of "auto" the fastest that is installed and passes.

    Args:
        asked: one of `CHOICES`.
        model: in evaluation mode.
        patches: how many there are to embed.
        read: how many tokens of each are wanted, from the first on; None for all.

    Returns:
        Its name, and what it computes.

    Raises:
        ConfigError: for an unknown name, a missing package (with the command that installs it), another device than
            the CPU, or a difference from PyTorch; "auto" passes over such.
    """
    require_known(asked)
    plain = _torch(model, read)
    if asked == "torch":
        return asked, plain
    if next(model.parameters()).device.type != "cpu":
        if asked == "auto":
            return "torch", plain
        raise ConfigError(f"backend: {asked} runs on the CPU; use torch, or device cpu")
    check = _Check(model, plain, read)
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
    def __init__(self, model: PatchEncoder, plain: Encode, read: int | None) -> None:
        self.model, self.read = model, read
        images, meta = _random_patches(model, CANDIDATES)
        cases = (None, None), (None, _random_bands(model, CANDIDATES)), (_random_visible(model, CANDIDATES), None)
        margins = torch.stack([_margins(model, images, meta, *case) for case in cases]).amin(dim=0)
        rows = margins.argsort(descending=True)[:CHECKED]
        self.images, self.meta = images[rows], meta[rows]
        self.cases = [tuple(part if part is None else part[rows] for part in case) for case in cases]
        self.expected = self._of_all_cases(plain)

    def _of_all_cases(self, encode: Encode) -> Tensor:
        """(cases, B, T, D), 0 for the tokens of hidden patches, which only fill up the shape."""
        found = []
        for visible, bands in self.cases:
            tokens = encode(self.images, self.meta, visible, bands)
            hidden = self.model.encoder.hidden_tokens(visible)
            found.append(tokens if hidden is None else tokens * (1 - hidden[:, : tokens.shape[1], None]))
        return torch.stack(found)

    @torch.no_grad()
    def passed(self, name: str) -> Encode:
        """What a runtime computes, compared.

        Raises:
            ConfigError: where it differs, or cannot be built.
        """
        try:
            encode = RUNTIMES[name].build(self.model, self.read)
            found = self._of_all_cases(encode)
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


def _margins(model: PatchEncoder, images: Tensor, meta: Tensor, visible: Tensor | None, bands: Tensor | None) -> Tensor:
    routing = model.encode(images, meta, visible=visible, bands=bands, noise=False, to_read=True).routing
    return routing_margins(routing, len(images))


def _random_visible(model: PatchEncoder, count: int) -> Tensor:
    """(count, N) bool: half of the patches are hidden, the last one never."""
    visible = torch.rand(count, model.config.num_patches, generator=torch.Generator().manual_seed(2)) > 0.5
    visible[:, -1] = True
    return visible


def _random_bands(model: PatchEncoder, count: int) -> Tensor:
    """(count, C) bool: half of them are missing, the last one never."""
    bands = torch.rand(count, model.config.in_channels, generator=torch.Generator().manual_seed(1)) > 0.5
    bands[:, -1] = True
    return bands
