"""Patches to vectors for the studies: one pass that gives every pool, with metadata and noise as asked."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from datasets.loader import BatchLoader, Part
from datasets.patches import Batch, PatchDataset
from models.config import ModelConfig
from models.moe_mae import MOEMAE
from models.pooling import POOLINGS
from utils.randomness import generator

Metadata = Literal["given", "missing", "shuffled"]
"""What the encoder is told: a patch's own metadata, the missing pair, or those of another patch of the split."""

_CHUNK = 1024


class TokenParts:
    """An embedder whose vectors hold the metadata tokens, CLS and the mean of the patch tokens: (B, (P + 1) * W).

    Every pool but "all" follows from them (`pooled`), so that one pass serves all.

    Args:
        tokens: from patches and metadata to all tokens (B, T * W).
        config: of the model.
    """

    def __init__(self, tokens: Callable[[Tensor, Tensor | None], Tensor], config: ModelConfig) -> None:
        self.tokens, self.config = tokens, config

    def __call__(self, images: Tensor, meta: Tensor | None) -> Tensor:
        tokens = self.tokens(images, meta).view(len(images), self.config.num_tokens, self.config.embed_dim)
        return torch.cat(
            [tokens[:, : self.config.num_prefix].flatten(1), tokens[:, self.config.num_prefix :].mean(dim=1)], dim=1
        )


class NoisyTokens:
    """All tokens before the final norm, with routing noise as in training; a function of the seed and the order."""

    def __init__(self, model: MOEMAE, seed: int) -> None:
        device = next(model.parameters()).device
        self.model, self.generator = model.eval(), generator(seed, "embedding noise", device=device)

    @torch.no_grad()
    def __call__(self, images: Tensor, meta: Tensor | None) -> Tensor:
        """(B, C, H, W) and (B, F, 2) to (B, T * W)."""
        return self.model.encode(images, meta, noise=True, generator=self.generator).pre_norm.float().flatten(1)


def pooled(parts: np.ndarray, pool: str, config: ModelConfig) -> np.ndarray:
    """The vectors of a pool from those of `TokenParts`.

    Args:
        parts: (N, (P + 1) * W), P = F + 1 tokens of metadata and CLS.
        pool: a key of `models.pooling.POOLINGS`, but "all".
        config: of the model that made them.
    """
    end = config.num_prefix * config.embed_dim
    prefix = parts[:, :end].reshape(len(parts), config.num_prefix, config.embed_dim)
    of_parts = POOLINGS[pool].of_parts
    if of_parts is None:
        raise ValueError(f"pool {pool!r} needs every token")
    return of_parts(prefix, parts[:, end:], config.num_patches)


class MetadataLoader:
    """A loader whose batches carry no metadata, or those of other patches.

    Args:
        loader: of the patches.
        metadata: see `Metadata`; "shuffled" is a permutation of the whole dataset.
        seed: of the permutation.
    """

    def __init__(self, loader: BatchLoader, metadata: Metadata, seed: int) -> None:
        self.loader, self.metadata, self.dataset = loader, metadata, loader.dataset
        self._shuffled = _shuffled_metadata(loader.dataset, seed) if metadata == "shuffled" else None

    def __len__(self) -> int:
        return len(self.loader)

    @property
    def skipped_fill(self) -> int:
        return self.loader.skipped_fill

    def batches(self, order: Sequence[int] | None = None, part: Part = Part()) -> Iterator[Batch]:  # noqa: B008
        for batch in self.loader.batches(order, part):
            if self.metadata == "missing" or batch.meta is None:
                yield batch._replace(meta=None)
            elif self._shuffled is not None:
                others = np.stack([self._shuffled[name] for name in batch.ids]) if batch.ids else batch.meta.cpu()
                yield batch._replace(meta=torch.as_tensor(others).to(batch.meta))
            else:
                yield batch


def _shuffled_metadata(dataset: PatchDataset, seed: int) -> dict[str, np.ndarray] | None:
    """Every patch's id to the metadata of another one, (F, 2); None where the dataset has none."""
    starts = range(0, len(dataset), _CHUNK)
    parts = [
        dataset.encode(dataset.gather(range(start, min(start + _CHUNK, len(dataset)))).columns) for start in starts
    ]
    known = [part.numpy() for part in parts if part is not None]
    if not known:
        return None
    order = torch.randperm(len(dataset), generator=generator(seed, "shuffled metadata")).numpy()
    return dict(zip(dataset.ids, np.concatenate(known)[order], strict=True))
