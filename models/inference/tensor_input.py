"""Digital numbers and metadata columns to what an encoder takes, in tensor operations: for graphs and other tools."""

from typing import NamedTuple

import torch
from torch import Tensor

from models.config import ModelConfig
from models.masking import visible_patches
from transformation.transformer import fill_hidden
from utils.metadata import encode_values


class EncoderInput(NamedTuple):
    """A batch as `MOEMAE.encode` takes it."""

    images: Tensor
    """(B, C, H, W) z-scores."""
    meta: Tensor
    """(B, F, 2)"""
    visible: Tensor | None
    """(B, N) bool, patches that can be seen; None where fill is taken for data."""


def encoder_input(pixels: Tensor, metadata: Tensor, mean: Tensor, std: Tensor, config: ModelConfig) -> EncoderInput:
    """A batch from numbers as they are stored.

    Args:
        pixels: (B, C, S, S) digital numbers, 0 for fill.
        metadata: (B, F) float, columns of the model's fields in plain units (`utils.metadata.FIELDS`); NaN: not known.
        mean, std: (C, 1, 1) of the bands.
        config: the model's.
    """
    images = (pixels.to(torch.float32) - mean) / std
    meta = encode_values(metadata, config.meta_fields, config.published_behaviour)
    if config.published_behaviour:
        return EncoderInput(images, meta, None)
    valid = (pixels != 0).all(dim=1)
    return EncoderInput(fill_hidden(images, valid), meta, visible_patches(valid, config.patch_size))
