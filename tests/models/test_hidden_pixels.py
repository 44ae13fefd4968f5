"""What cannot be seen: hidden patches and pixels influence nothing, in embedding, evaluation and training alike."""

import numpy as np
import pytest
import torch
from tiny import tiny_model
from tiny_step import CONFIG, a_batch, a_step

from models.inference.embedder import Embedder
from models.losses import losses_of, masked_pass
from models.masking import LEAST_VISIBLE, MaskingConfig, keep_all, make_masking, visible_patches, visible_unless_all
from models.pooling import POOLINGS, pool_tokens
from transformation.transformer import ZScoreNormalize, fill_hidden
from utils.data_config import BigEarthNetInfo
from utils.randomness import generator

ANYTHING = (0.0, -1e30, float("inf"), float("nan"))


def some_images(size: int = 4) -> torch.Tensor:
    return torch.randn(size, 7, 40, 40, generator=generator(0, "hidden pixels"))


def some_valid(size: int = 4) -> torch.Tensor:
    """The first image is whole; the others have a hidden half, spots, and a strip of one pixel left."""
    valid = torch.ones(size, 40, 40, dtype=torch.bool)
    valid[1, :, :20] = False
    valid[2] = torch.rand(40, 40, generator=generator(1, "spots")) > 0.6
    valid[3, :, 1:] = False
    return valid


def painted(images: torch.Tensor, valid: torch.Tensor, value: float) -> torch.Tensor:
    return torch.where(valid.unsqueeze(1), images, value)


def patches_of(visible: torch.Tensor) -> torch.Tensor:
    """(B, N) patches to (B, H, W) pixels."""
    return visible.unflatten(1, (10, 10)).repeat_interleave(4, 1).repeat_interleave(4, 2)


@pytest.mark.parametrize("value", ANYTHING)
def test_whatever_hidden_patches_hold_the_tokens_have_the_same_bits(value: float) -> None:
    model, images, visible = tiny_model(), some_images(), visible_patches(some_valid(), 4)
    with torch.no_grad():
        expected = model.encode(images, visible=visible)
        found = model.encode(painted(images, patches_of(visible), value), visible=visible)
    assert torch.equal(found.pre_norm, expected.pre_norm) and torch.equal(found.tokens, expected.tokens)


def test_hidden_patches_are_left_out_as_masked_ones_are() -> None:
    model, images, visible = tiny_model(), some_images(), visible_patches(some_valid(), 4)
    with torch.no_grad():
        found = model.encode(images, visible=visible)
        for row, seen in enumerate(visible):
            alone = model.encode(images[row : row + 1], ids_keep=seen.nonzero().T).pre_norm[0]
            kept = torch.cat([torch.ones(5, dtype=torch.bool), seen])
            torch.testing.assert_close(found.pre_norm[row, kept], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pool", POOLINGS)
@pytest.mark.parametrize("value", ANYTHING)
def test_hidden_pixels_leave_every_pooling_as_it_is(pool: str, value: float) -> None:
    model, images, valid = tiny_model(), some_images(), some_valid()
    embedder = Embedder(model, pool)
    vectors = embedder(fill_hidden(images, valid), None, valid)
    assert torch.isfinite(vectors).all()
    assert torch.equal(embedder(fill_hidden(painted(images, valid, value), valid), None, valid), vectors)


def test_pools_are_of_what_was_seen() -> None:
    tokens, visible = torch.randn(2, 15, 3), torch.ones(2, 10, dtype=torch.bool)
    visible[1, 4:] = False
    mean = tokens[1, 5:9].mean(dim=0)
    assert torch.equal(pool_tokens(tokens, "patch_mean", 5, visible)[0], pool_tokens(tokens, "patch_mean", 5)[0])
    torch.testing.assert_close(pool_tokens(tokens, "patch_mean", 5, visible)[1], mean)
    torch.testing.assert_close(pool_tokens(tokens, "mean", 5, visible)[1], (tokens[1, :5].sum(dim=0) + 10 * mean) / 15)
    assert torch.equal(pool_tokens(tokens, "cls", 5, visible), tokens[:, 4])
    spread = pool_tokens(tokens, "cls_mean_std", 5, visible)[:, 6:]
    torch.testing.assert_close(spread[1], tokens[1, 5:9].std(dim=0, correction=0))
    torch.testing.assert_close(spread[0], tokens[0, 5:].std(dim=0, correction=0))


def test_whole_images_take_the_plain_path() -> None:
    model, images, valid = tiny_model(), some_images(), some_valid()
    embedder = Embedder(model, "mean")
    whole = torch.ones_like(valid)
    assert visible_unless_all(whole, 4) is None
    found, expected = embedder(images, None, whole), embedder(images, None)
    assert torch.equal(found, expected)
    among = embedder(fill_hidden(images, valid), None, valid)[0]
    torch.testing.assert_close(among, expected[0], atol=1e-6, rtol=1e-6)
    with torch.no_grad():
        everything = model.encode(images, visible=torch.ones(4, 100, dtype=torch.bool))
        torch.testing.assert_close(everything.pre_norm, model.encode(images).pre_norm, atol=1e-6, rtol=1e-6)


def test_which_patches_are_visible() -> None:
    valid = torch.zeros(4, 8, 8, dtype=torch.bool)
    valid[0, :4, :4] = True  # one patch of four
    least = round(16 * LEAST_VISIBLE)
    valid[1].view(-1)[[0, 1, 2, 3, 8, 9, 10, 11][:least]] = True  # just enough of the first
    valid[1, 0, 4] = True  # too little of the second
    valid[2, 7, 7] = True  # all that there is
    assert visible_patches(valid, 4).tolist() == [
        [True, False, False, False],
        [True, False, False, False],
        [False, False, False, True],
        [False, False, False, False],
    ]


def test_hidden_pixels_get_the_mean_of_their_patch() -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(7_000, 20_000, (2, 7, 40, 40), dtype=np.uint16))
    normalize = ZScoreNormalize(BigEarthNetInfo.STATISTICS)
    whole = normalize(pixels).images
    pixels[1, :, :2, :4], pixels[1, :, 8:12, 8:12] = 0, 0
    images, valid = normalize(pixels)
    assert torch.equal(images[0], whole[0]) and torch.equal(images[1][:, valid[1]], whole[1][:, valid[1]])
    expected = whole[1, :, 2:4, :4].mean(dim=(1, 2))[:, None, None]
    torch.testing.assert_close(images[1, :, :2, :4], expected.expand(7, 2, 4))
    assert (images[1, :, 8:12, 8:12] == 0).all()
    odd = fill_hidden(some_images()[:, :, :37, :38], some_valid()[:, :37, :38])
    assert odd.shape == (4, 7, 37, 38) and torch.isfinite(odd).all()


