"""What the experts do: statistics of the routing that ran, as `MOEMAE.encode` returns it, without routing noise.

Dimensions: n images, S tokens an image, L blocks with experts, E experts of a block, k chosen experts a token,
C classes. Blocks differ in E; matrices over blocks are as wide as the widest and NaN where a block has no such expert.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import entr
from tqdm import tqdm

from datasets.loader import BatchLoader
from eval.statistics.block_permutation import permute_blocks
from models.losses import counted_tokens
from models.masking import visible_unless_all
from models.moe_mae import MOEMAE
from utils.errors import ConfigError, DataError
from utils.metadata import PUBLISHED_FIELDS


class BlockRouting(NamedTuple):
    """What one block's gate chose."""

    block: int
    """Index in the encoder."""
    experts: int
    expert_idx: np.ndarray
    """(n, S, k) int16 chosen experts, best first; -1 for the token of a hidden patch, which counts nowhere."""
    gates: np.ndarray
    """(n, S, k) float32 their gates."""


class RoutingRecord(NamedTuple):
    """The routing of n images: 6 bytes for each image, token, block and chosen expert."""

    blocks: tuple[BlockRouting, ...]
    """One per block with more than one expert."""
    labels: np.ndarray | None
    """(n, C) bool; None where the dataset was read without labels."""
    classes: tuple[str, ...]
    ids: list[str]
    meta_fields: tuple[str, ...] = PUBLISHED_FIELDS
    """Of the model: its metadata tokens come first, then CLS, then the patches."""

    @property
    def num_prefix(self) -> int:
        """Tokens before those of the patches."""
        return len(self.meta_fields) + 1

    @property
    def token_kinds(self) -> tuple[str, ...]:
        """What to call the kinds of tokens, in their order."""
        return (*self.meta_fields, "CLS", "patches")

    @property
    def known_labels(self) -> np.ndarray:
        """(n, C) bool.

        Raises:
            ValueError: when the dataset was read without labels.
        """
        if self.labels is None:
            raise ValueError("the routing was recorded without labels: build the dataset with labels")
        return self.labels


class RoutingEntropy(NamedTuple):
    """Entropies as shares of their largest possible value, (L,) each."""

    gates: np.ndarray
    """Mean entropy of a token's gates over ln k: 1 mixes the chosen experts evenly, 0 uses only the best."""
    usage: np.ndarray
    """Entropy of `expert_usage` over ln E: 1 uses all experts of the block equally often."""


class AssignmentMap(NamedTuple):
    """Where on one image the experts are at work in one block."""

    experts: np.ndarray
    """(grid, grid) best expert of every patch token."""
    gates: np.ndarray
    """(grid, grid) its gate."""


class LabelInformation(NamedTuple):
    """Normalised mutual information (NMI) of a patch token's best expert and its image's label."""

    nmi: np.ndarray
    """(L, C) NMI with "the image has this class"."""
    shuffled: np.ndarray
    """(R, L, C) the null distribution: the same with labels permuted between blocks of neighbouring images, R times."""


