"""Keys that the studies switch: the load loss alone, the reconstruction's size, the token for missing metadata."""

import numpy as np
import pytest
import torch
from balance import total_balance

from configs.build import loss_weights
from configs.schema import TrainingSection
from models.checkpoint import load_model, read_checkpoint, write_checkpoint
from models.config import ModelConfig
from models.losses import LossWeights, losses_of, mae_loss, masked_pass
from models.masking import random_masking
from models.moe_mae import MOEMAE, build_model
from models.noise import NoiseBuffers
from models.published_layout import to_published
from utils.errors import CheckpointError
from utils.randomness import generator

SMALL = {"size": "XXS", "embed_dim": 24, "depth": 3, "num_heads": 4, "num_groups": 2, "dfirsth": 16, "dlasth": 8}


def small(**numbers: object) -> MOEMAE:
    return build_model(ModelConfig.of_size(**{**SMALL, **numbers}), seed=3)


def some_batch(count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    source = generator(0, "batch")
    angles = torch.rand(count, 4, generator=source) * 6
    return torch.randn(count, 7, 40, 40, generator=source), torch.stack([angles.sin(), angles.cos()], dim=-1)


def masking_of(model: MOEMAE, count: int = 3):
    return random_masking(torch.rand(count, 100, generator=generator(1, "mask")), model.masking.ratio)


# --------------------------------------------------------------------------- load loss


@pytest.mark.parametrize(("published", "asked", "expected"), [
    (False, None, False), (True, None, True), (False, "published", True), (True, "shazeer", False),
])  # fmt: skip
def test_the_load_loss_follows_published_behaviour_unless_asked(published, asked, expected) -> None:
    assert ModelConfig.of_size("XXS", published_behaviour=published, load_loss=asked).published_load is expected


def test_the_load_loss_changes_the_balance_and_nothing_else() -> None:
    images, meta = some_batch()
    found = {}
    for name, numbers in {"own": {}, "key": {"load_loss": "published"}, "all": {"published_behaviour": True}}.items():
        model = small(**numbers).eval()
        with torch.no_grad():
            losses, passed = mae_loss(model, images, meta, masking_of(model), noise=False)
        found[name] = losses
        expected = total_balance(passed.encoded, model.config.published_load).item()
        assert losses.balance == pytest.approx(expected)
    assert found["own"].masked == found["key"].masked
    assert found["key"].balance == found["all"].balance != found["own"].balance


def test_the_load_loss_leaves_no_trace_in_the_weights(tmp_path) -> None:
    path = tmp_path / "a.pth"
    write_checkpoint(path, small(load_loss="published"), epoch=0, best_train_loss=0.0)
    assert load_model(path).config.load_loss == "published"
    assert load_model(path, {"load_loss": "shazeer"}).config.load_loss == "shazeer"


@pytest.mark.parametrize("field", ["load_loss", "missing_metadata"])
def test_other_values_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field}: 'other' is none of"):
        ModelConfig.of_size("XXS", **{field: "other"})


# --------------------------------------------------------------------------- size of the reconstruction loss


def test_the_mean_divides_the_reconstruction_and_not_the_balance() -> None:
    model = small().eval()
    images, meta = some_batch()
    sums = masked_pass(model, images, meta, masking_of(model), noise=False).sums
    training = {name: TrainingSection(reconstruction=name) for name in ("sum", "mean")}
    found = {
        name: losses_of(sums, model.config.experts, loss_weights(one, model.config)) for name, one in training.items()
    }
    reconstruction = {name: one.total - 0.5 * one.balance for name, one in found.items()}
    assert reconstruction["mean"].item() == pytest.approx(reconstruction["sum"].item() / 112, rel=1e-4)
    assert found["mean"].masked == found["sum"].masked and found["mean"].balance == found["sum"].balance


