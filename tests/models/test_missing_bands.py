"""Bands that a sensor does not have: what stands for them, and that what stands in their pixels influences nothing."""

import pytest
import torch
from tiny import tiny_model

from models import ModelConfig
from models.checkpoint import load_model, write_checkpoint
from models.config import MISSING_BANDS
from models.inference import runtimes
from models.inference.embedder import Embedder
from models.masking import random_masking
from models.published_layout import to_published
from utils.errors import CheckpointError
from utils.randomness import generator

SIX = torch.tensor([[False] + [True] * 6])
KINDS = pytest.mark.parametrize("kind", MISSING_BANDS)


def a_model(kind: str = "mean", **numbers: object):
    """With vectors of missing bands that are not 0."""
    model = tiny_model(missing_bands=kind, **numbers)
    if model.encoder.missing_bands is not None:
        torch.nn.init.normal_(model.encoder.missing_bands, generator=generator(3, "vectors"))
    return model


def some_batch(count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    return runtimes._random_patches(tiny_model(), count)


def tokens(model, *given: torch.Tensor, **options: object) -> torch.Tensor:
    with torch.no_grad():
        return model.encode(*given, **options).pre_norm


@KINDS
def test_all_bands_given_are_the_bits_of_none_said(kind: str) -> None:
    images, meta = some_batch()
    model, plain = a_model(kind), tiny_model()
    whole = tokens(model, images, meta)
    assert torch.equal(tokens(model, images, meta, bands=torch.ones(3, 7, dtype=torch.bool)), whole)
    assert torch.equal(tokens(plain, images, meta), whole)


@KINDS
def test_what_stands_in_a_missing_band_influences_nothing(kind: str) -> None:
    model, (images, meta) = a_model(kind), some_batch()
    bands = SIX.repeat(3, 1)
    bands[1] = torch.tensor([False, True, True, True, False, False, False])
    bands[2] = True
    found = tokens(model, images, meta, bands=bands)
    for other in (torch.nan, torch.inf, -7.0):
        spoiled = torch.where(bands[:, :, None, None], images, other)
        assert torch.equal(tokens(model, spoiled, meta, bands=bands), found)
    assert torch.equal(found[2], tokens(model, images, meta, bands=bands[2:].expand(3, -1))[2])
    assert not torch.equal(found[:2], tokens(model, images, meta)[:2])
    masking = random_masking(torch.rand(3, 100, generator=generator(0, "mask")), 0.75)
    predicted, _ = model(images, meta, masking, bands=bands, noise=False)
    spoiled = torch.where(bands[:, :, None, None], images, torch.nan)
    assert torch.equal(model(spoiled, meta, masking, bands=bands, noise=False)[0], predicted)
    assert predicted.shape == (3, 100, 112), "all bands are predicted"


def test_the_mean_is_a_z_score_of_0() -> None:
    model, (images, meta) = a_model("mean"), some_batch()
    filled = images.clone()
    filled[:, 0] = 0.0
    assert torch.equal(tokens(model, images, meta, bands=SIX.expand(3, -1)), tokens(model, filled, meta))


def test_rescale_leaves_out_a_part_of_the_kernel_and_the_token_adds_a_vector() -> None:
    images, meta = some_batch()
    bands = SIX.expand(3, -1)
    rescaled, learned = a_model("rescale"), a_model("token")
    kernel, bias = rescaled.encoder.patch_proj.weight, rescaled.encoder.patch_proj.bias
    convolved = torch.nn.functional.conv2d(images[:, 1:], kernel[:, 1:] * (7 / 6), bias, stride=4)
    expected = convolved.flatten(2).transpose(1, 2) + rescaled.encoder.pos_embed[:, 5:]
    with torch.no_grad():
        ours, other = (one.encoder.embed(images, meta, None, bands=bands) for one in (rescaled, learned))
    torch.testing.assert_close(ours[:, 5:], expected.detach(), atol=1e-5, rtol=1e-5)
    vector = learned.encoder.missing_bands[0].detach()
    torch.testing.assert_close(other[:, 5:] - ours[:, 5:], vector.expand(3, 100, -1), atol=1e-5, rtol=1e-4)
    assert torch.equal(other[:, :5], ours[:, :5])


def test_only_bands_that_are_missing_learn() -> None:
    model, (images, meta) = a_model("token").train(), some_batch()
    bands = SIX.repeat(3, 1)
    bands[1, 4] = False
    model.encode(images, meta, bands=bands, noise=False).tokens.square().sum().backward()
    reached = model.encoder.missing_bands.grad.abs().amax(dim=1) > 0
    assert reached.tolist() == [True, False, False, False, True, False, False]


def test_bands_of_another_shape_are_refused() -> None:
    model, (images, meta) = a_model(), some_batch()
    with pytest.raises(ValueError, match=r"bands has shape \(1, 7\); this model takes \(B, 7\)"):
        model.encode(images, meta, bands=SIX)


# --------------------------------------------------------------------------- configs and weights


def test_records_name_the_key_only_where_it_says_something() -> None:
    assert "missing_bands" not in ModelConfig.of_size("XXS").to_dict()
    config = ModelConfig.of_size("XXS", missing_bands="token")
    assert ModelConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="missing_bands: 'other' is none of mean, rescale, token"):
        ModelConfig.of_size("XXS", missing_bands="other")


