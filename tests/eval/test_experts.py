"""What experts are for, add, and are missed for: a constructed router, hand values, and the model's own blocks."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import SAMPLE
from matplotlib.figure import Figure
from sklearn.metrics import normalized_mutual_info_score
from studying import few_strengths, make_context, small_views  # noqa: F401
from tiny import TINY_MODEL, sample_ids, tiny_model

from datasets.bigearthnet import BigEarthNetDatasetLS
from datasets.loader import BatchLoader
from datasets.patches import Batch
from datasets.simulator.patches import simulate_chunk
from datasets.simulator.truth import NO_CLASS, ground_truth
from eval.experts.ablation import remove_expert
from eval.experts.contribution import (
    ablation_map,
    block_inputs,
    contribution_shares,
    contributions,
    embeddings_without_experts,
)
from eval.experts.routing import (
    BlockRouting,
    RoutingRecord,
    dead_experts,
    expert_usage,
    label_information,
    record_routing,
)
from eval.experts.specialisation import (
    UNKNOWN,
    cover_separation,
    distinct_covers,
    token_cover,
    token_information,
    token_statistics,
    usage_by_cover,
)
from models import MOEMAE
from models.checkpoint import write_checkpoint
from models.inference.embedder import Embedder
from studies.engine.encoders import MAIN, UNTRAINED, encoders, untrained_twin
from studies.experts.figures import plot_expert_table, plot_information, plot_pairs, plot_planes, plot_value_maps
from studies.experts.section import PARTS, experts_section
from studies.report_parts.sections import Value
from utils.errors import DataError

PREFIX = 5
"""Metadata tokens and CLS."""

CPU = torch.device("cpu")


@pytest.fixture
def loader(tmp_path) -> BatchLoader:
    (tmp_path / "some.csv").write_text("\n".join(sample_ids(7)))
    dataset = BigEarthNetDatasetLS(SAMPLE, tmp_path / "some.csv", labels="error")
    dataset.hold_in_memory()
    return BatchLoader(dataset, 4, 0, CPU)


def record_of(best: np.ndarray, experts: int, labels: np.ndarray | None = None) -> RoutingRecord:
    """One block, k = 1, from the best experts (n, N); metadata and CLS go to expert 0."""
    idx = np.pad(best, ((0, 0), (PREFIX, 0)))[..., None].astype(np.int16)
    classes = () if labels is None else tuple(map(str, range(labels.shape[1])))
    block = BlockRouting(0, experts, idx, np.ones(idx.shape, np.float32))
    return RoutingRecord((block,), labels, classes, [str(i) for i in range(len(best))])


# --------------------------------------------------------------------------- a constructed router


class Covers:
    """Images of three covers that differ in the sign of two bands, under a gate that sends each to an expert.

    Patch tokens are the mean of band 0 and that of band 1, nothing else; attention adds nothing.
    """

    batch_size, skipped_fill, device = 4, 0, CPU

    def __init__(self, count: int = 40) -> None:
        random = np.random.default_rng(0)
        self.cover = random.integers(0, 3, (count, 100))  # of every patch token
        values = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])[self.cover]  # (n, 100, 2)
        grid = values.reshape(count, 10, 10, 2).repeat(4, axis=1).repeat(4, axis=2)
        self.images = torch.zeros(count, 7, 40, 40)
        self.images[:, :2] = torch.from_numpy(grid).permute(0, 3, 1, 2)
        self.dataset = self
        self.labels, self.classes, self.ids = None, ("a", "b", "c"), [str(i) for i in range(count)]

    def __len__(self) -> int:
        return -(-len(self.ids) // self.batch_size)

    def batches(self, order=None):
        rows = np.arange(len(self.ids)) if order is None else np.asarray(order)
        for at in range(0, len(rows), self.batch_size):
            some = rows[at : at + self.batch_size]
            images = self.images[some]
            yield Batch(images, None, torch.ones(len(some), 40, 40, dtype=torch.bool), None, [str(i) for i in some])

    def model(self) -> MOEMAE:
        """One block with experts that reads the cover: expert e for cover e, expert 3 for nobody."""
        model = tiny_model(experts=[4, 1], k=1)
        with torch.no_grad():
            encoder, layer = model.encoder, model.encoder.layers[0]
            encoder.pos_embed.zero_()
            encoder.patch_proj.weight.zero_()
            encoder.patch_proj.bias.zero_()
            for band in range(2):
                encoder.patch_proj.weight[band, band] = 1 / 16
            layer.attn.out_proj.weight.zero_()
            layer.attn.out_proj.bias.zero_()
            gate = layer.moe.gate.Wg
            gate.weight.zero_()
            gate.bias.copy_(torch.tensor([0.0, 0.0, 0.0, -1e4]))
            gate.weight[0, 0], gate.weight[1, 1] = 9.0, 9.0
            gate.weight[2, 0], gate.weight[2, 1] = -9.0, -9.0
        return model


def test_a_constructed_router_is_found_out() -> None:
    covers = Covers()
    record = record_routing(covers.model(), covers)
    assert np.array_equal(record.blocks[0].expert_idx[:, PREFIX:, 0], covers.cover)
    assert dead_experts(record) == [(0, 3)]
    shares = np.bincount(covers.cover.ravel(), minlength=3) * 1.0
    prefix = np.bincount(record.blocks[0].expert_idx[:, :PREFIX, 0].ravel(), minlength=3)
    np.testing.assert_allclose(expert_usage(record)[0, :3], (shares + prefix) / (shares + prefix).sum())
    np.testing.assert_array_equal(usage_by_cover(record, covers.cover, 3)[0], np.eye(3, 4))
    found = token_information(record, covers.cover, seed=0, shuffles=10)
    np.testing.assert_allclose(found.nmi, [1.0])
    assert found.shuffled.shape == found.turned.shape == (10, 1)
    assert found.shuffled.max() < 0.02 and found.turned.max() < 0.02, "cover was drawn token by token"


# --------------------------------------------------------------------------- specialisation by hand


def test_token_cover_by_hand() -> None:
    ground = np.full((1, 4, 4), UNKNOWN)
    ground[0, :2, :2] = [[1, 1], [0, UNKNOWN]]  # two of class 1, one of class 0
    ground[0, :2, 2:] = [[2, 0], [0, 2]]  # a draw: the first class
    ground[0, 2:, :2] = [[UNKNOWN, UNKNOWN], [UNKNOWN, 2]]
    assert token_cover(ground, 2).tolist() == [[1, 0, 2, UNKNOWN]]
    assert token_cover(np.full((2, 4, 4), UNKNOWN), 2).tolist() == [[UNKNOWN] * 4] * 2


def test_token_information_leaves_out_unknown_cover() -> None:
    random = np.random.default_rng(0)
    cover, best = random.integers(-1, 3, (20, 16)), random.integers(0, 4, (20, 16))
    best = np.where((cover == 1) & (random.random(cover.shape) < 0.5), 2, best)
    known = cover >= 0
    found = token_information(record_of(best, 4), cover, seed=0)
    np.testing.assert_allclose(found.nmi, normalized_mutual_info_score(cover[known], best[known]))
    shares = usage_by_cover(record_of(best, 4), cover, 4)[0]
    np.testing.assert_allclose(shares[1], np.bincount(best[cover == 1], minlength=4) / (cover == 1).sum())
    assert np.isnan(shares[3]).all()
    nothing = token_information(record_of(best, 4), np.full_like(cover, UNKNOWN), seed=0)
    assert nothing.nmi.tolist() == [0.0]


def test_controls_tell_the_image_from_the_place_in_it() -> None:
    """Experts by image: as much as the image's cover turned. Experts by place: more than that."""
    random = np.random.default_rng(1)
    main = random.integers(0, 2, (40, 1))
    cover = np.where(random.random((40, 100)) < 0.9, main, 1 - main)
    by_image = token_information(record_of(np.repeat(main, 100, axis=1), 2), cover, seed=0)
    assert by_image.nmi[0] > by_image.shuffled.max()
    np.testing.assert_allclose(by_image.turned, by_image.nmi[0])
    by_place = token_information(record_of(cover, 2), cover, seed=0)
    assert by_place.nmi[0] == pytest.approx(1.0) and by_place.turned.max() < 0.6


