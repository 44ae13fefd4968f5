"""Targets that are also read from the first numbers of their tokens."""

import pytest
import torch
from target_step import fitted, plus_step
from tiny import training_config
from tiny_step import CONFIG, a_batch

from configs.schema import read_config
from models.target import TargetOptions
from models.targets import TARGETS
from training.pretrain import Pretraining
from training.stopping import StopSignals
from utils.errors import ConfigError

FROM_PATCHES = ("patch_features", "normalised_pixels")
FROM_TOKENS = tuple(name for name in TARGETS if name not in FROM_PATCHES)


@pytest.mark.parametrize("name", FROM_TOKENS)
def test_the_error_is_the_mean_over_the_widths(name: str) -> None:
    """Of the whole tokens, and of tokens whose later numbers are 0."""
    found = []
    for widths in ((), (8,)):
        step = plus_step(fitted({name: 1.0}, TargetOptions(widths=widths)))
        found.append(step(a_batch(), 0, 0.0).targets.item())
    step = plus_step(fitted({name: 1.0}))
    target = step.targets.heads[name]
    real = target.tokens
    target.tokens = lambda encoded: real(encoded) * (torch.arange(CONFIG.embed_dim) < 8)
    alone = step(a_batch(), 0, 0.0).targets.item()
    assert alone != pytest.approx(found[0], rel=1e-6)
    assert found[1] == pytest.approx((found[0] + alone) / 2, rel=1e-5)


@pytest.mark.parametrize("name", FROM_PATCHES)
def test_what_is_read_from_the_decoder_has_no_widths(name: str) -> None:
    one, other = (
        plus_step(fitted({name: 1.0}, TargetOptions(widths=widths)))(a_batch(), 0, 0.0) for widths in ((), (8,))
    )
    assert torch.equal(one.targets, other.targets)


def test_a_width_that_the_model_does_not_have_is_refused(tmp_path) -> None:
    config = read_config(
        str(training_config(tmp_path, 4, targets={"image": 1}, target_widths=[8, 24])), [], (), fresh_model=True
    )
    with pytest.raises(ConfigError, match=r"training\.target_widths: 24 is not below the model's width, 24"):
        Pretraining(config, False, StopSignals())
