"""What may be predicted in pretraining beside the pixels: one row of `TARGETS` each.

A target is a module with a head of its own. Heads are trained with the model and are no part of it: checkpoints for use
leave them out. Every target gives two sums over a batch, error and weight, so that the sums of the parts of a batch
add up to those of the whole, as in `models.losses`.

Dimensions: B patches of the batch, N patches of 4 x 4 pixels, F metadata fields, D width.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import ModelConfig
from models.losses import mean_error
from models.moe_mae import Encoded
from transformation.image_statistics import image_statistics
from transformation.random_features import RandomFeatures, image_mean
from utils.randomness import derive_seed

FILTERS = 64
"""Random filters, with two responses each."""

FITTED_ON = 2000
"""Patches of the training split from which filters and scales come."""

SMALLEST_SPREAD = 1e-3
"""In place of the standard deviation of a number that hardly varies."""


class Examples(NamedTuple):
    """Patches of the training split from which a target learns what its numbers look like."""

    images: Tensor
    """(M, C, S, S) z-scores."""
    valid: Tensor
    """(M, S, S)"""
    meta: Tensor | None
    """(M, F, 2)"""


class TrainingPass(NamedTuple):
    """What targets are computed and predicted from."""

    images: Tensor
    """(B, C, S, S) z-scores."""
    valid: Tensor
    """(B, S, S); False on fill."""
    known: Tensor | None
    """(B, F, 2) metadata as they are; (0, 0) where they are not known. None where the dataset has none."""
    shown: Tensor | None
    """(B, F, 2) what the encoder was given of them; (0, 0) where they were masked."""
    encoded: Encoded
    decoded: Tensor
    """(B, N, decoder_dim)"""


class Target(nn.Module):
    """One target: `fit` once, then called with every pass."""

    def fit(self, examples: Examples, seed: int) -> None:
        """Take scales and filters from patches of the training split."""
        raise NotImplementedError

    def forward(self, seen: TrainingPass) -> Tensor:
        """(2,) float32: error and weight, added up over the batch."""
        raise NotImplementedError


class _Scale(nn.Module):
    """Centre and spread of W numbers."""

    mean: Tensor
    std: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def fit(self, values: Tensor, counted: Tensor) -> None:
        """From (M, W) values, of which (M, W) `counted` are real."""
        count = counted.sum(dim=0).clamp_min(1)
        mean = (values * counted).sum(dim=0) / count
        spread = (((values - mean) * counted).square().sum(dim=0) / count).sqrt()
        self.mean.copy_(mean)
        self.std.copy_(spread.clamp_min(SMALLEST_SPREAD))

    def forward(self, values: Tensor) -> Tensor:
        return (values - self.mean) / self.std


def _head(width: int, numbers: int, given: int | None = None) -> nn.Sequential:
    return nn.Sequential(nn.Linear(given or width, width), nn.GELU(), nn.Linear(width, numbers))


class MetadataTarget(Target):
    """The metadata fields that were masked, as (sin, cos) in units of their spread, from the CLS token.

    A field counts where it is known and the encoder was not given it, so that nothing is copied.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.fields = len(config.meta_fields)
        self.scale = _Scale(2 * self.fields)
        self.head = _head(config.embed_dim, 2 * self.fields)

    def fit(self, examples: Examples, seed: int) -> None:
        if examples.meta is not None:
            pairs = examples.meta
            counted = _given(pairs).repeat_interleave(2, dim=1)
            self.scale.fit(pairs.flatten(1), counted.to(pairs.dtype))

    def forward(self, seen: TrainingPass) -> Tensor:
        assert seen.known is not None and seen.shown is not None  # a run without metadata has no such target
        predicted = self.head(seen.encoded.cls)
        wanted = _given(seen.known) & ~_given(seen.shown) & seen.valid.flatten(1).any(dim=1, keepdim=True)
        error = (predicted.float() - self.scale(seen.known.flatten(1))).square()
        error = error.unflatten(1, (self.fields, 2)).mean(dim=-1)
        return torch.stack([(error * wanted).sum(), wanted.sum().float()])


