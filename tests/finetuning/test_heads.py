"""Heads and adapters: shapes, what they begin with, how far they see, what they train."""

import numpy as np
import pytest
import torch
from tiny import tiny_model

from configs.finetuning import EncoderSection
from finetuning.decoder import HALO, DenseDecoder, HeadSizes, build_head
from finetuning.encoders import TrainedEncoder
from finetuning.ground import turned, turned_back
from finetuning.lora import merged, with_adapters
from finetuning.scores import class_ious, confusion_by_block, mean_iou, resampled_miou

SIZES = HeadSizes(7, 24, 3, 4, token_numbers=6, filters=4, hidden=12, mixing=(5, 3))


def crops(count: int = 3, side: int = 24) -> list:
    random = torch.Generator().manual_seed(0)
    seen = torch.ones(side, side, dtype=torch.bool)
    seen[:3] = False
    return [
        (torch.randn(7, side, side, generator=random), seen, torch.randn(24, side // 4, side // 4, generator=random))
        for _ in range(count)
    ]


@pytest.mark.parametrize(
    "changes", [{}, {"kind": "linear", "pixels": False}, {"tokens": False}, {"pixels": False}, {"mixing": ()}]
)
def test_shapes(changes) -> None:
    head = build_head(SIZES._replace(**changes)).eval()
    head.fit(crops(), seed=0)
    scores = head(torch.randn(2, 7, 16, 24), torch.randn(2, 24, 4, 6))
    assert scores.shape == (2, 3, 16, 24) and scores.isfinite().all()


def test_the_decoder_that_configs_ask_for_is_light() -> None:
    head = DenseDecoder(HeadSizes(bands=7, width=144, classes=19, patch=4))
    assert sum(parameter.numel() for parameter in head.parameters()) <= 300_000


def test_a_class_depends_on_its_neighbourhood_only() -> None:
    head = build_head(SIZES).eval()
    head.fit(crops(), seed=0)
    images, tokens = torch.randn(1, 7, 80, 80), torch.randn(1, 24, 20, 20)
    before = head(images, tokens)
    far = SIZES.reach + 1
    assert far <= HALO
    images[..., 40 + far :, :] += 5
    tokens[..., 10 + -(-far // 4) + 1 :, :] += 5
    assert torch.equal(before[..., :40, :], head(images, tokens)[..., :40, :])


def test_filters_begin_as_whitened_pieces_and_are_a_function_of_the_seed() -> None:
    first, second, other = (build_head(SIZES) for _ in range(3))
    for head, seed in ((first, 1), (second, 1), (other, 2)):
        head.fit(crops(), seed)
    assert torch.equal(first.banks[0].weight, second.banks[0].weight)
    assert not torch.equal(first.banks[0].weight, other.banks[0].weight)


def test_patches_that_show_nothing_count_as_the_mean() -> None:
    head = build_head(SIZES).eval()
    head.fit(crops(), seed=0)
    tokens = torch.randn(1, 24, 6, 6)
    hidden, mean = tokens.clone(), tokens.clone()
    hidden[..., 2, 2], mean[..., 2, 2] = torch.nan, head.of_tokens.mean
    images = torch.randn(1, 7, 24, 24)
    assert torch.allclose(head(images, hidden), head(images, mean), atol=1e-6)


@pytest.mark.parametrize("symmetry", range(8))
def test_symmetries_have_inverses(symmetry: int) -> None:
    x = torch.randn(2, 5, 5)
    assert torch.equal(turned_back(turned(x, symmetry), symmetry), x)
    assert symmetry == 0 or not torch.equal(turned(x, symmetry), x)


def test_adapters_begin_as_the_base_and_train_alone() -> None:
    base = tiny_model()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    encoder = TrainedEncoder(base, EncoderSection(mode="lora", rank=2), seed=0)
    images, valid = torch.randn(2, 7, 40, 40), torch.ones(2, 40, 40, dtype=torch.bool)
    assert torch.equal(encoder.tokens(images, None, valid)[0], base.encode(images).pre_norm)
    optimizer = torch.optim.SGD(encoder.trained.parameters(), 0.5)
    for _ in range(2):
        optimizer.zero_grad()
        encoder.tokens(images, None, valid)[0].square().mean().backward()
        optimizer.step()
    assert not torch.equal(encoder.tokens(images, None, valid)[0], base.encode(images).pre_norm)
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())
    frozen = [value for name, value in encoder.model.named_parameters() if ".up" not in name and ".down" not in name]
    assert all(value.grad is None and not value.requires_grad for value in frozen)
    trained = sum(parameter.numel() for parameter in encoder.trained.parameters())
    assert 0 < trained < 0.2 * sum(parameter.numel() for parameter in base.encoder.parameters())


def test_merged_adapters_give_the_same_tokens() -> None:
    adapted, adapters = with_adapters(tiny_model(), rank=2, alpha=4.0, seed=0)
    torch.nn.init.normal_(next(iter(adapters.values())).up)
    plain, images = merged(adapted), torch.randn(1, 7, 40, 40)
    assert not [name for name in plain.state_dict() if "parametrizations" in name]
    assert torch.allclose(plain.encode(images).pre_norm, adapted.eval().encode(images).pre_norm, atol=1e-6)


def test_scores_of_a_map() -> None:
    truth = np.array([0, 0, 1, 1, 2, 2])
    found = np.array([0, 1, 1, 1, 2, 0])
    confusions = confusion_by_block(truth, found, np.array([5, 5, 5, 9, 9, 9]), 4)
    assert confusions.shape == (2, 4, 4) and confusions.sum() == 6
    ious = class_ious(confusions.sum(axis=0))
    assert ious[:3] == pytest.approx([1 / 3, 2 / 3, 1 / 2]) and np.isnan(ious[3])
    assert mean_iou(confusions.sum(axis=0)) == pytest.approx(0.5)
    same = resampled_miou(confusions, 0).minus(resampled_miou(confusions, 0)).interval()
    assert same.value == same.low == same.high == 0
