"""Zero-padding of weights to GEMM-aligned widths, on the way into a matrix product; `Backend` says which widths.

The parameters keep their true sizes, so the padding is zero in every step, has no gradient, and is in no checkpoint.
"""

import torch.nn.functional as F
from torch import Tensor


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
