"""Spatial-block permutation: what it keeps, and that a null stays one where images of an area are correlated."""

import numpy as np
import pytest

from eval.experts.routing import BlockRouting, RoutingRecord, label_information
from eval.experts.specialisation import cover_separation, token_information
from eval.statistics.block_permutation import permute_blocks, smallest_p

AREAS = np.repeat(np.arange(24), 5)


def record_of(best: np.ndarray, labels: np.ndarray) -> RoutingRecord:
    """One block with 4 experts, k = 1, from the best experts (n, N) of patch tokens."""
    idx = np.pad(best, ((0, 0), (5, 0)))[..., None].astype(np.int16)
    classes = tuple(f"class {index}" for index in range(labels.shape[1]))
    names = [str(index) for index in range(len(best))]
    return RoutingRecord((BlockRouting(0, 4, idx, np.ones(idx.shape, np.float32)),), labels, classes, names)


def world(random: np.random.Generator, blocks: np.ndarray, effect: float = 0.0) -> tuple[RoutingRecord, np.ndarray]:
    """Cover and routing are each area's own; with a share of `effect`, tokens go to the expert of the cover."""
    count = blocks.max() + 1
    groups = random.integers(0, 3, count)[blocks]
    shares = random.dirichlet(np.ones(4), count)[blocks]
    best = (random.random((len(blocks), 25, 1)) > np.cumsum(shares, axis=1)[:, None, :3]).sum(axis=2)
    best = np.where(random.random(best.shape) < effect, groups[:, None], best)
    return record_of(best, groups[:, None] == np.arange(3)), groups


def p_of(
    random: np.random.Generator, blocks: np.ndarray, effect: float = 0.0, permuted: np.ndarray | None = None
) -> float:
    record, _ = world(random, blocks, effect)
    found = label_information(record, int(random.integers(1000)), 19, blocks if permuted is None else permuted)
    return (1 + (found.shuffled.mean(axis=(1, 2)) >= found.nmi.mean() * (1 - 1e-12)).sum()) / 20


def test_blocks_of_one_size_change_places_whole() -> None:
    random = np.random.default_rng(0)
    for _ in range(5):
        source = permute_blocks(AREAS, 120, random)
        assert sorted(source) == list(range(120)), "a permutation"
        assert all(len(set(AREAS[source[area == AREAS]])) == 1 for area in range(24))
        assert (source.reshape(24, 5) % 5 == np.arange(5)).all(), "in the order of the block"


def test_single_images_are_permuted_as_usual() -> None:
    counts = np.zeros((3, 3))
    for seed in range(600):
        for blocks in (np.arange(3), None):
            source = permute_blocks(blocks, 3, np.random.default_rng(seed))
            assert sorted(source) == [0, 1, 2]
            counts[np.arange(3), source] += 1
    assert (abs(counts / 1200 - 1 / 3) < 0.06).all()


def test_unequal_blocks_give_rows_of_one_block() -> None:
    blocks = np.repeat(np.arange(12), [1, 1, 1, 1, 1, 1, 4, 5, 6, 7, 7, 40])
    random = np.random.default_rng(0)
    for _ in range(20):
        source = permute_blocks(blocks, len(blocks), random)
        givers = [set(blocks[source[blocks == block]]) for block in range(12)]
        assert all(len(giver) == 1 for giver in givers)
        assert sorted(min(giver) for giver in givers) == list(range(12)), "every block gives once"
        assert all(min(giver) < 6 for giver in givers[:6]), "single images change places with single images"
        for block in range(12):
            taken = np.bincount(source[blocks == block])
            taken = taken[np.flatnonzero(taken)]
            assert taken.max() - taken.min() <= 1, "evenly"


@pytest.mark.runs
def test_the_null_stays_one_where_areas_are_alike() -> None:
    """Permuting single images finds a false dependence on covers in half of the runs; permuting areas, in few."""
    random = np.random.default_rng(0)
    single = [p_of(random, AREAS, permuted=np.arange(120)) <= 0.05 for _ in range(20)]
    whole = [p_of(random, AREAS) <= 0.05 for _ in range(60)]
    assert np.mean(single) >= 0.4 and np.mean(whole) <= 0.15
    sizes = np.repeat(np.arange(24), random.integers(1, 9, 24))
    assert np.mean([p_of(random, sizes) <= 0.05 for _ in range(60)]) <= 0.15
    assert np.mean([p_of(random, np.arange(60)) <= 0.05 for _ in range(60)]) <= 0.15


def test_a_true_effect_is_found() -> None:
    random = np.random.default_rng(0)
    assert [p_of(random, AREAS, effect=0.8) for _ in range(5)] == [pytest.approx(1 / 20)] * 5
    record, groups = world(random, AREAS, effect=0.8)
    found = cover_separation(record, range(3), np.arange(120), groups, 0, 99, AREAS)
    assert found.p_value == 0.01 and np.nanmax(found.pairs) <= 0.05


def test_pairs_and_labels_and_maps_know_of_areas() -> None:
    """What follows the area only stays within the null of permuted areas, not within that of single images."""
    random = np.random.default_rng(1)
    beyond = {name: np.zeros(2) for name in ("covers", "pairs", "labels", "maps")}
    for _ in range(8):
        record, groups = world(random, AREAS)
        cover = np.repeat(groups[:, None], 25, axis=1)
        for column, blocks in enumerate((None, AREAS)):
            found = cover_separation(record, range(3), np.arange(120), groups, 0, 19, blocks)
            beyond["covers"][column] += found.p_value <= 0.05
            beyond["pairs"][column] += (found.pairs <= 0.05).sum() / 6
            labels = label_information(record, 0, 19, blocks)
            beyond["labels"][column] += labels.nmi.mean() > labels.shuffled.mean(axis=(1, 2)).max()
            maps = token_information(record, cover, 0, 19, blocks)
            beyond["maps"][column] += maps.nmi[0] > maps.shuffled.max()
    for name, (single, whole) in beyond.items():
        assert single >= 4 and whole <= 2, name


def test_few_areas_cannot_tell() -> None:
    areas = np.repeat(np.arange(4), 10)
    assert smallest_p(areas % 2, areas, 199) == pytest.approx(1 / 6)
    assert smallest_p(areas, areas, 199) == pytest.approx(1 / 24)
    assert smallest_p(areas, np.zeros(40), 199) == 1.0
    assert smallest_p(np.arange(40), None, 199) == pytest.approx(1 / 200)
    record, _ = world(np.random.default_rng(0), areas, effect=1.0)
    found = cover_separation(record, range(2), np.arange(40), areas % 2, 0, 199, areas)
    assert found.smallest_p == pytest.approx(1 / 6) and found.p_value > 0.05
    assert found.smallest_pairs[0, 1] == pytest.approx(1 / 6)