@torch.no_grad()
def record_routing(model: MOEMAE, loader: BatchLoader, order: Sequence[int] | None = None) -> RoutingRecord:
    """Encode whole images and keep what every gate decided.

    Args:
        model: in evaluation mode.
        loader: the images; labels are kept where its dataset has them.
        order: which images of the dataset; None means all.

    Raises:
        ConfigError: when no block of the model has more than one expert.
        DataError: when no image has a valid pixel.
    """
    config, dataset = model.config, loader.dataset
    with_experts = [block for block, experts in enumerate(config.experts) if experts > 1]
    if not with_experts:
        raise ConfigError("the model has one expert in every block: there is no routing to analyse")
    parts: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {block: [] for block in with_experts}
    labels, ids = [], []
    for batch in tqdm(loader.batches(order), desc="routing", leave=False, disable=None):
        if not batch.ids:
            continue
        visible = visible_unless_all(batch.valid, config.patch_size)
        encoded = model.encode(batch.images, batch.meta, visible=visible, bands=batch.bands, noise=False)
        hidden = ~counted_tokens(batch.valid, encoded).bool().unsqueeze(-1)
        for block, routing in enumerate(encoded.routing):
            if routing is not None:
                gates = routing.gates.gather(1, routing.expert_idx).float().masked_fill(hidden, 0.0)
                chosen = routing.expert_idx.to(torch.int16).masked_fill(hidden, -1)
                shape = (len(batch.ids), config.num_tokens, config.k)
                parts[block].append((chosen.view(shape).cpu().numpy(), gates.view(shape).cpu().numpy()))
        labels.append(None if batch.labels is None else batch.labels.cpu().numpy())
        ids += batch.ids
    if not ids:
        raise DataError("none of these images has a single valid pixel: there is no routing to analyse")
    blocks = tuple(
        BlockRouting(block, config.experts[block], *map(np.concatenate, zip(*parts[block], strict=True)))
        for block in with_experts
    )
    hot = None if dataset.labels is None else _multi_hot(np.concatenate(labels), len(dataset.classes))
    return RoutingRecord(blocks, hot, dataset.classes, ids, model.config.meta_fields)


def choices_by_image(expert_idx: np.ndarray, experts: int) -> np.ndarray:
    """How often the tokens of every image chose each expert: (n, tokens, k) to (n, E)."""
    return np.stack([(expert_idx == expert).sum(axis=(1, 2)) for expert in range(experts)], axis=1)


def best_by_image(record: RoutingRecord) -> list[np.ndarray]:
    """Of every block how many of an image's patch tokens have each expert as their best, (n, E)."""
    return [choices_by_image(block.expert_idx[:, record.num_prefix :, :1], block.experts) for block in record.blocks]


def expert_usage(record: RoutingRecord) -> np.ndarray:
    """Each expert's share of all choices, (L, E); a row sums to 1 (a token makes k choices)."""
    return _padded([_shares(choices_by_image(block.expert_idx, block.experts).sum(axis=0)) for block in record.blocks])


def dead_experts(record: RoutingRecord) -> list[tuple[int, int]]:
    """(block, expert) of those that no token chose."""
    return [
        (block.block, int(expert))
        for block in record.blocks
        for expert in np.flatnonzero(choices_by_image(block.expert_idx, block.experts).sum(axis=0) == 0)
    ]


def routing_entropy(record: RoutingRecord) -> RoutingEntropy:
    """How evenly a token mixes its experts, and how evenly a block uses its experts."""
    gates, usage = [], []
    for block, shares in zip(record.blocks, expert_usage(record), strict=True):
        k = block.gates.shape[-1]
        mixed = _entropy(_shares(block.gates.astype(np.float64)))
        gates.append(np.nanmean(mixed) / np.log(k) if k > 1 else 0.0)
        usage.append(_entropy(shares[: block.experts]) / np.log(block.experts))
    return RoutingEntropy(np.array(gates), np.array(usage))


def usage_by_token(record: RoutingRecord) -> np.ndarray:
    """Each expert's share of the choices of every kind of token, (L, F + 2, E) as in `token_kinds`."""
    return _padded(
        [
            np.stack(
                [
                    _shares(choices_by_image(tokens, block.experts).sum(axis=0))
                    for tokens in np.split(block.expert_idx, range(1, record.num_prefix + 1), axis=1)
                ]
            )
            for block in record.blocks
        ]
    )


def usage_by_class(record: RoutingRecord) -> np.ndarray:
    """Each expert's share of the choices that the patch tokens of a class's images made, (L, C, E).

    An image counts for every class it has. Rows of classes without an image are NaN.
    """
    hot = record.known_labels.astype(np.float64)
    return _padded(
        [
            _shares(hot.T @ choices_by_image(block.expert_idx[:, record.num_prefix :], block.experts))
            for block in record.blocks
        ]
    )


