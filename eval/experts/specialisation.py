"""Specialisation of experts in land cover: by token where the ground truth is known, by image where labels are.

Dimensions: n images, N patch tokens on a grid, L blocks with experts, E experts of the widest block, C classes, R
permutations. Every statistic has a null distribution that keeps everything but the association tested.

Labels are permuted over whole blocks of neighbouring images (`eval.statistics.block_permutation`): `blocks` are
those of the record's images, (n,) of `spatial_blocks.neighbour_blocks`; None takes images as independent.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from eval.experts.routing import RoutingRecord, best_by_image, mutual_information
from eval.statistics.block_permutation import permute_blocks, smallest_p
from eval.statistics.weighted_metrics import Statistic
from utils.randomness import derive_seed

UNKNOWN = -1
"""The class of a token whose land cover is not known, or not among the classes."""


class TokenInformation(NamedTuple):
    """Normalised mutual information (NMI) of a patch token's best expert and the land cover under it."""

    nmi: np.ndarray
    """(L,)"""
    shuffled: np.ndarray
    """(R, L) the same with whole cover maps permuted between blocks: experts that follow anything but the cover."""
    turned: np.ndarray
    """(R, L) the same with every image's own map turned or mirrored: experts that follow the image but not where in
    it the cover lies. An excess of `nmi` over this is specialisation within images."""


class CoverSeparation(NamedTuple):
    """Whether images of distinct land covers use the experts differently."""

    classes: tuple[int, ...]
    """Those compared, indices of the record's classes."""
    images: np.ndarray
    """How many of each, (C,)."""
    nmi: np.ndarray
    """(L,) between the best expert of a patch token and the cover of its image."""
    shuffled: np.ndarray
    """(R, L) the same with the covers permuted between blocks."""
    pairs: np.ndarray
    """(C, C) p-value of the null hypothesis that two covers use the experts in the same way; NaN on the diagonal."""
    smallest_p: float
    """Lower bound of `p_value`: few blocks have few permutations."""
    smallest_pairs: np.ndarray
    """The same of `pairs`."""

    @property
    def p_value(self) -> float:
        """p-value of the mean over the blocks under the null: (1 + permutations as large) / (1 + R)."""
        return _p_value(self.nmi.mean(), self.shuffled.mean(axis=1))


