"""How much each expert adds to a token, and what changes for the token, and for an embedding, without it.

Everything runs through the model's own blocks. Dimensions: B images, S tokens (metadata, CLS, patches), D width, E
experts of a block, L blocks with experts.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from datasets.loader import BatchLoader
from models.encoder import Block, Encoder
from models.masking import visible_unless_all
from models.moe_mae import MOEMAE
from models.pooling import pool_tokens
from utils.errors import DataError


class Contribution(NamedTuple):
    """What the experts of one block added to each token."""

    block: int
    experts: Tensor
    """(B, S, E) ||g_e f_e(x)||, 0 where an expert was not chosen."""
    update: Tensor
    """(B, S) norm of their sum, which is what the block adds; less than the sum of the norms where they disagree."""
    residual: Tensor
    """(B, S) norm of the token that it is added to."""


class AblationMap(NamedTuple):
    """Where on images an expert is missed: relative changes of patch tokens when it is removed from its block.

    Its tokens go to the best of the other experts, so an expert whose neighbour does the same is not missed. Norm,
    attention and residual of the block, and all later blocks, are the model's own.
    """

    block: np.ndarray
    """(B, grid, grid) ||y' - y|| / ||y|| after the block."""
    end: np.ndarray
    """(B, grid, grid) the same after the block that embeddings are read from, the last one as published."""


class EmbeddingsWithout(NamedTuple):
    """The embeddings of the same images by the whole model and without each expert in turn."""

    whole: np.ndarray
    """(n, D)"""
    removed: tuple[tuple[int, int], ...]
    """(block, expert) of each of the M removals."""
    without: np.ndarray
    """(M, n, D)"""
    labels: np.ndarray | None
    ids: list[str]


def without_expert(layer: Block, expert: int) -> Block:
    """A copy of a block in which one expert is never chosen: its gate's bias is minus infinity.

    Its tokens go to the best of the other experts. Residuals, norms and everything else are the block's own.

    Raises:
        ValueError: when the block has no such expert, or no other one.
    """
    without = copy.deepcopy(layer)
    gate = without.moe.gate
    experts = 1 if gate is None else gate.Wg.out_features
    if gate is None or not 0 <= expert < experts:
        raise ValueError(f"cannot remove expert {expert} of a block with {experts}")
    with torch.no_grad():
        gate.Wg.bias[expert] = -torch.inf
    return without


def encoder_blocks(encoder: Encoder) -> list[Block]:
    """The encoder's blocks, in order."""
    return [layer for layer in encoder.layers if isinstance(layer, Block)]


@torch.no_grad()
def block_inputs(encoder: Encoder, images: Tensor, meta: Tensor | None, visible: Tensor | None = None) -> list[Tensor]:
    """The tokens (B, S, D) before each block and after the last, without routing noise; `visible` as for `encode`."""
    if meta is None:
        meta = images.new_zeros(len(images), len(encoder.meta_fields), 2)
    tokens = [encoder.embed(images, meta, None, visible=visible)]
    for layer in encoder.layers:
        tokens.append(layer(tokens[-1], hidden=encoder.hidden_tokens(visible))[0])
    return tokens


@torch.no_grad()
def contributions(
    model: MOEMAE, images: Tensor, meta: Tensor | None, visible: Tensor | None = None
) -> Iterator[Contribution]:
    """The contributions of every block with experts, block by block.

    Args:
        model: in evaluation mode.
        images: (B, C, H, W), normalised.
        meta: (B, F, 2) or None.
        visible: (B, N) bool, see `MOEMAE.encode`.
    """
    tokens = block_inputs(model.encoder, images, meta, visible)
    hidden = model.encoder.hidden_tokens(visible)
    for number, (layer, before, after) in enumerate(
        zip(encoder_blocks(model.encoder), tokens, tokens[1:], strict=False)
    ):
        gate_of_block = layer.moe.gate
        if gate_of_block is None:
            continue
        residual = before + layer.attn(layer.norm1(before), hidden=hidden)
        x = layer.norm2(residual).flatten(0, 1)  # (B * S, D), what gate and experts see
        gates = gate_of_block(x).gates
        norms = []
        for expert in range(gates.shape[1]):
            gate = gates[:, expert : expert + 1]
            alone = torch.zeros_like(gates).index_copy_(1, torch.tensor([expert], device=gates.device), gate)
            norms.append(layer.moe.experts(x, alone, gate).norm(dim=-1))
        per_token = torch.stack(norms, dim=-1).unflatten(0, before.shape[:2])
        yield Contribution(number, per_token, (after - residual).norm(dim=-1), residual.norm(dim=-1))


