"""A checkpoint of a tiny model, for tests that need weights but not good ones."""

from pathlib import Path

import pytest
import torch
from tiny import TINY_MODEL

from models import MOEMAE, build_model
from models.checkpoint import EXTRA_KEY, write_checkpoint


def tiny_model(**overrides: object) -> MOEMAE:
    options = {key: value for key, value in TINY_MODEL.items() if key not in ("size", "device")}
    return build_model("XXS", seed=0, **{**options, **overrides}).eval()


def write_tiny_checkpoint(path: Path, **overrides: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(path, tiny_model(**overrides), epoch=2, best_train_loss=1.5)
    return path


def write_published_checkpoint(path: Path) -> Path:
    """A small model's weights as the published code would write them (its widths must be those of a size)."""
    write_checkpoint(path, build_model("XXS", seed=0), epoch=0, best_train_loss=0.0)
    content = torch.load(path, weights_only=True)
    del content[EXTRA_KEY]
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A fixture, which a test file takes by name."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("weights") / "tiny.pth")