def test_token_statistics_are_the_same_with_all_weights_one() -> None:
    random = np.random.default_rng(2)
    cover, best = random.integers(0, 3, (15, 25)), random.integers(0, 4, (15, 25))
    record, found = record_of(best, 4), token_information(record_of(best, 4), cover, seed=3, shuffles=5)
    (nmi, shuffled, turned), = token_statistics(record, cover, seed=3, shuffles=5)  # fmt: skip
    ones = np.ones(15)
    assert nmi(ones) == pytest.approx(found.nmi[0])
    assert shuffled(ones) == pytest.approx(found.shuffled.mean()) and turned(ones) == pytest.approx(found.turned.mean())
    twice = np.arange(15) < 5  # the first five, twice
    rows = np.repeat(np.arange(5), 2)
    expected = normalized_mutual_info_score(cover[rows].ravel(), best[rows].ravel())
    assert nmi(2.0 * twice) == pytest.approx(expected)


def test_distinct_covers() -> None:
    labels = np.zeros((30, 3), bool)
    labels[:20, 0] = labels[20:25, 1] = labels[25:, 2] = True
    labels[24, 2] = True  # two labels: not distinct
    classes, images, groups = distinct_covers(labels, least=5, most=8, seed=0)
    assert classes == (0, 2) and np.bincount(groups).tolist() == [8, 5]
    assert (images[:8] < 20).all() and len(set(images)) == 13 and images[8:].tolist() == [25, 26, 27, 28, 29]
    assert distinct_covers(labels, least=21, most=30, seed=0)[0] == ()


