"""How the tokens of a patch become one vector: one row of `POOLINGS` each.

Dimensions: B patches, N patch tokens, P tokens before them (metadata, then CLS), T = P + N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:  # command lines list this table without waiting for PyTorch; a config names a pooling of it
    from torch import Tensor

    from models.config import ModelConfig


LEAST_SPREAD = 1e-3
"""Added to a spread before its logarithm: of one visible patch it is 0."""
NORM_EPSILON = 1e-5
"""Of the model's norms."""


class Pooling(NamedTuple):
    """One way to pool."""

    title: str
    """For tables and figures."""
    tokens_used: Callable[[ModelConfig], int]
    """How many tokens' width a vector has."""
    of_tokens: Callable[[Tensor, int, Tensor | None], Tensor]
    """(B, T, D) tokens, P, and which patches are visible, (B, N) bool or None for all, to (B, W)."""
    of_parts: Callable[[np.ndarray, np.ndarray, int], np.ndarray] | None
    """The same from the (B, P, D) prefix, the (B, D) mean of the patch tokens, and N; None where that is not enough."""
    of_patches: Callable[[Tensor, int, Tensor | None], Tensor] | None
    """The same to a vector for every patch, (B, N, W), whose mean is the pooled one: what a cell of a map
    holds. None where cells have no such vector."""


def _mean_of_parts(prefix: np.ndarray, patches: np.ndarray, count: int) -> np.ndarray:
    total = prefix.sum(axis=1, dtype=np.float64) + count * patches.astype(np.float64)
    return (total / (prefix.shape[1] + count)).astype(np.float32)


def _mean_by_patch(tokens: Tensor, P: int, visible: Tensor | None) -> Tensor:
    """Every patch's own token, with those of the prefix shared out among the patches."""
    patches = tokens[:, P:]
    return (tokens[:, :P].sum(dim=1, keepdim=True) + patches.shape[1] * patches) / tokens.shape[1]


def _spread(tokens: Tensor, P: int, visible: Tensor | None) -> Tensor:
    """(B, D) standard deviations over the visible patch tokens; 0 where there is only one."""
    spread = tokens[:, P:].std(dim=1, correction=0)
    if visible is None:
        return spread
    # Hidden tokens are the mean of the others: they add nothing to the sum of squares, only to the count.
    return spread * (visible.shape[1] / visible.sum(dim=1, keepdim=True).clamp(min=1)).sqrt()


def _side_by_side(*parts: Tensor, dim: int = -1) -> Tensor:
    import torch

    return torch.cat(parts, dim=dim)


def _cls_mean_std(tokens: Tensor, P: int, visible: Tensor | None) -> Tensor:
    return _side_by_side(tokens[:, P - 1], tokens[:, P:].mean(dim=1), _spread(tokens, P, visible))


def _meta_mean(tokens: Tensor, P: int) -> Tensor:
    """(B, D) mean of the metadata tokens, or (B, 0) of a model without metadata."""
    return tokens[:, : P - 1].mean(dim=1) if P > 1 else tokens[:, 0, :0]


def _before_patches(tokens: Tensor, P: int) -> Tensor:
    """(B, 3 D): the mean of the metadata tokens, CLS, and CLS centred and scaled as by the final norm."""
    cls = tokens[:, P - 1]
    centred = cls - cls.mean(dim=1, keepdim=True)
    scaled = centred / (centred.square().mean(dim=1, keepdim=True) + NORM_EPSILON).sqrt()
    return _side_by_side(_meta_mean(tokens, P), cls, scaled)


def _log_spread(tokens: Tensor, P: int, visible: Tensor | None) -> Tensor:
    """(B, D) logarithms of `_spread`, which is far from normal over images."""
    return (_spread(tokens, P, visible) + LEAST_SPREAD).log()


def _every_patch_between(tokens: Tensor, P: int, before: Tensor, after: Tensor) -> Tensor:
    """Every patch's own token between vectors (B, W) of the whole window."""
    return _side_by_side(_for_every_patch(before, tokens, P), tokens[:, P:], _for_every_patch(after, tokens, P))


def _for_every_patch(vectors: Tensor, tokens: Tensor, P: int) -> Tensor:
    """(B, W) to (B, N, W)."""
    return vectors.unsqueeze(1).expand(-1, tokens.shape[1] - P, -1)