def assignment_map(record: RoutingRecord, image: int, block: int) -> AssignmentMap:
    """The best expert of every patch token of one image (-1 where it is hidden), and its gate.

    Args:
        record: of all images.
        image: position in the record.
        block: index in the encoder.

    Raises:
        ValueError: when that block has no experts to choose from.
    """
    found = next((routing for routing in record.blocks if routing.block == block), None)
    if found is None:
        raise ValueError(f"block {block} has no experts to choose from; {[b.block for b in record.blocks]} have")
    best, gates = (values[image, record.num_prefix :, 0] for values in (found.expert_idx, found.gates))
    side = round(len(best) ** 0.5)
    return AssignmentMap(best.reshape(side, side).astype(np.int64), gates.reshape(side, side))


def label_information(
    record: RoutingRecord, seed: int, shuffles: int = 20, blocks: np.ndarray | None = None
) -> LabelInformation:
    """Normalised mutual information between the best expert of a patch token and its image's label, and its null.

    A token's label is its image's, class by class: "the image has this class", yes or no.

        NMI(X, Y) = 2 I(X; Y) / (H(X) + H(Y))

    The tokens of an image are correlated, so even meaningless labels share some information with them. The null
    distribution therefore permutes the labels of whole images, not of tokens, and of whole blocks of neighbouring
    images (spatial-block permutation test, `eval.statistics.block_permutation`); only an excess over it is evidence.

    Args:
        record: with labels.
        seed: of the permutations.
        shuffles: how many permutations.
        blocks: (n,) of `spatial_blocks.neighbour_blocks`; None takes the images as independent of each other.

    Raises:
        ValueError: when the dataset was read without labels.
    """
    labels = record.known_labels
    best = best_by_image(record)
    rng = np.random.default_rng(seed)
    several = [labels, *(labels[permute_blocks(blocks, len(labels), rng)] for _ in range(shuffles))]
    found = np.array([[_binary_nmi(counts, hot) for counts in best] for hot in several])
    return LabelInformation(found[0], found[1:])


def mutual_information(joint: np.ndarray) -> np.ndarray:
    """NMI = 2 I(X; Y) / (H(X) + H(Y)) of joint shares or counts (..., X, Y); 0 where nothing has any entropy."""
    shares = joint / np.maximum(joint.sum(axis=(-2, -1), keepdims=True), 1e-300)  # of nothing: 0, like the entropy
    total = _entropy(shares.sum(axis=-1)) + _entropy(shares.sum(axis=-2))
    information = total - _entropy(shares.reshape(*shares.shape[:-2], -1))
    return np.divide(2 * information, total, out=np.zeros_like(total), where=total > 0)


def _binary_nmi(counts: np.ndarray, hot: np.ndarray) -> np.ndarray:
    """NMI between experts and every class, (C,), from (n, E) token counts and (n, C) labels."""
    with_class = hot.T.astype(np.float64) @ counts  # (C, E)
    return mutual_information(np.stack([with_class, counts.sum(axis=0) - with_class], axis=1))  # of (C, 2, E)


def _shares(values: np.ndarray) -> np.ndarray:
    """Divided by the sum along the last axis; NaN where that is 0."""
    total = values.sum(axis=-1, keepdims=True)
    return np.divide(values, total, out=np.full(values.shape, np.nan), where=total > 0)


def _entropy(shares: np.ndarray) -> np.ndarray:
    """-sum p ln p along the last axis, in nats."""
    return entr(shares).sum(axis=-1)


def _padded(rows: list[np.ndarray]) -> np.ndarray:
    """Arrays that differ in their last axis, stacked, with NaN at the end of the shorter ones."""
    widest = max(row.shape[-1] for row in rows)
    ends = [[(0, 0)] * (row.ndim - 1) + [(0, widest - row.shape[-1])] for row in rows]
    return np.stack([np.pad(row, end, constant_values=np.nan) for row, end in zip(rows, ends, strict=True)])


def _multi_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """(n,) class indices or (n, C) zeros and ones to (n, C) bool."""
    return labels[:, None] == np.arange(classes) if labels.ndim == 1 else labels > 0
