"""Poolings by their table, and the one that weights name for themselves."""

import numpy as np
import pytest
import torch
from tiny import some_pixels, tiny_model

from models.checkpoint import load_model, write_checkpoint
from models.config import ModelConfig
from models.pooling import MAP_POOLINGS, POOLINGS, WINDOW_POOLINGS, pool_tokens, vector_width
from scenes.choices import MAP_POOL, map_pool

TOKENS = torch.randn(3, 9, 5, generator=torch.Generator().manual_seed(0))
P = 3


@pytest.mark.parametrize("name", POOLINGS)
def test_the_width_is_what_the_table_says(name: str) -> None:
    config = ModelConfig.of_size("XXS")
    tokens = torch.zeros(2, config.num_tokens, config.embed_dim)
    assert pool_tokens(tokens, name, config.num_prefix).shape == (2, vector_width(config, name))


@pytest.mark.parametrize("name", MAP_POOLINGS)
def test_a_maps_cells_have_the_pooled_vector_as_their_mean(name: str) -> None:
    cells = POOLINGS[name].of_patches(TOKENS, P, None)
    torch.testing.assert_close(cells.mean(dim=1), pool_tokens(TOKENS, name, P))
    assert (cells == cells[:, :1]).all() == (name in WINDOW_POOLINGS)


def test_the_parts_of_the_wide_poolings() -> None:
    vector = pool_tokens(TOKENS, "meta_cls_mean_std", P).numpy().reshape(3, 4, 5)
    tokens = TOKENS.numpy()
    expected = [tokens[:, :2].mean(1), tokens[:, 2], tokens[:, 3:].mean(1), tokens[:, 3:].std(1)]
    np.testing.assert_allclose(vector, np.stack(expected, axis=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(vector[:, 1:].reshape(3, -1), pool_tokens(TOKENS, "cls_mean_std", P))
    # A model without metadata has no such part.
    torch.testing.assert_close(pool_tokens(TOKENS, "meta_cls_mean_std", 1), pool_tokens(TOKENS, "cls_mean_std", 1))
    summary = pool_tokens(TOKENS, "summary", P).numpy().reshape(3, 5, 5)
    cls, spread = expected[1], expected[3]
    scaled = (cls - cls.mean(1, keepdims=True)) / np.sqrt(cls.var(1, keepdims=True) + 1e-5)
    of_it = [*expected[:2], scaled, expected[2], np.log(spread + 1e-3)]
    np.testing.assert_allclose(summary, np.stack(of_it, axis=1), rtol=1e-4, atol=1e-5)
    assert pool_tokens(torch.zeros(2, 4, 5), "summary", P).isfinite().all(), "one patch, without any spread"


def test_weights_name_their_pooling_and_others_are_read_out_with_cls(tmp_path) -> None:
    pixels, where = some_pixels(shape=(7, 40, 40)), {"when": "2017-06-13T10:10:31", "lat": 48.2, "lon": 16.4}
    for pool, expected in ((None, "cls"), ("cls_mean_std", "cls_mean_std")):
        path = tmp_path / f"{pool}.pth"
        write_checkpoint(path, tiny_model(pool=pool), epoch=0, best_train_loss=0.0)
        model = load_model(path)
        assert model.config.pool == expected
        np.testing.assert_array_equal(model.embed(pixels, **where), model.embed(pixels, **where, pool=expected))
    assert load_model(path, {"pool": "mean"}).config.pool == "mean"  # a config may ask for another
    assert "pool" not in tiny_model().config.to_dict()


def test_maps_follow_the_weights_where_cells_can() -> None:
    config = ModelConfig.of_size("XXS")
    found = [map_pool(config.replace(pool=pool)) for pool in ("cls", "cls_mean_std", "all", "meta_cls")]
    assert found == [MAP_POOL, "cls_mean_std", MAP_POOL, "summary"]
    with pytest.raises(ValueError, match="pool: 'best' is none of"):
        ModelConfig.of_size("XXS", pool="best")