POOLINGS = {
    "cls": Pooling(
        "CLS token",
        lambda config: 1,
        lambda tokens, P, visible: tokens[:, P - 1],
        lambda prefix, patches, N: prefix[:, -1],
        lambda tokens, P, visible: _for_every_patch(tokens[:, P - 1], tokens, P),
    ),
    "mean": Pooling(
        "mean of tokens",
        lambda config: 1,
        lambda tokens, P, visible: tokens.mean(dim=1),
        _mean_of_parts,
        _mean_by_patch,
    ),
    "patch_mean": Pooling(
        "mean of patch tokens",
        lambda config: 1,
        lambda tokens, P, visible: tokens[:, P:].mean(dim=1),
        lambda prefix, patches, N: patches,
        lambda tokens, P, visible: tokens[:, P:],
    ),
    "meta_cls": Pooling(
        "metadata and CLS tokens",
        lambda config: config.num_prefix,
        lambda tokens, P, visible: tokens[:, :P].flatten(1),
        lambda prefix, patches, N: prefix.reshape(len(prefix), -1),
        lambda tokens, P, visible: _for_every_patch(tokens[:, :P].flatten(1), tokens, P),
    ),
    "cls_mean_std": Pooling(
        "CLS, mean and spread of patch tokens",
        lambda config: 3,
        _cls_mean_std,
        None,
        lambda tokens, P, visible: _every_patch_between(tokens, P, tokens[:, P - 1], _spread(tokens, P, visible)),
    ),
    "meta_cls_mean_std": Pooling(
        "mean of metadata tokens, CLS, mean and spread of patch tokens",
        lambda config: 4 if config.meta_fields else 3,
        lambda tokens, P, visible: _side_by_side(_meta_mean(tokens, P), _cls_mean_std(tokens, P, visible)),
        None,
        lambda tokens, P, visible: _every_patch_between(
            tokens, P, _side_by_side(_meta_mean(tokens, P), tokens[:, P - 1]), _spread(tokens, P, visible)
        ),
    ),
    "summary": Pooling(
        "mean of metadata tokens, CLS before and after its norm, mean and log spread of patch tokens",
        lambda config: 5 if config.meta_fields else 4,
        lambda tokens, P, visible: _side_by_side(
            _before_patches(tokens, P), tokens[:, P:].mean(dim=1), _log_spread(tokens, P, visible)
        ),
        None,
        lambda tokens, P, visible: _every_patch_between(
            tokens, P, _before_patches(tokens, P), _log_spread(tokens, P, visible)
        ),
    ),
    "all": Pooling(
        "all tokens", lambda config: config.num_tokens, lambda tokens, P, visible: tokens.flatten(1), None, None
    ),
}
"""Every pooling by the name that configs, command lines and `MOEMAE.embed` give it."""

MAP_POOLINGS = tuple(name for name, pooling in POOLINGS.items() if pooling.of_patches is not None)
"""Those that the cells of a map can hold."""

WINDOW_POOLINGS = ("cls", "meta_cls")
"""Those that give all cells of a window the same vector."""

DEFAULT_POOL = "cls"
"""Of weights that do not say which pooling is best for them (`ModelConfig.pool`)."""


def pool_tokens(tokens: Tensor, pool: str, num_prefix: int, visible: Tensor | None = None) -> Tensor:
    """Tokens to one vector a patch, float32.

    In the place of a hidden patch's token stands the mean of the visible ones: means over patches are means over what
    was seen, and the metadata and CLS tokens keep their share in a mean of all.

    Args:
        tokens: (B, T, D) of whole patches, before the final norm.
        pool: a key of `POOLINGS`.
        num_prefix: P, `ModelConfig.num_prefix`.
        visible: (B, N) bool, see `MOEMAE.encode`; None means all.

    Returns:
        (B, W), W as `vector_width` says.
    """
    tokens = tokens.float()
    if visible is not None:
        tokens = _hidden_by_mean(tokens, num_prefix, visible)
    return POOLINGS[pool].of_tokens(tokens, num_prefix, visible)


def pool_every_patch(tokens: Tensor, pool: str, num_prefix: int, visible: Tensor | None = None) -> Tensor:
    """Tokens as pool "all" gives them, unflattened, to a vector for every patch whose mean is the pooled one.

    Args:
        tokens: (B, T, D), those of hidden patches replaced.
        pool: one of `MAP_POOLINGS`.
        num_prefix, visible: as for `pool_tokens`.

    Returns:
        (B, N, W)
    """
    of_patches = POOLINGS[pool].of_patches
    if of_patches is None:
        raise ValueError(f"pool {pool!r} is not for maps; use {', '.join(MAP_POOLINGS)}")
    return of_patches(tokens, num_prefix, visible)


def _hidden_by_mean(tokens: Tensor, num_prefix: int, visible: Tensor) -> Tensor:
    """The tokens with the mean of an image's (B, N) visible patches in the place of its hidden ones."""
    patches, seen = tokens[:, num_prefix:], visible.unsqueeze(-1)
    mean = (patches * seen).sum(dim=1, keepdim=True) / seen.sum(dim=1, keepdim=True).clamp(min=1)
    return _side_by_side(tokens[:, :num_prefix], patches.where(seen, mean), dim=1)


def vector_width(config: ModelConfig, pool: str) -> int:
    """Numbers in an embedding."""
    return config.embed_dim * POOLINGS[pool].tokens_used(config)
