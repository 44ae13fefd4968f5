"""Routing statistics by hand values and on a constructed router, and the removal of experts."""

import math

import numpy as np
import pytest
import torch
from conftest import SAMPLE
from matplotlib.figure import Figure
from sklearn.metrics import normalized_mutual_info_score
from tiny import sample_ids, tiny_model, write_bigearthnet

from datasets.bigearthnet import BigEarthNetDatasetLS
from datasets.loader import BatchLoader
from eval.evaluate_mae import validation_losses
from eval.experts.ablation import ablate_experts, remove_expert
from eval.experts.routing import (
    BlockRouting,
    RoutingRecord,
    assignment_map,
    dead_experts,
    expert_usage,
    label_information,
    record_routing,
    routing_entropy,
    usage_by_class,
    usage_by_token,
)
from models.losses import LossWeights
from studies.experts.figures import (
    plot_assignment_maps,
    plot_expert_values,
    plot_label_information,
    plot_routing_entropy,
    plot_share_matrices,
)
from utils.errors import ConfigError, DataError

CPU = torch.device("cpu")


@pytest.fixture
def loader(tmp_path) -> BatchLoader:
    (tmp_path / "some.csv").write_text("\n".join(sample_ids(9)))
    dataset = BigEarthNetDatasetLS(SAMPLE, tmp_path / "some.csv", labels="error")
    dataset.hold_in_memory()
    return BatchLoader(dataset, 4, 0, CPU)


def by_hand(best: np.ndarray, labels: np.ndarray, experts: int) -> RoutingRecord:
    """One block, k = 1, from the best experts (n, patch tokens) of images; metadata and CLS go to expert 0."""
    idx = np.pad(best, ((0, 0), (5, 0)))[..., None].astype(np.int16)
    block = BlockRouting(0, experts, idx, np.ones(idx.shape, np.float32))
    classes = tuple(f"class {i}" for i in range(labels.shape[1]))
    return RoutingRecord((block,), labels > 0, classes, [str(i) for i in range(len(best))])


# --------------------------------------------------------------------------- what is recorded


@torch.no_grad()
def test_the_record_is_the_routing_that_ran(loader) -> None:
    """The gate sees LN(x + attention(x)) of its own block: recomputed here step by step."""
    model = tiny_model()
    record = record_routing(model, loader, order=range(4))
    batch = next(loader.batches(range(4)))
    x = model.encoder.embed(batch.images, batch.meta, None)
    for layer, found in zip(model.encoder.layers, record.blocks, strict=True):
        x = x + layer.attn(layer.norm1(x))
        logits = layer.moe.gate.Wg(layer.norm2(x))
        values, chosen = logits.topk(2)
        assert np.array_equal(found.expert_idx, chosen.numpy())
        np.testing.assert_allclose(found.gates, values.softmax(-1).numpy(), atol=1e-6)
        x = x + layer.moe(layer.norm2(x))[0]
    torch.testing.assert_close(x, model.encode(batch.images, batch.meta).pre_norm)


def test_record_names_images_and_labels(loader) -> None:
    record = record_routing(tiny_model(experts=[1, 4]), loader)
    assert record.ids == loader.dataset.ids and record.classes == loader.dataset.classes
    assert np.array_equal(record.labels, loader.dataset.labels.numpy() > 0)
    assert [(block.block, block.experts) for block in record.blocks] == [(1, 4)], "a block with one expert has none"
    assert record.blocks[0].gates.shape == (9, 105, 2)
    with pytest.raises(ConfigError, match="one expert in every block"):
        record_routing(tiny_model(experts=1), loader)


def test_images_without_a_valid_pixel_are_refused(tmp_path) -> None:
    root = write_bigearthnet(tmp_path, {sample_ids(1)[0]: np.zeros((7, 43, 43), np.uint16)})
    empty = BatchLoader(BigEarthNetDatasetLS(root, "split.csv"), 4, 0, CPU)
    with pytest.raises(DataError, match="valid pixel"):
        record_routing(tiny_model(), empty)