def token_cover(ground: np.ndarray, patch_size: int) -> np.ndarray:
    """The class that covers most pixels of every patch token, (n, N), from (n, H, W) classes of pixels.

    `UNKNOWN` pixels count for nothing, unless a token has no others; of equally frequent classes the first counts.
    """
    n, height, width = ground.shape
    p = patch_size
    pixels = ground.reshape(n, height // p, p, width // p, p).swapaxes(2, 3).reshape(n, -1, p * p)
    counts = np.stack([(pixels == index).sum(axis=2) for index in range(int(ground.max(initial=0)) + 1)], axis=2)
    return np.where(counts.any(axis=2), counts.argmax(axis=2), UNKNOWN)


def usage_by_cover(record: RoutingRecord, cover: np.ndarray, classes: int) -> np.ndarray:
    """Share of a cover's tokens whose best expert is each expert, (L, C, E); NaN where there is no such token.

    Args:
        record: of n images.
        cover: (n, N) class of every patch token.
        classes: how many there are.
    """
    widest = max(block.experts for block in record.blocks)
    usage = np.full((len(record.blocks), classes, widest), np.nan)
    for row, (best, experts) in enumerate(_best_experts(record)):
        counts = _joints(cover, best, classes, experts).sum(axis=0)
        total = counts.sum(axis=1, keepdims=True)
        usage[row, :, :experts] = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    return usage


def token_information(
    record: RoutingRecord, cover: np.ndarray, seed: int, shuffles: int = 20, blocks: np.ndarray | None = None
) -> TokenInformation:
    """NMI of a patch token's best expert and its land cover, and two null distributions.

    Args:
        record: of n images.
        cover: (n, N) class of every patch token, N a square number.
        seed: of the permutations.
        shuffles: how many permutations of each kind.
        blocks: see above.
    """
    found = [[mutual_information(joints.sum(axis=-3)) for joints in block]
             for block in _token_joints(record, cover, seed, shuffles, blocks)]  # fmt: skip
    nmi, shuffled, turned = (np.stack(parts, axis=-1) for parts in zip(*found, strict=True))
    return TokenInformation(nmi, shuffled, turned)


def token_statistics(
    record: RoutingRecord, cover: np.ndarray, seed: int, shuffles: int = 20, blocks: np.ndarray | None = None
) -> list[tuple[Statistic, Statistic, Statistic]]:
    """The same as statistics of weighted images, for a bootstrap: of every block its NMI and the controls' means."""
    return [
        (_mean_nmi(true), _mean_nmi(permuted), _mean_nmi(turned))
        for true, permuted, turned in _token_joints(record, cover, seed, shuffles, blocks)
    ]


def _mean_nmi(joints: np.ndarray) -> Statistic:
    """Weights (n,) to the mean NMI of joint counts (..., n, C, E)."""
    *draws, n, classes, experts = joints.shape
    flat = np.moveaxis(joints, -3, 0).reshape(n, -1).astype(np.float32)  # small whole numbers: sums stay exact

    def statistic(weights: np.ndarray) -> float:
        sums = (np.asarray(weights, np.float32) @ flat).astype(np.float64)
        return float(mutual_information(sums.reshape(*draws, classes, experts)).mean())

    return statistic


def _token_joints(
    record: RoutingRecord, cover: np.ndarray, seed: int, shuffles: int, blocks: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of every block how many tokens of each image have each class and best expert.

    (n, C, E) of the true maps, (R, n, C, E) of permuted maps, and of each image's own map turned.
    """
    random = np.random.default_rng(derive_seed(seed, "token information"))
    side = round(cover.shape[1] ** 0.5)
    maps = cover.reshape(-1, side, side)
    shuffled = [cover[permute_blocks(blocks, len(cover), random)] for _ in range(shuffles)]
    turned = [_turned(maps, random).reshape(cover.shape) for _ in range(shuffles)]
    classes = int(cover.max(initial=0)) + 1
    for best, experts in _best_experts(record):
        permuted, rotated = (
            np.stack([_joints(one, best, classes, experts) for one in null]) for null in (shuffled, turned)
        )
        yield _joints(cover, best, classes, experts), permuted, rotated


def distinct_covers(
    labels: np.ndarray, least: int, most: int, seed: int
) -> tuple[tuple[int, ...], np.ndarray, np.ndarray]:
    """Images with a single label, about as many of each.

    Args:
        labels: (n, C) bool.
        least: images that a class must have to be compared.
        most: images taken of a class, drawn at random.
        seed: of the draw.

    Returns:
        The classes compared, the images' positions (m,), and their class as a position among those compared (m,).
    """
    single = labels.sum(axis=1) == 1
    found = [np.flatnonzero(single & labels[:, index]) for index in range(labels.shape[1])]
    classes = tuple(index for index, images in enumerate(found) if len(images) >= least)
    random = np.random.default_rng(derive_seed(seed, "distinct covers"))
    chosen = [np.sort(random.permutation(found[index])[:most]) for index in classes]
    groups = [np.full(len(images), place) for place, images in enumerate(chosen)]
    return classes, np.concatenate([*chosen, []]).astype(int), np.concatenate([*groups, []]).astype(int)


def cover_separation(
    record: RoutingRecord,
    classes: Sequence[int],
    images: np.ndarray,
    groups: np.ndarray,
    seed: int,
    shuffles: int,
    blocks: np.ndarray | None = None,
) -> CoverSeparation:
    """Whether images of distinct covers use the experts differently, all together and pair by pair.

    For a pair the statistic is the mean over the blocks of the squared difference of the covers' usage, and the null
    distribution permutes the two covers between the blocks of their images.

    Args:
        record: the routing.
        classes, images, groups: of `distinct_covers`; at least two classes.
        seed: of the permutations.
        shuffles: how many.
        blocks: see above.
    """
    random = np.random.default_rng(derive_seed(seed, "cover separation"))
    count = len(classes)
    usage = [counts[images].astype(np.float64) for counts in best_by_image(record)]  # of every block (m, E)
    places = np.arange(len(images)) if blocks is None else np.asarray(blocks)[images]

    def nmi(of: np.ndarray) -> np.ndarray:
        hot = (of == np.arange(count)[:, None]).astype(np.float64)  # (C, m)
        return np.array([mutual_information(hot @ counts) for counts in usage])

    shuffled = np.array([nmi(groups[permute_blocks(places, len(groups), random)]) for _ in range(shuffles)])
    shares = np.concatenate([counts / counts.sum(axis=1, keepdims=True) for counts in usage], axis=1)  # (m, sum of E)
    pairs, smallest = np.full((2, count, count), np.nan)
    for first in range(count):
        for second in range(first):
            rows = np.isin(groups, (first, second))
            of, where = groups[rows] == first, places[rows]
            pairs[first, second] = pairs[second, first] = _pair_p(shares[rows], of, where, random, shuffles)
            smallest[first, second] = smallest[second, first] = smallest_p(of, where, shuffles)
    images_of = np.bincount(groups, minlength=count)
    least = smallest_p(groups, places, shuffles)
    return CoverSeparation(tuple(classes), images_of, nmi(groups), shuffled, pairs, least, smallest)


def _pair_p(
    shares: np.ndarray, first: np.ndarray, blocks: np.ndarray, random: np.random.Generator, shuffles: int
) -> float:
    """p-value of the difference between two groups of images' mean usage."""

    def difference(of: np.ndarray) -> float:
        return float(np.square(shares[of].mean(axis=0) - shares[~of].mean(axis=0)).sum())

    # Permuted between unequal blocks, all images may get one cover: no difference is defined, so it counts as larger.
    permuted = (first[permute_blocks(blocks, len(first), random)] for _ in range(shuffles))
    control = [difference(of) if 0 < of.sum() < len(of) else np.inf for of in permuted]
    return _p_value(difference(first), np.array(control))


def _p_value(found: float, control: np.ndarray) -> float:
    # With tolerance: a permutation that changes nothing must count as large, whatever the rounding of its sums.
    return float((1 + (control >= found * (1 - 1e-12)).sum()) / (1 + len(control)))


def _best_experts(record: RoutingRecord) -> list[tuple[np.ndarray, int]]:
    """Of every block the best expert of each patch token, (n, N), and how many experts there are."""
    return [(block.expert_idx[:, record.num_prefix :, 0], block.experts) for block in record.blocks]


def _joints(cover: np.ndarray, best: np.ndarray, classes: int, experts: int) -> np.ndarray:
    """How many tokens of each image have each class and best expert, (n, C, E), those of `UNKNOWN` cover or of hidden
    patches left out."""
    image, token = np.nonzero((cover >= 0) & (best >= 0))
    index = (image * classes + cover[image, token]) * experts + best[image, token]
    return np.bincount(index, minlength=len(cover) * classes * experts).reshape(len(cover), classes, experts)


def _turned(maps: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Every (side, side) map turned by a quarter, half or three quarters, or mirrored, each its own way."""
    ways = random.integers(1, 8, len(maps))  # 0 would leave the map as it is
    turned = np.empty_like(maps)
    for way in range(1, 8):
        chosen = np.rot90(maps[ways == way], way % 4, axes=(1, 2))
        turned[ways == way] = chosen[:, :, ::-1] if way >= 4 else chosen
    return turned
