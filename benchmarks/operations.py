"""Arithmetic of a pass, from the model's config: the numerator of the fractions of the machine's limit.

Multiply-adds of one patch with all experts computed densely, as this project does (18 % more than the top 2 alone).
One multiply-add is two operations; a backward pass costs twice the forward one.
"""

from models.config import ModelConfig
from models.masking import MaskingConfig, kept_patches


def block_multiply_adds(tokens: int, dim: int, heads: int, groups: int, width: int, experts: int) -> int:
    """One block on one sequence: projections, attention, gate, dense experts."""
    projections = 2 * dim * dim + 2 * dim * (dim // heads * groups)
    gate = 2 * dim * experts if experts > 1 else 0
    return tokens * (projections + gate + (experts + 2) * dim * width) + 2 * tokens**2 * dim


def encoder_multiply_adds(config: ModelConfig, patches: int) -> int:
    """The encoder's blocks on metadata, CLS and so many patches."""
    return sum(
        block_multiply_adds(
            config.num_prefix + patches, config.embed_dim, config.num_heads, config.num_groups, width, experts
        )
        for width, experts in zip(config.expert_widths, config.experts, strict=True)
    )


def decoder_multiply_adds(config: ModelConfig) -> int:
    """The decoder's blocks and the predicted values."""
    block = block_multiply_adds(
        config.num_tokens, config.decoder_dim, config.decoder_heads, config.decoder_groups, config.decoder_width,
        config.decoder_experts,
    )  # fmt: skip
    return config.decoder_depth * block + config.num_patches * config.decoder_dim * config.patch_values


def patch_embedding_multiply_adds(config: ModelConfig) -> int:
    """All patches of an image to tokens."""
    return config.num_patches * config.patch_values * config.embed_dim


def training_operations(config: ModelConfig) -> int:
    """Operations of a patch in a training step: forward, and backward at twice that."""
    kept = kept_patches(config.num_patches, MaskingConfig().ratio)
    between = (config.num_prefix + kept) * config.embed_dim * config.decoder_dim
    forward = (
        patch_embedding_multiply_adds(config)
        + encoder_multiply_adds(config, kept)
        + between
        + decoder_multiply_adds(config)
    )
    return 6 * forward


def embedding_operations(config: ModelConfig) -> int:
    """Operations of embedding a patch with all its tokens."""
    return 2 * (patch_embedding_multiply_adds(config) + encoder_multiply_adds(config, config.num_patches))