def test_the_vectors_start_at_0_and_all_else_as_without_them(tmp_path) -> None:
    plain, token = tiny_model(), tiny_model(missing_bands="token")
    assert not token.encoder.missing_bands.any()
    assert all(torch.equal(value, token.state_dict()[name]) for name, value in plain.state_dict().items())
    assert "encoder.missing_bands" not in to_published(plain.state_dict(), plain.config)


def test_weights_without_vectors_are_where_a_training_with_them_begins(tmp_path) -> None:
    write_checkpoint(tmp_path / "plain.pth", tiny_model(), epoch=0, best_train_loss=0.0)
    write_checkpoint(tmp_path / "token.pth", a_model("token"), epoch=0, best_train_loss=0.0)
    images, meta = some_batch()
    begun = load_model(tmp_path / "plain.pth", {"missing_bands": "token"})
    assert not begun.encoder.missing_bands.any() and begun.config.missing_bands == "token"
    assert torch.equal(tokens(begun, images, meta), tokens(tiny_model(), images, meta))
    assert load_model(tmp_path / "plain.pth", {"missing_bands": "rescale"}).config.missing_bands == "rescale"
    back = load_model(tmp_path / "token.pth")
    assert torch.equal(back.encoder.missing_bands, a_model("token").encoder.missing_bands)
    with pytest.raises(CheckpointError, match="missing_bands is token, not mean"):
        load_model(tmp_path / "token.pth", {"missing_bands": "mean"})


# --------------------------------------------------------------------------- embedding


@KINDS
@pytest.mark.parametrize("backend", ["torch", "folded"])
def test_an_embedder_leaves_bands_out(kind: str, backend: str) -> None:
    model, (images, meta) = a_model(kind), some_batch()
    embedder, bands = Embedder(model, "meta_cls", backend=backend), SIX.expand(3, -1)
    expected = model.encode(images, meta, bands=bands).pre_norm[:, :5].flatten(1).detach()
    spoiled = images.clone()
    spoiled[:, 0] = torch.nan
    torch.testing.assert_close(embedder(spoiled, meta, None, bands), expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(embedder.of_visible(spoiled, meta, None, bands), expected, atol=2e-5, rtol=1e-4)


def test_a_runtime_that_takes_a_missing_band_for_given_is_refused(monkeypatch) -> None:
    model = a_model("token")
    wrong = runtimes.RUNTIMES["folded"]._replace(
        build=lambda model, read: (
            lambda images, meta, visible, bands: runtimes._torch(model, read)(images, meta, visible, None)
        )
    )
    monkeypatch.setitem(runtimes.RUNTIMES, "folded", wrong)
    with pytest.raises(runtimes.ConfigError, match="away from PyTorch"):
        runtimes.choose_runtime("folded", model, 1)


@pytest.mark.programs
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_other_runtimes_leave_bands_out(name: str) -> None:
    pytest.importorskip(name)
    model, (images, meta) = a_model("token", depth=1), some_batch()
    encode = runtimes.choose_runtime(name, model, 1)[1]  # compares
    bands = SIX.expand(3, -1)
    spoiled = images.clone()
    spoiled[:, 0] = torch.nan
    expected = tokens(model, images, meta, bands=bands)
    torch.testing.assert_close(encode(spoiled, meta, None, bands), expected, atol=2e-5, rtol=1e-4)
