"""Properties of the model: what must hold whatever the weights are."""

import numpy as np
import pytest
import torch

from models import ModelConfig, build_model
from models.losses import mae_loss
from models.masking import keep_all, kept_patches, patchify, random_masking, unpatchify
from models.moe_mae import count_parameters
from utils.randomness import generator

COUNTS = {"S": (2_366_798, 2_537_562), "XS": (1_209_996, 1_379_032), "XXS": (657_817, 824_693)}


def some_batch(model, size=3, seed=0):
    rng = generator(seed, "test batch")
    config = model.config
    images = torch.randn(size, config.in_channels, config.img_size, config.img_size, generator=rng)
    masking = random_masking(torch.rand(size, config.num_patches, generator=rng), model.masking.ratio)
    return images, torch.randn(size, 4, 2, generator=rng), masking


@pytest.mark.parametrize("size", COUNTS)
def test_parameter_counts(size: str) -> None:
    model = build_model(size)
    assert (count_parameters(model.encoder), count_parameters(model)) == COUNTS[size]


def test_expert_widths_and_counts_of_size_s() -> None:
    config = ModelConfig.of_size("S")
    assert config.expert_widths == (144, 138, 133, 128, 123, 118, 113, 108, 102, 97, 92, 87, 82, 77, 72)
    assert config.experts == (3,) * 5 + (4,) * 5 + (5,) * 5
    assert config.num_tokens == 105


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"img_size": 42}, "img_size"),
        ({"num_groups": 3}, "num_heads"),
        ({"embed_dim": 145}, "embed_dim"),
        ({"experts": 2}, "k"),
        ({"experts": [3, 3]}, "experts"),
        ({"k": 3}, "k"),
        ({"read_depth": 16}, "read_depth"),
    ],
)
def test_impossible_values_are_named(overrides: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        build_model("S", **overrides)


def test_same_seed_same_weights_and_the_default_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, again, other = (build_model("XXS", seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["encoder.pos_embed"], other["encoder.pos_embed"])


def test_masked_pixels_cannot_reach_the_encoder() -> None:
    model = build_model("XXS", seed=0).eval()
    images, meta, masking = some_batch(model)
    hidden = unpatchify(masking.mask.unsqueeze(-1).expand(-1, -1, 112), 4, 7)
    changed = torch.where(hidden.bool(), torch.full_like(images, 1e4), images)
    ours = model.encode(images, meta, masking.ids_keep)
    assert torch.equal(ours.tokens, model.encode(changed, meta, masking.ids_keep).tokens)
    assert ours.tokens.shape == (3, 30, 108)


def test_keeping_every_patch_equals_no_mask() -> None:
    model = build_model("XXS", seed=0).eval()
    images, meta, _ = some_batch(model)
    masking = keep_all(3, 100)
    assert torch.equal(masking.mask, torch.zeros(3, 100))
    assert torch.equal(model.encode(images, meta, masking.ids_keep).tokens, model.encode(images, meta).tokens)
    shuffled = random_masking(torch.rand(3, 100, generator=generator(0, "x")), 0.0)
    tokens = model.encode(images, meta, shuffled.ids_keep)
    order = shuffled.ids_restore.unsqueeze(-1).expand(-1, -1, 108)
    torch.testing.assert_close(tokens.patches.gather(1, order), model.encode(images, meta).patches, atol=1e-5, rtol=0)


def test_missing_metadata_is_the_pair_of_zeros() -> None:
    model = build_model("XXS", seed=0).eval()
    images, _, _ = some_batch(model)
    assert torch.equal(model.encode(images).tokens, model.encode(images, torch.zeros(3, 4, 2)).tokens)


def test_parts_of_the_encoding() -> None:
    model = build_model("XXS", seed=0).eval()
    images, meta, masking = some_batch(model)
    encoded = model.encode(images, meta, masking.ids_keep)
    assert torch.equal(encoded.cls, encoded.tokens[:, 4])
    assert encoded.meta.shape == (3, 4, 108)
    assert encoded.patches.shape == (3, 25, 108)
    assert torch.equal(encoded.tokens, model.encoder.norm(encoded.pre_norm))
    assert len(encoded.routing) == 9
    assert encoded.routing[0].gates.shape == (3 * 30, 3)


def test_tokens_are_read_after_the_block_that_the_config_names() -> None:
    whole, early = (build_model("XXS", seed=0, dropout=0.0, read_depth=depth).eval() for depth in (None, 6))
    images, meta, masking = some_batch(whole)
    after = []
    whole.encoder.layers[5].register_forward_hook(lambda block, given, result: after.append(result[0]))
    expected, found = whole.encode(images, meta), early.encode(images, meta)
    assert torch.equal(found.pre_norm, after[0]) and not torch.equal(found.pre_norm, expected.pre_norm)
    assert torch.equal(found.tokens, expected.tokens) and len(found.routing) == 9  # the decoder's are the last block's
    assert torch.equal(early(images, meta, masking)[0], whole(images, meta, masking)[0])

    def fail(*_: object) -> None:
        raise AssertionError("a block was computed that embeddings do not need")

    early.encoder.layers[6].register_forward_hook(fail)
    short = early.encode(images, meta, to_read=True)
    assert torch.equal(short.pre_norm, found.pre_norm) and len(short.routing) == 6
    columns = {"when": "2017-06-13T10:10:31", "lat": 48.2, "lon": 16.4}
    pixels = torch.randint(7_000, 20_000, (2, 7, 40, 40)).numpy().astype("uint16")
    vectors = early.embed(pixels, **columns, pool="cls")
    assert not np.allclose(vectors, whole.embed(pixels, **columns, pool="cls"))


def test_all_blocks_is_the_same_as_leaving_it_out() -> None:
    assert ModelConfig.of_size("XXS", read_depth=9) == ModelConfig.of_size("XXS")


def test_noise_is_on_in_training_only_unless_asked() -> None:
    model = build_model("XXS", seed=0, dropout=0.0)
    images, meta, _ = some_batch(model)

    def tokens(noise=None, seed=0):
        return model.encode(images, meta, noise=noise, generator=generator(seed, "noise")).tokens

    model.eval()
    assert torch.equal(tokens(seed=0), tokens(seed=1))
    assert not torch.equal(tokens(noise=True, seed=0), tokens(noise=True, seed=1))
    model.train()
    assert not torch.equal(tokens(seed=0), tokens(seed=1))
    assert torch.equal(tokens(seed=1), tokens(seed=1))
    assert torch.equal(tokens(noise=False, seed=0), tokens(noise=False, seed=1))


def test_every_parameter_but_the_key_biases_learns() -> None:
    """A key bias shifts all scores of a query alike, so its gradient is zero by nature."""
    model = build_model("XXS", seed=0).train()
    reached = {name: 0.0 for name, _ in model.named_parameters()}
    for step in range(10):
        model.zero_grad()
        losses, _ = mae_loss(model, *some_batch(model, seed=step), generator=generator(step, "noise"))
        losses.total.backward()
        for name, parameter in model.named_parameters():
            reached[name] = max(reached[name], parameter.grad.abs().max().item())
    asleep = {name for name, value in reached.items() if value < 1e-7}
    assert asleep <= {name for name in reached if name.endswith("k_proj.bias")}


@pytest.mark.parametrize(("img_size", "patch_size", "channels"), [(24, 4, 7), (40, 8, 3), (30, 5, 12)])
def test_any_image_size_and_number_of_bands(img_size: int, patch_size: int, channels: int) -> None:
    model = build_model("XXS", img_size=img_size, patch_size=patch_size, in_channels=channels).eval()
    images, meta, masking = some_batch(model, size=2)
    predicted, _ = model(images, meta, masking)
    assert predicted.shape == (2, (img_size // patch_size) ** 2, channels * patch_size**2)
    with pytest.raises(ValueError, match="this model takes"):
        model.encode(images[:, :, :-1], meta)
    with pytest.raises(ValueError, match="metadata"):
        model.encode(images, meta[:, :3])


def test_patchify_is_unfold_and_inverts() -> None:
    images = torch.randn(2, 7, 40, 40)
    patches = patchify(images, 4)
    assert torch.equal(patches, torch.nn.functional.unfold(images, 4, stride=4).transpose(1, 2))
    assert torch.equal(unpatchify(patches, 4, 7), images)


@pytest.mark.parametrize(("ratio", "kept"), [(0.75, 25), (0.9, 10), (0.0, 100), (0.999, 1), (0.29, 71)])
def test_masking_keeps_the_right_number(ratio: float, kept: int) -> None:
    masking = random_masking(torch.rand(4, 100), ratio)
    assert kept_patches(100, ratio) == kept == masking.ids_keep.shape[1]
    assert (masking.mask == 0).sum(1).eq(kept).all()
    assert masking.mask.gather(1, masking.ids_keep).eq(0).all()


def test_fill_pixels_weigh_nothing() -> None:
    model = build_model("XXS", seed=0).eval()
    images, meta, masking = some_batch(model)
    valid = torch.ones(3, 40, 40, dtype=torch.bool)
    plain, _ = mae_loss(model, images, meta, masking)
    weighted, _ = mae_loss(model, images, meta, masking, valid)
    assert plain.masked.item() == pytest.approx(weighted.masked.item(), rel=1e-6)

    valid[:, :8, :8] = False
    removed = random_masking(torch.arange(100.0).flip(0).expand(3, -1), 0.75)  # the first 75 patches are removed
    images = torch.where(valid.unsqueeze(1), images, 0.0)
    spoiled = torch.where(valid.unsqueeze(1), images, 50.0)
    hidden, _ = mae_loss(model, images, meta, removed, valid)
    ignored, _ = mae_loss(model, spoiled, meta, removed, valid)
    assert hidden.masked.item() == ignored.masked.item()
    # A constant error of 2 everywhere gives 4 * 112, however many pixels are valid.
    from models.losses import patch_errors

    errors = patch_errors(patchify(images, 4) + 2.0, images, valid, 4)
    assert errors.mean(removed.mask).item() == pytest.approx(4 * 112, rel=1e-5)
    assert errors.mean(torch.zeros(3, 100)).item() == 0.0