def contribution_shares(model: MOEMAE, loader: BatchLoader) -> tuple[np.ndarray, np.ndarray]:
    """How what the experts add to patch tokens is shared among them, and how much it is; means over tokens.

    Returns:
        (L, E) each expert's share of the norms that the experts of its block contribute, NaN where a block has no
        such expert: beside its usage, since an expert may be chosen often and add little. And (L,) the norm of what
        they add together, relative to that of the token it is added to.

    Raises:
        DataError: when no image has a valid pixel.
    """
    experts = [count for count in model.config.experts if count > 1]
    shares = np.full((len(experts), max(experts)), np.nan)
    for row, count in enumerate(experts):
        shares[row, :count] = 0.0
    updates = np.zeros(len(experts))
    seen = 0
    for batch in tqdm(loader.batches(), total=len(loader), desc="contributions", leave=False, disable=None):
        if not batch.ids:
            continue
        seen += len(batch.ids)
        visible = visible_unless_all(batch.valid, model.config.patch_size)
        for row, found in enumerate(contributions(model, batch.images, batch.meta, visible)):
            norms = found.experts[:, model.config.num_prefix :].double()
            mine = norms / norms.sum(dim=-1, keepdim=True).clamp_min(1e-12)
            shares[row, : norms.shape[-1]] += _mean_over_seen(mine, visible).sum(dim=0).cpu().numpy()
            relative = (found.update / found.residual)[:, model.config.num_prefix :].double()
            updates[row] += _mean_over_seen(relative.unsqueeze(-1), visible).sum().item()
    if not seen:
        raise DataError("none of these images has a single valid pixel: there is no contribution to measure")
    return shares / seen, updates / seen


@torch.no_grad()
def ablation_map(
    model: MOEMAE, images: Tensor, meta: Tensor | None, block: int, expert: int, visible: Tensor | None = None
) -> AblationMap:
    """Where one expert is missed.

    Args:
        model: in evaluation mode.
        images: (B, C, H, W), normalised.
        meta: (B, F, 2) or None.
        block, expert: of the expert removed.
        visible: (B, N) bool, see `MOEMAE.encode`; None means all.

    Raises:
        ValueError: as `without_expert`.
    """
    tokens = block_inputs(model.encoder, images, meta, visible)
    hidden = model.encoder.hidden_tokens(visible)
    after = without_expert(encoder_blocks(model.encoder)[block], expert)(tokens[block], hidden=hidden)[0]
    end = _read(model.encoder, tokens, after, block, hidden)
    grid = model.config.grid

    def change(now: Tensor, whole: Tensor) -> np.ndarray:
        relative = (now - whole).norm(dim=-1) / whole.norm(dim=-1)
        return relative[:, model.config.num_prefix :].reshape(-1, grid, grid).cpu().numpy()

    return AblationMap(change(after, tokens[block + 1]), change(end, tokens[model.config.blocks_read]))


@torch.no_grad()
def embeddings_without_experts(model: MOEMAE, loader: BatchLoader, pool: str) -> EmbeddingsWithout:
    """Embed a split once whole and once without each expert of the encoder.

    The blocks before the expert's are computed once for all.

    Args:
        model: in evaluation mode.
        loader: the split's batches.
        pool: a key of `models.pooling.POOLINGS`.

    Raises:
        DataError: when no image has a valid pixel.
    """
    encoder = model.encoder
    removals = [(b, e) for b, count in enumerate(model.config.experts) if count > 1 for e in range(count)]
    blocks = encoder_blocks(encoder)
    layers = {(block, expert): without_expert(blocks[block], expert) for block, expert in removals}
    whole, without, labels, ids = [], [], [], []
    for batch in tqdm(loader.batches(), total=len(loader), desc="without each expert", leave=False, disable=None):
        if not batch.ids:
            continue
        visible = visible_unless_all(batch.valid, model.config.patch_size)
        hidden = encoder.hidden_tokens(visible)
        tokens = block_inputs(encoder, batch.images, batch.meta, visible)
        ends = (
            _read(encoder, tokens, layers[removed](tokens[removed[0]], hidden=hidden)[0], removed[0], hidden)
            for removed in removals
        )
        without.append(np.stack([_pooled(encoder, end, pool, visible) for end in ends]))
        whole.append(_pooled(encoder, tokens[encoder.blocks_read], pool, visible))
        labels.append(None if batch.labels is None else batch.labels.cpu().numpy())
        ids += batch.ids
    if not ids:
        raise DataError("none of these images has a single valid pixel: there is nothing to embed")
    found = None if labels[0] is None else np.concatenate(labels)
    return EmbeddingsWithout(np.concatenate(whole), tuple(removals), np.concatenate(without, axis=1), found, ids)


def _mean_over_seen(values: Tensor, visible: Tensor | None) -> Tensor:
    """(B, N, E) values of patches to the mean over the visible ones, (B, E)."""
    if visible is None:
        return values.mean(dim=1)
    seen = visible.unsqueeze(-1)
    return (values * seen).sum(dim=1) / seen.sum(dim=1)


def _read(encoder: Encoder, tokens: Sequence[Tensor], after: Tensor, block: int, hidden: Tensor | None) -> Tensor:
    """The tokens that embeddings are read from, where block number `block` gives `after`; else they are `tokens`."""
    if block >= encoder.blocks_read:
        return tokens[encoder.blocks_read]
    for layer in list(encoder.layers)[block + 1 : encoder.blocks_read]:
        after = layer(after, hidden=hidden)[0]
    return after


def _pooled(encoder: Encoder, tokens: Tensor, pool: str, visible: Tensor | None) -> np.ndarray:
    return pool_tokens(tokens, pool, encoder.num_prefix, visible).cpu().numpy()
