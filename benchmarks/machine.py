"""The machine's limits, measured in the run: matrix products and memory bandwidth; and its description."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import Work, timed
from utils.provenance import processor_name, provenance
from utils.threads import full_precision

SQUARES = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192)}
"""Sides of the square products tried."""


class Shape(NamedTuple):
    """A matrix product, (rows, inputs) x (inputs, outputs)."""

    rows: int
    inputs: int
    outputs: int

    @property
    def operations(self) -> int:
        return 2 * self.rows * self.inputs * self.outputs


MODEL_PRODUCTS = (Shape(3840, 144, 432), Shape(3840, 144, 144), Shape(6720, 144, 360))
"""Products inside size S: W of 3 experts and a projection at batch 128 with 30 tokens, W of 5 experts at batch 64 with
105 tokens."""

TRIES = 8
COPY_BYTES = {"cpu": 1 << 28, "cuda": 1 << 30}
"""Far larger than any cache."""


class Product(NamedTuple):
    """A matrix product and who computes it: a key of `LIBRARIES`."""

    library: str
    shape: Shape

    def work(self, device: torch.device) -> Work:
        """A call that computes it."""
        return LIBRARIES[self.library](self.shape, device)


class Limits(NamedTuple):
    """The machine's own limits."""

    float32: float
    """Matrix products by the fastest library at hand, operations/s, without TF32."""
    float32_by: Product
    """Where that was."""
    linear: float
    """The same as `torch.nn.Linear` computes them: on some processors, by a library that is not the fastest."""
    bfloat16: float
    """Matrix products, operations/s."""
    bandwidth: float
    """Bytes/s read and written by a copy."""
    products: dict[str, dict[str, float]]
    """Operations/s of each product tried, by library and shape."""

    def best(self, later: "Limits") -> "Limits":
        """The higher of two measurements of each: what else runs on a machine only ever makes it look slower."""
        float32 = max(self, later, key=lambda limits: limits.float32)
        return Limits(
            float32=float32.float32,
            float32_by=float32.float32_by,
            linear=max(self.linear, later.linear),
            bfloat16=max(self.bfloat16, later.bfloat16),
            bandwidth=max(self.bandwidth, later.bandwidth),
            products={
                kind: {shape: max(rate, later.products[kind][shape]) for shape, rate in rates.items()}
                for kind, rates in self.products.items()
            },
        )


def measure_limits(device: torch.device, quick: bool = False) -> Limits:
    """The best of a few tries of each, some seconds in all.

    Args:
        device: what to measure; on a CPU with the threads that torch is set to.
        quick: the smallest square only.
    """
    squares = SQUARES[device.type][: 1 if quick else None]
    shapes = [Shape(side, side, side) for side in squares] + list(MODEL_PRODUCTS)
    onednn = device.type == "cpu" and torch.backends.mkldnn.is_available()
    with full_precision():
        rates = {
            Product(library, shape): product_rate(Product(library, shape), device)
            for library in LIBRARIES
            if library != ONEDNN or onednn
            for shape in shapes
        }
    float32 = max((product for product in rates if product.library != BFLOAT16), key=rates.__getitem__)
    products: dict[str, dict[str, float]] = {}
    for product, rate in rates.items():
        products.setdefault(product.library, {})["x".join(map(str, product.shape))] = rate
    return Limits(
        float32=rates[float32],
        float32_by=float32,
        linear=max(products[LINEAR].values()),
        bfloat16=max(products[BFLOAT16].values()),
        bandwidth=copy_rate(device),
        products=products,
    )


def product_rate(product: Product, device: torch.device) -> float:
    """Operations/s of the fastest of some calls."""
    work = product.work(device)
    timed(work, 1, device)
    return product.shape.operations / min(timed(work, 1, device) for _ in range(TRIES))


def dense_product(shape: Shape, device: torch.device, dtype: torch.dtype = torch.float32) -> Work:
    """A call that computes the product of a linear layer as the models here do."""
    x = torch.ones(shape.rows, shape.inputs, dtype=dtype, device=device)
    weight = torch.ones(shape.outputs, shape.inputs, dtype=dtype, device=device)
    return lambda: F.linear(x, weight)


def onednn_product(shape: Shape, device: torch.device) -> Work:
    """The same with oneDNN's own layout, on some processors more than twice as fast; conversions are not timed."""
    x = torch.ones(shape.rows, shape.inputs, device=device).to_mkldnn()
    weight = torch.ones(shape.outputs, shape.inputs, device=device)
    return lambda: F.linear(x, weight)


LINEAR, ONEDNN, BFLOAT16 = "float32, nn.Linear", "float32, oneDNN", "bfloat16, nn.Linear"
LIBRARIES: dict[str, Callable[[Shape, torch.device], Work]] = {
    LINEAR: dense_product,
    ONEDNN: onednn_product,
    BFLOAT16: partial(dense_product, dtype=torch.bfloat16),
}


def copy_rate(device: torch.device) -> float:
    """Bytes/s that a copy of a large tensor reads and writes."""
    source = torch.zeros(COPY_BYTES[device.type], dtype=torch.uint8, device=device)
    target: Tensor = torch.empty_like(source)
    target.copy_(source)
    return 2 * source.numel() / min(timed(lambda: target.copy_(source), 1, device) for _ in range(TRIES))


def describe(device: torch.device) -> dict[str, Any]:
    """Device, processor, threads and versions, as plain values."""
    memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
    return {
        **provenance(device),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "device_memory_bytes": memory,
    }