def test_separation_of_covers() -> None:
    random = np.random.default_rng(0)
    best = random.integers(0, 3, (30, 16))
    best[:10] = 0  # the first cover has an expert of its own, the other two use all of them alike
    labels = np.repeat(np.eye(3, dtype=bool), 10, axis=0)
    record = record_of(best, 3, labels)
    classes, images, groups = distinct_covers(labels, 5, 10, seed=0)
    found = cover_separation(record, classes, images, groups, seed=0, shuffles=99)
    assert found.images.tolist() == [10, 10, 10] and found.p_value == pytest.approx(0.01)
    assert found.pairs[0, 1] == found.pairs[1, 0] == pytest.approx(0.01)
    assert found.pairs[1, 2] > 0.05 and np.isnan(found.pairs[1, 1])
    alike = record_of(np.tile(best[10:20], (3, 1)), 3, labels)
    assert cover_separation(alike, classes, images, groups, seed=0, shuffles=99).p_value > 0.05


# --------------------------------------------------------------------------- contribution and ablation


@torch.no_grad()
@pytest.mark.parametrize("k", [1, 2])
def test_contribution_by_hand(loader, k: int) -> None:
    """g_e W2(SiLU(W_e x) V x) of every expert, on the norm of what the attention left."""
    model = tiny_model(experts=[1, 3], k=k)
    batch = next(loader.batches())
    tokens = block_inputs(model.encoder, batch.images, batch.meta)
    torch.testing.assert_close(tokens[-1], model.encode(batch.images, batch.meta).pre_norm)
    (found,) = contributions(model, batch.images, batch.meta)
    assert found.block == 1 and found.experts.shape == (4, 105, 3)
    layer = model.encoder.layers[1]
    residual = tokens[1] + layer.attn(layer.norm1(tokens[1]))
    x, experts = layer.norm2(residual), layer.moe.experts
    gates = layer.moe.gate(x.flatten(0, 1)).gates.view(4, 105, 3)

    def output(e: int) -> torch.Tensor:
        rows = slice(e * experts.width, (e + 1) * experts.width)
        return experts.W2(F.silu(F.linear(x, experts.W.weight[rows], experts.W.bias[rows])) * experts.V(x))

    parts = [gates[..., e : e + 1] * output(e) for e in range(3)]
    torch.testing.assert_close(found.experts, torch.stack([part.norm(dim=-1) for part in parts], dim=-1))
    torch.testing.assert_close(found.update, sum(parts).norm(dim=-1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.residual, residual.norm(dim=-1))
    assert (found.update <= found.experts.sum(dim=-1) + 1e-5).all()
    assert ((found.experts > 0).sum(dim=-1) == k).all()


def test_contribution_shares(loader) -> None:
    model = tiny_model(experts=[3, 4])
    with torch.no_grad():
        model.encoder.layers[0].moe.gate.Wg.bias[1] = -1e4
    shares, updates = contribution_shares(model, loader)
    assert shares.shape == (2, 4) and np.isnan(shares[0, 3]) and shares[0, 1] == 0.0
    np.testing.assert_allclose(np.nansum(shares, axis=1), 1.0, atol=1e-6)
    batch = next(loader.batches(range(7)))
    found = next(contributions(model, batch.images, batch.meta))
    assert updates.shape == (2,) and 0 < updates[0] < float((found.update / found.residual).max())


@torch.no_grad()
def test_ablation_maps_go_through_the_whole_encoder(loader) -> None:
    model = tiny_model(experts=[3, 3])
    with torch.no_grad():
        model.encoder.layers[0].moe.gate.Wg.bias[2] = -1e4
    batch = next(loader.batches())
    unused = ablation_map(model, batch.images, batch.meta, block=0, expert=2)
    assert unused.block.shape == (4, 10, 10) and not unused.block.any() and not unused.end.any()
    found = ablation_map(model, batch.images, batch.meta, block=0, expert=0)
    whole = model.encode(batch.images, batch.meta).pre_norm
    without = remove_expert(model, 0, 0).encode(batch.images, batch.meta).pre_norm
    change = ((without - whole).norm(dim=-1) / whole.norm(dim=-1))[:, PREFIX:].view(4, 10, 10)
    np.testing.assert_allclose(found.end, change, atol=1e-6)
    routing = model.encode(batch.images, batch.meta).routing[0].expert_idx.view(4, 105, 2)[:, PREFIX:]
    used = (routing == 0).any(dim=-1).view(4, 10, 10).numpy()
    assert not found.block[~used].any() and (found.block[used] > 0).all(), "missed just where it was at work"
    last = ablation_map(model, batch.images, batch.meta, block=1, expert=1)
    np.testing.assert_array_equal(last.block, last.end)
    with pytest.raises(ValueError, match="cannot remove"):
        ablation_map(tiny_model(experts=[1, 3]), batch.images, batch.meta, block=0, expert=0)


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_embeddings_without_each_expert(loader, pool: str) -> None:
    model = tiny_model(experts=[1, 3])
    found = embeddings_without_experts(model, loader, pool)
    assert found.removed == ((1, 0), (1, 1), (1, 2)) and found.ids == loader.dataset.ids
    assert np.array_equal(found.labels, loader.dataset.labels.numpy())
    batch = next(loader.batches())
    for model_now, vectors in ((model, found.whole), (remove_expert(model, 1, 2), found.without[2])):
        np.testing.assert_allclose(Embedder(model_now, pool)(batch.images, batch.meta), vectors[:4], atol=1e-5)


def test_experts_behind_the_block_that_is_read_change_nothing(loader) -> None:
    model = tiny_model(experts=[3, 3, 3], depth=3, read_depth=2)
    found = embeddings_without_experts(model, loader, "mean")
    batch = next(loader.batches())
    without = {removed: Embedder(remove_expert(model, *removed), "mean") for removed in ((0, 1), (1, 0), (2, 2))}
    for removed, embedder in without.items():
        vectors = found.without[found.removed.index(removed)]
        np.testing.assert_allclose(embedder(batch.images, batch.meta), vectors[:4], atol=1e-5)
        assert np.array_equal(vectors, found.whole) == (removed[0] == 2)
    end = ablation_map(model, batch.images, batch.meta, block=2, expert=2).end
    assert not end.any() and ablation_map(model, batch.images, batch.meta, block=0, expert=1).end.any()


def test_images_without_metadata_are_looked_at_like_missing_ones(loader) -> None:
    model, batch = tiny_model(), next(loader.batches())
    tokens = block_inputs(model.encoder, batch.images, None)
    torch.testing.assert_close(tokens[-1], model.encode(batch.images, None).pre_norm.detach())


# --------------------------------------------------------------------------- the simulator's truth


def test_the_truth_belongs_to_the_patches() -> None:
    """Simulated again: the same pixels, and labels that the ground mostly has."""
    ids = sample_ids(12)
    dataset = BigEarthNetDatasetLS(SAMPLE, "bigearthnet-train.csv", labels="error")
    ground = ground_truth(SAMPLE, ids)
    assert ground.shape == (12, 40, 40) and ground.min() >= NO_CLASS and ground.max() < 19
    assert np.array_equal(ground_truth(SAMPLE, ids[5:6])[0], ground[5]), "whatever else is asked for"
    chunk = simulate_chunk(0, seed=2)
    again = chunk.images[:12, :, 2:42, 2:42].to(torch.int32).numpy()
    assert np.abs(again - dataset.gather(range(12)).pixels.astype(int)).max() <= 2, "but for rounding elsewhere"
    has = dataset.labels.numpy()[:12] > 0
    inside = [has[row][ground[row][ground[row] >= 0]].mean() for row in range(12)]
    assert np.mean(inside) > 0.7, "a map is sometimes wrong about the ground, not mostly"


def test_truth_that_is_not_known_is_refused(tmp_path) -> None:
    ids = sample_ids(3)
    with pytest.raises(DataError, match=r"no README\.md"):
        ground_truth(tmp_path, ids)
    with pytest.raises(DataError, match="do not list"):
        ground_truth(SAMPLE, ["S2A_MSIL2A_20170613T101031_11_66"])
    for name in ("README.md", "bigearthnet-train.csv", "bigearthnet-val.csv", "bigearthnet-test.csv"):
        (tmp_path / name).write_text((SAMPLE / name).read_text())
    assert np.array_equal(ground_truth(tmp_path, ids), ground_truth(SAMPLE, ids))
    readme = tmp_path / "README.md"
    readme.write_text(readme.read_text().replace("--seed 2", "--seed 3"))
    with pytest.raises(DataError, match=f"{ids[0]} is not what"):
        ground_truth(tmp_path, ids)


# --------------------------------------------------------------------------- figures


def test_figures_take_these_arrays(loader, tmp_path: Path) -> None:
    model, random = tiny_model(experts=[3, 4]), np.random.default_rng(0)
    record = record_routing(model, loader)
    cover = random.integers(0, 3, (7, 100))
    information = token_information(record, cover, seed=0, shuffles=3)
    labels = label_information(record, seed=0, shuffles=3)
    batch = next(loader.batches())
    maps = ablation_map(model, batch.images, batch.meta, 0, 0)
    image = random.integers(8_000, 12_000, (7, 40, 40)).astype(np.float32)
    shares, _ = contribution_shares(model, loader)
    points, classes = random.normal(size=(30, 2)), random.integers(-1, 2, 30)
    controls = {"permuted": information.shuffled, "turned": information.turned, "labels": labels.shuffled.mean(axis=2)}
    figures = [
        plot_information({"cover": information.nmi, "labels": labels.nmi.mean(axis=1)}, controls, [0, 1], "told"),
        plot_value_maps([image], [{"without 0": maps.end[0], "without 1": 0 * maps.end[0]}], ["a"], "missed", "change"),
        plot_expert_table({"share": (shares, False, 2), "change": (shares - 0.3, True, 1)}, [0, 1], "all"),
        plot_pairs(np.array([[np.nan, 0.2], [0.2, np.nan]]), ["a", "b"], "pairs", "p"),
        plot_planes({"by class": (points, classes, ["a", "b", "none"])}, "planes"),
    ]
    for figure in figures:
        assert isinstance(figure, Figure)
        figure.draw_without_rendering()


# --------------------------------------------------------------------------- in a report


@pytest.mark.runs
def test_experts_stand_beside_those_of_an_untrained_encoder_like_them(
    tmp_path: Path,
    monkeypatch,
    small_views,  # noqa: F811
) -> None:
    """The main model is dense, a given one has experts: it is compared with an untrained one of its own size."""
    monkeypatch.delitem(PARTS, "planes")  # the slowest
    given = tiny_model(experts=[3, 3], embed_dim=16)
    write_checkpoint(tmp_path / "given.pth", given, epoch=0, best_train_loss=1.0)
    given_too = {"checkpoints": {"some": str(tmp_path / "given.pth")}}
    context = make_context(tmp_path, {"model": {**TINY_MODEL, "experts": 1}, **given_too})
    main, some = (next(one for one in encoders(context) if one.name == name) for name in (MAIN, "given_some"))
    assert untrained_twin(context, main).name == UNTRAINED
    twin = untrained_twin(context, some)
    assert twin.run(0, 0).config == given.config and twin.run(0, 0).digest != some.run(0, 0).digest
    section = experts_section(context)
    tables = {table.name: table for table in section.tables}
    rows = tables["expert_specialisation"].rows
    assert [row[0] for row in rows] == ["untrained encoder built as some weights", "some weights"]
    learned = [tables["expert_specialisation"].columns.index(name)
               for name in tables["expert_specialisation"].columns if "minus untrained" in name]  # fmt: skip
    assert all(rows[0][column] is None and isinstance(rows[1][column], Value) for column in learned)
    assert [row[1] for row in tables["expert_claims"].rows] == [f"some weights minus {twin.title}"] * 2
    assert not [sentence for sentence in section.text if sentence.startswith("This model")]