def test_the_default_is_the_published_sum_to_the_bit() -> None:
    weights = loss_weights(TrainingSection(), ModelConfig.of_size("XXS"))
    assert weights == LossWeights(0.1, 0.5)
    masked, visible, balance = (torch.tensor(value) for value in (31.7, 12.3, 0.37))
    assert torch.equal(weights.total(masked, visible, balance), masked + 0.1 * visible + 0.5 * balance)


# --------------------------------------------------------------------------- missing metadata


def test_without_the_token_nothing_is_other_than_published() -> None:
    plain, token = small(), small(missing_metadata="token")
    extra = set(token.state_dict()) - set(plain.state_dict())
    assert extra == {"encoder.missing_metadata"}
    assert all(torch.equal(value, token.state_dict()[name]) for name, value in plain.state_dict().items())
    assert "encoder.missing_metadata" not in to_published(plain.state_dict(), plain.config)


def test_the_token_stands_for_the_missing_fields_only() -> None:
    model, plain = small(missing_metadata="token").eval(), small().eval()
    with torch.no_grad():
        model.encoder.missing_metadata.copy_(torch.arange(4.0)[:, None].expand(4, 24))
    images, meta = some_batch()
    meta[1, 2] = 0.0  # the latitude of the second patch
    with torch.no_grad():
        ours, other = (one.encoder.embed(images, meta, None) for one in (model, plain))
    different = (ours != other).any(dim=-1).nonzero().tolist()
    assert different == [[1, 2]]
    expected = 2.0 + model.encoder.pos_embed[0, 2]
    torch.testing.assert_close(ours[1, 2], expected.detach())
    with torch.no_grad():
        none = model.encode(images, None).pre_norm
        pair = model.encode(images, torch.zeros_like(meta)).pre_norm
    torch.testing.assert_close(none, pair)


def test_a_pair_with_one_zero_is_not_missing() -> None:
    model, plain = small(missing_metadata="token").eval(), small().eval()
    torch.nn.init.ones_(model.encoder.missing_metadata)
    images, meta = some_batch()
    meta[:] = torch.tensor([0.0, 1.0])  # week 0, hour 0, the equator
    with torch.no_grad():
        torch.testing.assert_close(model.encode(images, meta).pre_norm, plain.encode(images, meta).pre_norm)


def test_gradients_reach_the_token_where_something_is_missing() -> None:
    model = small(missing_metadata="token").train()
    images, meta = some_batch()
    for missing in (False, True):
        meta = meta * (0.0 if missing else 1.0)
        model.zero_grad()
        presampled = NoiseBuffers(model.config, model.masking, 3, torch.device("cpu")).fill(generator(2, "draws"))
        losses, _ = mae_loss(model, images, meta, masking_of(model), presampled=presampled)
        losses.total.backward()
        gradient = model.encoder.missing_metadata.grad
        assert (gradient.abs().amax(dim=1) > 0).tolist() == [missing] * 4


def test_a_checkpoint_with_the_token_comes_back(tmp_path) -> None:
    model = small(missing_metadata="token").eval()
    torch.nn.init.normal_(model.encoder.missing_metadata)
    write_checkpoint(tmp_path / "a.pth", model, epoch=0, best_train_loss=0.0)
    back = load_model(tmp_path / "a.pth")
    assert back.config == model.config
    images, _ = some_batch()
    with torch.no_grad():
        assert torch.equal(back.encode(images).tokens, model.encode(images).tokens)
    with pytest.raises(CheckpointError, match="missing_metadata is token, not pair"):
        load_model(tmp_path / "a.pth", {"missing_metadata": "pair"})


def test_configs_saved_before_these_keys_are_still_read(tmp_path) -> None:
    values = ModelConfig.of_size("XXS").to_dict()
    del values["load_loss"], values["missing_metadata"]
    assert ModelConfig.from_dict(values) == ModelConfig.of_size("XXS")
    path = tmp_path / "a.pth"
    write_checkpoint(path, small(), epoch=0, best_train_loss=0.0)
    assert np.isfinite([value.sum().item() for value in read_checkpoint(path).model_state.values()]).all()