def test_a_constructed_router(loader) -> None:
    """Gates without weights choose experts 2 and 0 of three, with logits 3 and 2, for every token."""
    model = tiny_model()
    gate = model.encoder.layers[0].moe.gate.Wg
    with torch.no_grad():
        gate.weight.zero_()
        gate.bias.copy_(torch.tensor([2.0, -1.0, 3.0]))
    record = record_routing(model, loader)
    np.testing.assert_allclose(expert_usage(record)[0, :3], [0.5, 0.0, 0.5])
    assert (0, 1) in dead_experts(record)
    np.testing.assert_allclose(usage_by_token(record)[0, :, :3], [[0.5, 0.0, 0.5]] * len(record.token_kinds))
    g = 1 / (1 + math.exp(-1.0))
    entropy = routing_entropy(record)
    assert entropy.gates[0] == pytest.approx(-(g * math.log(g) + (1 - g) * math.log(1 - g)) / math.log(2), abs=1e-5)
    assert entropy.usage[0] == pytest.approx(math.log(2) / math.log(3))
    found = assignment_map(record, image=3, block=0)
    assert found.experts.shape == (10, 10) and (found.experts == 2).all()
    np.testing.assert_allclose(found.gates, g, atol=1e-6)


# --------------------------------------------------------------------------- statistics by hand


def test_usage_by_kind_and_class_by_hand() -> None:
    best = np.array([[0, 1, 1, 1], [0, 0, 1, 2], [2, 2, 2, 2]])
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0]])
    record = by_hand(best, labels, experts=4)
    np.testing.assert_allclose(expert_usage(record), [[(3 + 15) / 27, 4 / 27, 5 / 27, 0]])
    assert dead_experts(record) == [(0, 3)]
    kinds = usage_by_token(record)[0]
    np.testing.assert_allclose(kinds[:5], [[1, 0, 0, 0]] * 5)
    np.testing.assert_allclose(kinds[5], [3 / 12, 4 / 12, 5 / 12, 0])
    shares = usage_by_class(record)[0]
    np.testing.assert_allclose(shares[:2], [[3 / 8, 4 / 8, 1 / 8, 0], [2 / 8, 1 / 8, 5 / 8, 0]])
    assert np.isnan(shares[2]).all(), "no image has the third class"
    assert assignment_map(record, 1, 0).experts.tolist() == [[0, 0], [1, 2]]
    with pytest.raises(ValueError, match="block 7"):
        assignment_map(record, 1, 7)


def test_narrow_blocks_end_in_nan() -> None:
    wide = by_hand(np.array([[0, 1, 2, 2]]), np.ones((1, 1)), experts=3)
    narrow = wide.blocks[0]._replace(block=1, experts=2, expert_idx=np.zeros((1, 9, 1), np.int16))
    usage = expert_usage(wide._replace(blocks=(wide.blocks[0], narrow)))
    assert usage[1, :2].tolist() == [1.0, 0.0] and np.isnan(usage[1, 2])


def test_mutual_information_by_hand() -> None:
    labels = np.array([[1, 0], [1, 0], [0, 1], [0, 1]])
    told = by_hand(np.array([[1, 1], [1, 1], [0, 0], [0, 0]]), labels, experts=2)
    np.testing.assert_allclose(label_information(told, seed=0).nmi, [[1.0, 1.0]])
    silent = by_hand(np.array([[0, 1]] * 4), labels, experts=2)
    np.testing.assert_allclose(label_information(silent, seed=0).nmi, 0.0, atol=1e-12)
    half = np.array([[0, 0], [0, 1], [1, 1], [1, 1]])  # joint shares 3/8, 1/8 over 0, 4/8
    a, b = (-sum(p * math.log(p) for p in shares) for shares in ((0.5, 0.5), (3 / 8, 5 / 8)))
    joint = -sum(p * math.log(p) for p in (3 / 8, 1 / 8, 4 / 8))
    found = label_information(by_hand(half, labels, experts=2), seed=0).nmi
    np.testing.assert_allclose(found, 2 * (a + b - joint) / (a + b))
    expected = normalized_mutual_info_score(labels[:, 0].repeat(2), half.ravel())
    np.testing.assert_allclose(found, expected)


def test_shuffled_labels_tell_next_to_nothing() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (600, 1))
    told = label_information(by_hand(np.repeat(labels, 4, axis=1), labels, experts=2), seed=1, shuffles=50)
    assert told.shuffled.shape == (50, 1, 1)
    assert told.nmi.item() == pytest.approx(1.0) and told.shuffled.mean() < 0.005
    again = label_information(by_hand(np.repeat(labels, 4, axis=1), labels, experts=2), seed=1, shuffles=50)
    assert np.array_equal(told.shuffled, again.shuffled)