class PatchFeatureTarget(Target):
    """Random features of every patch and its surroundings (8 x 8 pixels), from the decoder's tokens."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.side = config.patch_size
        self.features = RandomFeatures(config.in_channels, FILTERS)
        self.scale = _Scale(self.features.width)
        self.head = nn.Linear(config.decoder_dim, self.features.width)

    def fit(self, examples: Examples, seed: int) -> None:
        self.features.fit(examples.images, examples.valid, seed)
        values = torch.cat([self.of(part) for part in examples.images.split(100)]).flatten(0, 1)
        counted = self.weight(examples.valid).flatten(0, 1)
        self.scale.fit(values, (counted > 0).float().expand_as(values))

    def of(self, images: Tensor) -> Tensor:
        """(B, N, W) means of the responses, not yet scaled."""
        side, border = self.side, self.side // 2
        around = F.pad(self.features(images), (border,) * 4, mode="replicate")
        return F.avg_pool2d(around, side + 2 * border, stride=side).flatten(2).transpose(1, 2)

    def weight(self, valid: Tensor) -> Tensor:
        """(B, N, 1) share of a patch's pixels that are valid."""
        return F.avg_pool2d(valid.unsqueeze(1).float(), self.side).flatten(2).transpose(1, 2)

    def forward(self, seen: TrainingPass) -> Tensor:
        with torch.no_grad():
            wanted = self.scale(self.of(seen.images))
        error = (self.head(seen.decoded).float() - wanted).square().mean(dim=-1, keepdim=True)
        weight = self.weight(seen.valid)
        return torch.stack([(error * weight).sum(), weight.sum()])


class ImageTarget(Target):
    """Random features and statistics of the whole image, from the CLS token that has seen a quarter of it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.features = RandomFeatures(config.in_channels, FILTERS)
        width = self.features.width + 4 * config.in_channels
        self.scale = _Scale(width)
        self.head = _head(config.embed_dim, width, self.tokens(config) * config.embed_dim)

    def tokens(self, config: ModelConfig) -> int:
        """From how many tokens it is predicted."""
        return 1

    def read(self, encoded: Encoded) -> Tensor:
        """(B, tokens * D) what it is predicted from."""
        return encoded.cls

    def fit(self, examples: Examples, seed: int) -> None:
        self.features.fit(examples.images, examples.valid, seed)
        parts = zip(examples.images.split(100), examples.valid.split(100), strict=True)
        values = torch.cat([self.of(images, valid) for images, valid in parts])
        self.scale.fit(values, examples.valid.flatten(1).any(dim=1, keepdim=True).float().expand_as(values))

    def of(self, images: Tensor, valid: Tensor) -> Tensor:
        """(B, W), not yet scaled; an image of fill only counts as if all of it were valid."""
        valid = valid | ~valid.flatten(1).any(dim=1)[:, None, None]
        return torch.cat([image_mean(self.features(images), valid), image_statistics(images, valid)], dim=1)

    def forward(self, seen: TrainingPass) -> Tensor:
        with torch.no_grad():
            wanted = self.scale(self.of(seen.images, seen.valid))
        counted = seen.valid.flatten(1).any(dim=1).float()
        error = (self.head(self.read(seen.encoded)).float() - wanted).square().mean(dim=-1)
        return torch.stack([(error * counted).sum(), counted.sum()])


class PrefixImageTarget(ImageTarget):
    """The same from the metadata and CLS tokens side by side, so that not all of it has to fit into one."""

    def tokens(self, config: ModelConfig) -> int:
        return config.num_prefix

    def read(self, encoded: Encoded) -> Tensor:
        return encoded.tokens[:, : encoded.num_prefix].flatten(1)


def _given(pairs: Tensor) -> Tensor:
    """(B, F) bool of (B, F, 2): fields that are not the missing pair."""
    return (pairs != 0.0).any(dim=-1)


TARGETS: dict[str, type[Target]] = {
    "metadata": MetadataTarget,
    "patch_features": PatchFeatureTarget,
    "image": ImageTarget,
    "image_prefix": PrefixImageTarget,
}
"""Every target by the name that configs give it."""


class Targets(nn.Module):
    """The targets of a run, each with the weight of its mean error in the loss.

    Args:
        config: of the model.
        weights: names of `TARGETS` to weights; empty for none.
        seed: of the heads' first weights.
    """

    def __init__(self, config: ModelConfig, weights: Mapping[str, float], seed: int) -> None:
        super().__init__()
        self.names = tuple(name for name in TARGETS if weights.get(name))
        self.weights = tuple(weights[name] for name in self.names)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "target heads"))
            self.heads = nn.ModuleDict({name: TARGETS[name](config) for name in self.names})

    def fit(self, examples: Examples, seed: int) -> None:
        """See `Target.fit`."""
        for target in self._all():
            with torch.no_grad():
                target.fit(examples, seed)

    def forward(self, seen: TrainingPass) -> Tensor:
        """(2 T,) sums of T targets: error and weight of the first, and so on."""
        return torch.cat([target(seen) for target in self._all()])

    def errors(self, sums: Tensor) -> Tensor:
        """(T,) mean errors from the (2 T,) sums of the whole batch."""
        pairs = sums.view(-1, 2)
        return mean_error(pairs[:, 0], pairs[:, 1])

    def loss(self, errors: Tensor) -> Tensor:
        """What the (T,) errors add to the loss."""
        return sum((weight * error for weight, error in zip(self.weights, errors, strict=True)), errors.new_zeros(()))

    def _all(self) -> Iterable[Target]:
        return self.heads.values()  # pyright: ignore[reportReturnType]
