"""Widths that tensor cores like: weights padded with zeros on the way into a matrix product.

The parameters keep their true sizes, so the padding is zero in every step, has no gradient, and is in no checkpoint.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

ALIGNMENT = {"cuda": 8}
"""Multiple to which head and expert widths are padded, by device type; 1 where nothing is said."""

COMPILED_CPU_ALIGNMENT = 16
"""The same for expert widths in code compiled for a CPU, whose loops over an odd width end in scalar code."""


def aligned(width: int, device: torch.device) -> int:
    """The width rounded up to the device's multiple."""
    return _rounded_up(width, ALIGNMENT.get(device.type, 1))


def aligned_experts(width: int, device: torch.device) -> int:
    """The same for the width of an expert."""
    if device.type == "cpu" and torch.compiler.is_compiling():
        return _rounded_up(width, COMPILED_CPU_ALIGNMENT)
    return aligned(width, device)


def _rounded_up(width: int, multiple: int) -> int:
    return -(-width // multiple) * multiple


def pad_rows(weight: Tensor, groups: int, width: int) -> Tensor:
    """(groups * d, ...) rows to (groups * width, ...): zeros after the d rows of every group."""
    rows = weight.view(groups, -1, *weight.shape[1:])
    if rows.shape[1] == width:
        return weight
    return F.pad(rows, (0, 0) * (weight.dim() - 1) + (0, width - rows.shape[1])).flatten(0, 1)


def pad_columns(weight: Tensor, groups: int, width: int) -> Tensor:
    """(M, groups * d) columns to (M, groups * width): zeros after the d columns of every group."""
    columns = weight.view(weight.shape[0], groups, -1)
    if columns.shape[2] == width:
        return weight
    return F.pad(columns, (0, width - columns.shape[2])).flatten(1)