def test_the_control_knows_that_tokens_of_an_image_are_alike() -> None:
    """Experts that follow the image but not its label stay within the control, for all their tokens."""
    rng = np.random.default_rng(0)
    labels, experts = rng.integers(0, 2, (40, 1)), rng.integers(0, 3, (40, 1))
    found = label_information(by_hand(np.repeat(experts, 100, axis=1), labels, experts=3), seed=0, shuffles=100)
    assert found.nmi.item() < np.quantile(found.shuffled, 0.99)
    assert found.shuffled.mean() > 0.005, "40 images are few: even labels without meaning seem to tell something"


def test_label_statistics_need_labels() -> None:
    record = by_hand(np.zeros((2, 4), int), np.ones((2, 1)), experts=2)._replace(labels=None)
    with pytest.raises(ValueError, match="without labels"):
        usage_by_class(record)


# --------------------------------------------------------------------------- removal


def test_a_removed_expert_is_never_chosen_and_the_next_one_is(loader) -> None:
    model = tiny_model()
    batch = next(loader.batches())
    before = model.encode(batch.images, batch.meta)
    after = remove_expert(model, 0, 1).encode(batch.images, batch.meta)
    routing = after.routing[0]
    assert not (routing.expert_idx == 1).any() and torch.isfinite(after.pre_norm).all()
    torch.testing.assert_close(routing.gates.sum(dim=1), torch.ones(len(routing.gates)))
    logits = before.routing[0].clean_logits.clone()
    logits[:, 1] = -torch.inf
    assert torch.equal(routing.expert_idx, logits.topk(2).indices)
    spared = ~(before.routing[0].expert_idx == 1).any(dim=1)
    torch.testing.assert_close(routing.gates[spared], before.routing[0].gates[spared])
    assert torch.isfinite(model.encoder.layers[0].moe.gate.Wg.bias).all(), "the model itself stays whole"


def test_ablation_table(loader) -> None:
    model = tiny_model(experts=[3, 1])
    with torch.no_grad():
        model.encoder.layers[0].moe.gate.Wg.bias[2] = -1e4  # never chosen: nobody misses it
    found = ablate_experts(model, loader, seed=0)
    assert found.increase.shape == (1, 3) and found.increase[0, 2] == 0.0
    assert (found.increase[0, :2] != 0.0).all()
    one = validation_losses(remove_expert(model, 0, 0), loader, 0, LossWeights())["val_m_loss"]
    assert found.masked_loss + found.increase[0, 0] == pytest.approx(one, rel=1e-5)
    assert found.removed == ((0, 0), (0, 1), (0, 2)) and found.ids == loader.dataset.ids
    assert found.errors[1].sum() / found.weights.sum() == pytest.approx(one, rel=1e-5)
    for block, expert in ((1, 0), (0, 3)):
        with pytest.raises(ValueError, match="cannot remove"):
            remove_expert(model, block, expert)


def test_hidden_patches_have_no_expert_in_the_legend() -> None:
    image = np.full((7, 40, 40), 10_000, np.float32)
    experts = np.array([[0, -1], [2, -1]])
    figure = plot_assignment_maps([image], [{"block 1": (experts, np.where(experts < 0, np.nan, 0.7))}], ["a"], "maps")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["expert 0", "expert 2"]
    overlay = figure.axes[1].images[1]
    assert overlay.get_alpha()[:, 1].tolist() == [0, 0] and (overlay.get_alpha()[:, 0] > 0.5).all()
    figure.draw_without_rendering()


def test_figures_take_these_arrays(loader) -> None:
    record = record_routing(tiny_model(experts=[3, 9]), loader)
    blocks = [block.block for block in record.blocks]
    entropy, information = routing_entropy(record), label_information(record, seed=0, shuffles=3)
    image = np.random.default_rng(0).integers(8_000, 12_000, (7, 40, 40)).astype(np.float32)
    figures = [
        plot_expert_values(expert_usage(record), blocks, "usage", "share"),
        plot_expert_values(expert_usage(record) - 0.2, blocks, "signed", "share", signed=True),
        plot_routing_entropy(entropy.gates, entropy.usage, blocks, "entropy"),
        plot_share_matrices({"block 0": usage_by_token(record)[0]}, record.token_kinds, "kinds"),
        plot_share_matrices({f"block {b}": usage_by_class(record)[b] for b in blocks}, record.classes, "classes"),
        plot_assignment_maps([image], [{"block 1": assignment_map(record, 0, 1)}], record.ids[:1], "maps"),
        plot_label_information(information.nmi, information.shuffled, blocks, "information"),
    ]
    for figure in figures:
        assert isinstance(figure, Figure)
        figure.draw_without_rendering()