def test_masks_are_drawn_among_visible_patches() -> None:
    visible = visible_patches(some_valid(), 4)
    noise = torch.rand(4, 100, generator=generator(0, "noise"))
    masking = make_masking(noise, MaskingConfig(), visible)
    seen = masking.mask == 0
    assert not (seen & ~visible).any() and masking.ids_keep.shape == (4, 25)
    assert seen.sum(dim=1).tolist() == [max(1, round(0.25 * count)) for count in visible.sum(dim=1).tolist()]
    whole = make_masking(noise, MaskingConfig())
    assert torch.equal(masking.mask[0], whole.mask[0]) and torch.equal(masking.ids_restore[0], whole.ids_restore[0])


@pytest.mark.parametrize("keep", ["a quarter", "all"])
def test_a_masked_pass_sees_no_hidden_patch(keep: str) -> None:
    model, valid, images = tiny_model(), some_valid(), some_images()
    visible = visible_patches(valid, 4)
    noise = torch.rand(4, 100, generator=generator(0, "noise"))
    masking = (
        make_masking(noise, MaskingConfig(), visible) if keep == "a quarter" else keep_all(4, 100, visible=visible)
    )
    with torch.no_grad():
        expected = masked_pass(model, images, None, masking, valid)
        found = masked_pass(model, painted(images, patches_of(masking.mask == 0), 7.0), None, masking, valid)
    assert torch.equal(found.predicted, expected.predicted)
    assert torch.equal(found.sums[4:], expected.sums[4:])  # importance and load
    tokens = float((masking.mask == 0).sum()) + 5 * 4
    experts = len(expected.sums[4:]) // 2
    assert expected.sums[4 : 4 + experts].sum().item() == pytest.approx(
        tokens * len(expected.encoded.routing), rel=1e-5
    )
    assert torch.isfinite(losses_of(expected.sums, model.config.experts, a_step().options.weights).total)


def test_a_training_step_sees_no_hidden_patch() -> None:
    batch = a_batch()
    batch.valid[1, :8], batch.valid[2] = False, False
    hidden = ~visible_patches(batch.valid, 4)
    where = hidden.unflatten(1, (4, 4)).repeat_interleave(4, 1).repeat_interleave(4, 2).unsqueeze(1)
    where = where & ~batch.valid.unsqueeze(1)
    other = batch._replace(images=torch.where(where, 50.0, batch.images))
    results = []
    for one in (batch, other):
        step = a_step()
        results.append((step(one, 0, 1e-3).losses.total, step.model.state_dict()))
    (loss, weights), (again, same) = results
    assert where.any() and torch.isfinite(loss) and torch.equal(loss, again)
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_a_training_step_of_whole_images_takes_the_plain_path() -> None:
    batch = a_batch()
    step = a_step()
    assert step.inputs(batch._replace(valid=torch.ones_like(batch.valid)), 0).visible is None
    assert step.inputs(batch, 0).visible is not None
    published = a_step(config=CONFIG.replace(published_behaviour=True))
    assert published.inputs(batch, 0).visible is None


def test_visible_has_to_fit() -> None:
    with pytest.raises(ValueError, match="visible has shape"):
        tiny_model().encode(some_images(), visible=torch.ones(4, 99, dtype=torch.bool))
