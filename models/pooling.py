"""Poolings: the ways from an encoder's tokens to one vector a patch, in one table that every caller reads.

The tokens of a patch are those of its metadata fields, CLS as the last of this prefix, and one for each square of the
image, its patch tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor

Array = TypeVar("Array", np.ndarray, Tensor)


@dataclass(frozen=True)
class Pooling:
    """One way to a vector.

    Attributes:
        name: in configurations and on the command line.
        title: in reports and help texts.
        vector: from all tokens (B, T, D) and the number of prefix tokens to (B, width).
        count: how many tokens the vector is as long as, of the numbers of prefix and of patch tokens.
        from_parts: the same vector from the prefix (…, P, D), the mean of the patch tokens (…, D) and their number, to
            (…, width), in numpy or torch. It is linear in the patch tokens, so that applied to every single patch token
            it gives a map of vectors whose mean is the pooled one. None where the vector needs all tokens.
    """

    name: str
    title: str
    vector: Callable[[Tensor, int], Tensor]
    count: Callable[[int, int], int]
    from_parts: Callable[..., np.ndarray | Tensor] | None = None


def _cls_of_parts(prefix: Array, patches: Array, number: int) -> Array:
    return prefix[..., -1, :]


def _mean_of_parts(prefix: Array, patches: Array, number: int) -> Array:
    return (prefix.sum(-2) + number * patches) / (prefix.shape[-2] + number)


def _patch_mean_of_parts(prefix: Array, patches: Array, number: int) -> Array:
    return patches


def _prefix_of_parts(prefix: Array, patches: Array, number: int) -> Array:
    return prefix.reshape(*prefix.shape[:-2], -1)


_ROWS = (
    Pooling(
        "cls",
        "CLS token",
        lambda tokens, prefix: tokens[:, prefix - 1],
        lambda prefix, patches: 1,
        _cls_of_parts,
    ),
    Pooling(
        "mean",
        "mean of tokens",
        lambda tokens, prefix: tokens.mean(dim=1),
        lambda prefix, patches: 1,
        _mean_of_parts,
    ),
    Pooling(
        "patch_mean",
        "mean of patch tokens",
        lambda tokens, prefix: tokens[:, prefix:].mean(dim=1),
        lambda prefix, patches: 1,
        _patch_mean_of_parts,
    ),
    Pooling(
        "meta_cls",
        "metadata and CLS tokens",
        lambda tokens, prefix: tokens[:, :prefix].flatten(1),
        lambda prefix, patches: prefix,
        _prefix_of_parts,
    ),
    Pooling(
        "all",
        "all tokens",
        lambda tokens, prefix: tokens.flatten(1),
        lambda prefix, patches: prefix + patches,
    ),
)

POOLINGS = {row.name: row for row in _ROWS}
"""Name to pooling, in the order of reports."""

POOLS = tuple(POOLINGS)

MAP_POOLS = tuple(name for name, row in POOLINGS.items() if row.from_parts is not None)
"""Those that give a vector for every patch token too, and so a map."""


def pooling_of(name: str, among: tuple[str, ...] = POOLS) -> Pooling:
    """The pooling of a name.

    Raises:
        ValueError: for a name that is not `among` those wanted.
    """
    if name not in among:
        raise ValueError(f"unknown pool {name!r}; use {', '.join(among[:-1])} or {among[-1]}")
    return POOLINGS[name]


def token_count(pool: str, num_prefix: int, num_patches: int) -> int:
    """How many tokens long an embedding is: its width is this times the model's."""
    return pooling_of(pool).count(num_prefix, num_patches)
