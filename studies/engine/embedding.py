"""Embeddings for the studies: one pass serves every pooling, with metadata and noise as asked."""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from datasets.loader import BatchLoader, Part
from datasets.patches import Batch, PatchDataset
from embed.dataset import PatchEmbedder
from models.config import ModelConfig
from models.masking import visible_unless_all
from models.moe_mae import MOEMAE
from models.pooling import POOLINGS, pool_tokens
from transformation.augmentations import BAND_SETS
from transformation.present_bands import PresentBands
from utils.randomness import generator

Metadata = Literal["given", "missing", "shuffled"]
"""What the encoder is conditioned on: a patch's own metadata, none, or those of another patch of the split."""


class TokenParts:
    """An embedder whose vectors hold the metadata tokens, CLS and the mean of the patch tokens: (B, (P + 1) * W).

    Every pool but "all" follows from them (`pooled`), so that one pass serves all.

    Args:
        tokens: from patches, metadata, valid pixels and given bands to all tokens (B, T * W).
        config: of the model.
    """

    def __init__(self, tokens: PatchEmbedder, config: ModelConfig) -> None:
        self.tokens, self.config = tokens, config

    def __call__(
        self, images: Tensor, meta: Tensor | None, valid: Tensor | None, bands: Tensor | None = None
    ) -> Tensor:
        tokens = self.tokens(images, meta, valid, bands).view(
            len(images), self.config.num_tokens, self.config.embed_dim
        )
        return torch.cat(
            [tokens[:, : self.config.num_prefix].flatten(1), tokens[:, self.config.num_prefix :].mean(dim=1)], dim=1
        )


class NoisyTokens:
    """All tokens before the final norm, with routing noise as in training; a function of the seed and the order."""

    def __init__(self, model: MOEMAE, seed: int) -> None:
        device = next(model.parameters()).device
        self.model, self.generator = model.eval(), generator(seed, "embedding noise", device=device)

    @torch.no_grad()
    def __call__(
        self, images: Tensor, meta: Tensor | None, valid: Tensor | None, bands: Tensor | None = None
    ) -> Tensor:
        """(B, C, H, W), (B, F, 2), (B, H, W) valid pixels and (B, C) given bands to (B, T * W)."""
        visible = None if valid is None else visible_unless_all(valid, self.model.config.patch_size)
        noise = {"noise": True, "generator": self.generator}
        encoded = self.model.encode(images, meta, visible=visible, bands=bands, to_read=True, **noise)
        return pool_tokens(encoded.pre_norm, "all", encoded.num_prefix, encoded.visible)


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


class MetadataLoader(BatchLoader):
    """A loader whose batches carry no metadata, or those of other patches.

    Args:
        loader: of the patches; its reader is shared.
        metadata: see `Metadata`; "shuffled" is a permutation of the whole dataset.
        seed: of the permutation.
    """

    def __init__(self, loader: BatchLoader, metadata: Metadata, seed: int) -> None:
        vars(self).update(vars(loader))  # no second reader: it may hold the patches on the device
        self.metadata = metadata
        self._shuffled = _shuffled_metadata(loader.dataset, seed) if metadata == "shuffled" else None

    def batches(self, order: Sequence[int] | None = None, part: Part = Part()) -> Iterator[Batch]:  # noqa: B008
        for batch in super().batches(order, part):
            if self.metadata == "missing" or batch.meta is None:
                yield batch._replace(meta=None)
            elif self._shuffled is not None:
                others = np.stack([self._shuffled[name] for name in batch.ids]) if batch.ids else batch.meta.cpu()
                yield batch._replace(meta=torch.as_tensor(others).to(batch.meta))
            else:
                yield batch


class BandsLoader(BatchLoader):
    """A loader whose batches say that the encoder is given some bands alone.

    Args:
        loader: of the patches; its reader is shared.
        bands: a key of `transformation.augmentations.BAND_SETS`.
    """

    def __init__(self, loader: BatchLoader, bands: str) -> None:
        vars(self).update(vars(loader))
        self._given = PresentBands.named(BAND_SETS[bands])

    def batches(self, order: Sequence[int] | None = None, part: Part = Part()) -> Iterator[Batch]:  # noqa: B008
        for batch in super().batches(order, part):
            given = self._given.mask(len(batch.images), batch.images.device)
            yield batch._replace(bands=given if batch.bands is None or given is None else given & batch.bands)


def _shuffled_metadata(dataset: PatchDataset, seed: int) -> dict[str, np.ndarray] | None:
    """Every patch's id to the metadata of another one, (F, 2); None where the dataset has none."""
    meta = dataset.encode(dataset.metadata())
    if meta is None or not meta.any():
        return None
    order = torch.randperm(len(dataset), generator=generator(seed, "shuffled metadata")).numpy()
    return dict(zip(dataset.ids, meta.numpy()[order], strict=True))
