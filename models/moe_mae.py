"""The model of the paper (arXiv:2509.10919): MOEMAE; its Encoder and Block are in `models.encoder`.

    pixels ─ patch_proj ─┐
    week, hour, lat, lon ┴ [F metadata | CLS | patches] + positions ─ (keep 25 %) ─ 15 blocks ─ norm ─ tokens
    tokens ─ decoder_embed ─ [prefix | kept patches and mask tokens, in place] ─ 2 blocks ─ norm ─ predicted patches

Dimensions: B batch, N patches, n patches kept, F metadata fields (4 as published), P = F + 1 tokens before the
patches, S = P + n tokens, D width, C bands, p patch side.
"""

from typing import Any

import torch
from torch import Tensor, nn

from models.api import Interface
from models.config import ModelConfig
from models.encoder import Block, Encoded, Encoder
from models.kernels.backend import Backend, backend_for
from models.masking import Masking, MaskingConfig
from models.moe import NO_NOISE
from models.noise import LayerNoise, LayerNoiseBuffers, PassNoise
from models.positions import start_positions, truncated_normal
from models.second_sensor import first_weights, second_head
from utils.errors import ConfigError
from utils.randomness import derive_seed


class MOEMAE(Interface, nn.Module):
    """Metadata-aware mixture-of-experts masked autoencoder.

    `encode` is the one way to tokens, with or without a mask; `forward` is the masked autoencoder.
    The routing noise is on in training mode and off otherwise, unless `noise` says so.

    Attributes:
        config: what shapes the weights and the forward pass.
        masking: how images are masked in training, and in evaluation unless something else is asked for.
        backend: the kernels of every pass; None takes the fastest for the device and the mode of each pass.
    """

    def __init__(self, config: ModelConfig, masking: MaskingConfig = MaskingConfig()) -> None:  # noqa: B008
        if not isinstance(config, ModelConfig):
            raise ConfigError(
                f"MOEMAE: takes a ModelConfig, not a {type(config).__name__}; build_model(size) gives the whole model, "
                "MOEMAE.from_pretrained(path) a trained one"
            )
        super().__init__()
        self.config, self.masking = config, masking
        self.backend: Backend | None = None
        self.encoder = Encoder(config)
        dim = config.decoder_dim
        self.decoder_embed = nn.Linear(config.embed_dim, dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim))
        self.decoder_pos_embed = nn.Parameter(torch.empty(1, config.num_patches, dim))
        self.decoder_layers = nn.ModuleList(
            Block(
                dim,
                config.decoder_heads,
                config.decoder_groups,
                config.decoder_width,
                config.decoder_experts,
                config.decoder_k,
            )
            for _ in range(config.decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(dim)
        self.decoder_pred = nn.Linear(dim, config.patch_values)
        truncated_normal(self.mask_token, 0.02)
        start_positions(self.decoder_pos_embed, config)
        with torch.random.fork_rng(devices=[]):  # what it draws is replaced, and all other weights start as without it
            self.decoder_pred_msi = second_head(config)
        if self.decoder_pred_msi is not None:
            self.load_state_dict(first_weights(self.state_dict()), strict=False)

    def encode(
        self,
        images: Tensor,
        meta: Tensor | None = None,
        ids_keep: Tensor | None = None,
        *,
        visible: Tensor | None = None,
        bands: Tensor | None = None,
        noise: bool | None = None,
        generator: torch.Generator | None = None,
        presampled: tuple[LayerNoise, ...] | None = None,
        to_read: bool = False,
    ) -> Encoded:
        """Encode all patches, or only those in `ids_keep`.

        Args:
            images: (B, C, H, W), normalised, of one of the model's sensors: C says of which.
            meta: (B, F, 2) rows (sin, cos) of the model's `meta_fields`, see `utils.metadata.encode_metadata`; None is
                the missing pair (0, 0) in every row. What stands for that pair is the model's `missing_metadata`.
            ids_keep: (B, n) patches to encode; None means all, in order.
            visible: (B, N) bool, patches that can be seen, see `models.masking.visible_patches`; what stands in the
                others influences nothing, and their tokens only fill up the shape. None means all.
            bands: (B, C) bool, bands of the first sensor that are given; what stands in the others influences nothing.
                What stands for them is the model's `missing_bands`. None means all.
            noise: routing noise; None means on in training mode only.
            generator: source of routing noise and dropout; None means torch's default one.
            presampled: routing noise and dropout masks of every block, in place of `noise` and `generator`.
            to_read: leave out the blocks after the one that embeddings are read from (`read_depth`); `tokens` and
                `routing` then end with it.

        Raises:
            ValueError: when the images, the metadata, `visible` or `bands` have another shape than the model's.
        """
        config = self.config
        sides = (config.img_size, config.img_size)
        if images.dim() != 4 or images.shape[1] not in config.channels or tuple(images.shape[2:]) != sides:
            taken = " or ".join(f"(B, {(channels, *sides)})" for channels in config.channels)
            raise ValueError(f"images have shape {tuple(images.shape)}; this model takes {taken}")
        meta_shape = (images.shape[0], len(config.meta_fields), 2)
        if meta is None:
            meta = images.new_zeros(meta_shape)
        elif tuple(meta.shape) != meta_shape:
            raise ValueError(
                f"metadata have shape {tuple(meta.shape)}; expected {meta_shape} for {', '.join(config.meta_fields)}"
            )
        if visible is not None and tuple(visible.shape) != (images.shape[0], config.num_patches):
            raise ValueError(f"visible has shape {tuple(visible.shape)}; this model takes (B, {config.num_patches})")
        if bands is not None and tuple(bands.shape) != (images.shape[0], config.in_channels):
            raise ValueError(f"bands has shape {tuple(bands.shape)}; this model takes (B, {config.in_channels})")
        if presampled is None:
            tokens = config.num_prefix + (config.num_patches if ids_keep is None else ids_keep.shape[1])
            shape = (images.shape[0], tokens, config.embed_dim)
            presampled = self._sample_noise(config.experts, shape, images.device, noise, generator)
        return self.encoder(images, meta, ids_keep, presampled, self.backend, visible, bands, to_read)

    def decode(
        self,
        tokens: Tensor,
        ids_restore: Tensor,
        *,
        noise: bool | None = None,
        generator: torch.Generator | None = None,
        presampled: tuple[LayerNoise, ...] | None = None,
    ) -> Tensor:
        """Predict every patch: (B, P + n, D) tokens after the norm and (B, N) `ids_restore` to (B, N, C * p * p).

        `noise`, `generator` and `presampled` as for `encode`.
        """
        decoded = self.decode_tokens(tokens, ids_restore, noise=noise, generator=generator, presampled=presampled)
        return self.predict(decoded)

    def predict(self, decoded: Tensor, channels: int | None = None) -> Tensor:
        """The patches, (B, N, C * p * p), from the tokens that `decode_tokens` gives.

        `channels` is C of the batch, which says whose patches they are; None: the first sensor's.
        """
        backend = self.backend or backend_for(decoded.device)
        head = self.decoder_pred
        if self.decoder_pred_msi is not None and channels not in (None, self.config.in_channels):
            head = self.decoder_pred_msi
        return backend.linear(decoded, head.weight, head.bias)

    def decode_tokens(
        self,
        tokens: Tensor,
        ids_restore: Tensor,
        *,
        noise: bool | None = None,
        generator: torch.Generator | None = None,
        presampled: tuple[LayerNoise, ...] | None = None,
    ) -> Tensor:
        """What the decoder makes of every patch, (B, N, decoder_dim) after its norm; arguments as for `decode`.

        Mask tokens fill the places of the removed patches; only patches get decoder positions.
        """
        B, N = ids_restore.shape
        backend = self.backend or backend_for(tokens.device)
        x = backend.linear(tokens, self.decoder_embed.weight, self.decoder_embed.bias)
        num_prefix = self.config.num_prefix
        prefix, kept = x[:, :num_prefix], x[:, num_prefix:]
        # One at least: with every patch kept, hidden ones are still predicted.
        removed = self.mask_token.to(x.dtype).expand(B, max(N - kept.shape[1], 1), -1)
        patches = torch.cat([kept, removed], dim=1)
        patches = patches.gather(1, ids_restore.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))
        x = torch.cat([prefix, patches + self.decoder_pos_embed], dim=1)
        if presampled is None:
            experts = (self.config.decoder_experts,) * self.config.decoder_depth
            presampled = self._sample_noise(experts, (B, x.shape[1], x.shape[2]), x.device, noise, generator)
        for layer, layer_noise in zip(self.decoder_layers, presampled, strict=True):
            x, _ = layer(x, layer_noise, backend)
        return self.decoder_norm(x[:, num_prefix:])

    def forward(
        self,
        images: Tensor,
        meta: Tensor | None,
        masking: Masking,
        *,
        bands: Tensor | None = None,
        noise: bool | None = None,
        generator: torch.Generator | None = None,
        presampled: PassNoise | None = None,
    ) -> tuple[Tensor, Encoded]:
        """The masked autoencoder: predicted patches (B, N, C * p * p) and what the encoder saw of the kept ones.

        `bands` as for `encode`; all are predicted.
        """
        random = {"noise": noise, "generator": generator}
        decoded, encoded = self.encode_and_decode(images, meta, masking, bands=bands, presampled=presampled, **random)
        return self.predict(decoded, images.shape[1]), encoded

    def encode_and_decode(
        self,
        images: Tensor,
        meta: Tensor | None,
        masking: Masking,
        *,
        bands: Tensor | None = None,
        noise: bool | None = None,
        generator: torch.Generator | None = None,
        presampled: PassNoise | None = None,
    ) -> tuple[Tensor, Encoded]:
        """`forward` up to the decoder's last layer: (B, N, decoder_dim) tokens, and what the encoder saw."""
        random = {"noise": noise, "generator": generator}
        of_encoder, of_decoder = (None, None) if presampled is None else presampled
        encoded = self.encode(
            images, meta, masking.ids_keep, visible=masking.visible, bands=bands, presampled=of_encoder, **random
        )
        return self.decode_tokens(encoded.tokens, masking.ids_restore, presampled=of_decoder, **random), encoded

    def _sample_noise(
        self,
        experts: tuple[int, ...],
        shape: tuple[int, int, int],
        device: torch.device,
        noise: bool | None,
        generator: torch.Generator | None,
    ) -> tuple[LayerNoise, ...]:
        """Routing noise and dropout masks of a stack of layers for (B, S, D) tokens; None where a kind is off."""
        noise = self.training if noise is None else noise
        dropout = self.config.dropout if self.training else 0.0
        if not noise and not dropout:
            return (NO_NOISE,) * len(experts)
        batch, tokens, dim = shape
        return LayerNoiseBuffers(experts, dim, batch, tokens, device, noise=noise, dropout=dropout).fill(generator)


def build_model(
    size: str | ModelConfig = "S",
    seed: int | None = None,
    masking: MaskingConfig = MaskingConfig(),  # noqa: B008 - immutable
    **overrides: Any,
) -> MOEMAE:
    """A freshly initialised model (PyTorch's defaults; tokens truncated normal, std 0.02; positions `position_std`).

    Args:
        size: "S", "XS" or "XXS", or a complete `ModelConfig`.
        seed: makes the weights a function of it and leaves torch's default generator untouched.
        masking: how images are masked in training and evaluation.
        overrides: fields of `ModelConfig` that replace the size's.

    Raises:
        ValueError: naming every impossible value.
    """
    if isinstance(size, ModelConfig):
        config = size.replace(**overrides)
        if problems := config.problems():
            raise ValueError("; ".join(f"{key}: {text}" for key, text in problems))
    else:
        config = ModelConfig.of_size(size, **overrides)
    if seed is None:
        return MOEMAE(config, masking)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        return MOEMAE(config, masking)


def count_parameters(module: nn.Module) -> int:
    """Distinct trainable numbers (shared weights count once)."""
    return sum(parameter.numel() for parameter in module.parameters())
