"""What may be predicted in pretraining beside the pixels: one row of `TARGETS` each (`models.target`).

Heads are trained with the model and are no part of it: checkpoints for use leave them out.

Dimensions: B patches of the batch, N patches of 4 x 4 pixels, F metadata fields, D width.
"""

from collections.abc import Callable, Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import ModelConfig
from models.contrast import info_nce
from models.encoder import Encoded
from models.losses import mean_error
from models.masking import patchify
from models.target import Examples, Target, TargetOptions, TokenTarget, TrainingPass, head
from transformation.image_statistics import image_statistics
from transformation.random_features import RandomFeatures, image_mean
from utils.randomness import derive_seed
from utils.sensors import LIKE_OLI, OLI, OLI_GROUPS

FILTERS = 64
"""Random filters, with two responses each."""

FITTED_ON = 2000
"""Patches of the training split from which filters and scales come."""

FITTED_AT_ONCE = 100
"""Of these, so that their responses fit into memory."""

FLAT = 0.1
"""Z-scores: a spread of pixels, below which normalising would leave noise alone."""

CONTRASTED = 64
"""Numbers by which images are told apart."""


class MetadataTarget(TokenTarget):
    """The metadata fields that were masked, as (sin, cos), from the CLS token.

    A field counts where it is known and the encoder was not given it, so that nothing is copied.
    """

    def __init__(self, config: ModelConfig, options: TargetOptions) -> None:
        super().__init__(2 * len(config.meta_fields), config, options)
        self.head = head(config.embed_dim, 2 * len(config.meta_fields))

    def numbers(self, examples: Examples) -> tuple[Tensor, Tensor]:
        return _metadata(examples)

    def weight(self, counted: Tensor, seen: TrainingPass) -> Tensor:
        assert seen.shown is not None  # a run without metadata has no such target
        masked = ~_given(seen.shown) & seen.examples.valid.flatten(1).any(dim=1, keepdim=True)
        return counted * masked.repeat_interleave(2, dim=1) / 2  # a field is two numbers


class PatchFeatureTarget(Target):
    """Random features of every patch and its surroundings (8 x 8 pixels), from the decoder's tokens."""

    uses_responses = True

    def __init__(self, config: ModelConfig, options: TargetOptions) -> None:
        super().__init__(2 * FILTERS)
        self.side = config.patch_size
        self.head = nn.Linear(config.decoder_dim, 2 * FILTERS)

    def numbers(self, examples: Examples) -> tuple[Tensor, Tensor]:
        """Rows are patches of 4 x 4 pixels; one counts by the share of its pixels that are valid."""
        assert examples.responses is not None
        side, border = self.side, self.side // 2
        around = F.pad(examples.responses, (border,) * 4, mode="replicate")
        # The mean over two patch sides is that of four squares of one: a quarter of the work.
        values = _rows(F.avg_pool2d(F.avg_pool2d(around, side), 2, stride=1))
        counted = _rows(F.avg_pool2d(examples.valid.unsqueeze(1).float(), side))
        return values, counted.expand_as(values)

    def predictions(self, seen: TrainingPass) -> list[Tensor]:
        return [self.head(seen.decoded).flatten(0, 1)]


class NormalisedPixelTarget(Target):
    """The pixels of every patch, normalised over the patch and a group of bands, from the decoder's tokens.

    Brightness and contrast of a group are taken out (He et al., arXiv:2111.06377, do so to all bands at once).
    """

    def __init__(self, config: ModelConfig, options: TargetOptions) -> None:
        super().__init__(config.patch_values)
        self.side = config.patch_size
        self.groups = _band_groups(config.in_channels)
        self.head = nn.Linear(config.decoder_dim, config.patch_values)

    def numbers(self, examples: Examples) -> tuple[Tensor, Tensor]:
        """Rows are patches of 4 x 4 pixels; fill is neither in their means nor counted."""
        pixels = patchify(examples.images, self.side).unflatten(2, (-1, self.side**2)).flatten(0, 1)
        valid = patchify(examples.valid.unsqueeze(1).to(pixels.dtype), self.side).flatten(0, 1).unsqueeze(1)
        parts = [_normalised(group, valid) for group in pixels.split(self.groups, dim=1)]
        return torch.cat(parts, dim=1).flatten(1), valid.expand_as(pixels).flatten(1)

    def predictions(self, seen: TrainingPass) -> list[Tensor]:
        return [self.head(seen.decoded).flatten(0, 1)]


class ImageTarget(TokenTarget):
    """Random features and statistics of the whole image, from the CLS token that has seen a quarter of it."""

    uses_responses = True

    def __init__(self, config: ModelConfig, options: TargetOptions, tokens: int = 1) -> None:
        super().__init__(_image_width(config), config, options)
        self.head = head(config.embed_dim, _image_width(config), tokens * config.embed_dim)

    def numbers(self, examples: Examples) -> tuple[Tensor, Tensor]:
        return _image(examples)


class PrefixImageTarget(ImageTarget):
    """The same from the metadata and CLS tokens side by side, so that not all of it has to fit into one."""

    def __init__(self, config: ModelConfig, options: TargetOptions) -> None:
        super().__init__(config, options, config.num_prefix)

    def tokens(self, encoded: Encoded) -> Tensor:
        return encoded.tokens[:, : encoded.num_prefix]


class ReadoutTarget(TokenTarget):
    """What the strongest baseline is made of, by a linear map from the embedding that `meta_cls` gives.

    Random features and statistics of the whole image, the metadata and their pairwise products: a linear probe of the
    embedding then finds in it what it would find in those.
    """

    uses_responses = True

    def __init__(self, config: ModelConfig, options: TargetOptions) -> None:
        numbers, given = 2 * len(config.meta_fields), config.num_prefix * config.embed_dim
        super().__init__(_image_width(config) + numbers + numbers * (numbers + 1) // 2, config, options)
        self.norm = nn.LayerNorm(given)
        self.head = nn.Linear(given, len(self.scale.mean))

    def numbers(self, examples: Examples) -> tuple[Tensor, Tensor]:
        values, counted = _image(examples)
        metadata, known = _metadata(examples)
        known = known * counted[:, :1]  # not of an image of fill only
        first, second = torch.triu_indices(metadata.shape[1], metadata.shape[1], device=metadata.device)
        products, both = metadata[:, first] * metadata[:, second], known[:, first] * known[:, second]
        return torch.cat([values, metadata, products], dim=1), torch.cat([counted, known, both], dim=1)

    def tokens(self, encoded: Encoded) -> Tensor:
        return encoded.pre_norm[:, : encoded.num_prefix]

    def predictions(self, seen: TrainingPass) -> list[Tensor]:
        return [self.head(self.norm(numbers)) for numbers in self.cut(seen.encoded)]


class ContrastTarget(TokenTarget):
    """Which image of the batch it is: two views of it, of a quarter of its patches each, by their CLS tokens.

    The second view is without metadata, so that the views cannot be matched by these. The error is a cross entropy.
    """

    uses_second = True

    def __init__(self, config: ModelConfig, options: TargetOptions) -> None:
        super().__init__(0, config, options)
        self.temperature = options.temperature
        self.head = head(config.embed_dim, CONTRASTED)

    def numbers(self, examples: Examples) -> tuple[Tensor, Tensor]:
        """None: what is to be told apart is the images themselves."""
        none = examples.images.new_zeros(len(examples.images), 0)
        return none, none

    def forward(self, seen: TrainingPass) -> Tensor:
        assert seen.second is not None
        counted = seen.examples.valid.flatten(1).any(dim=1)
        views = zip(self.cut(seen.encoded), self.cut(seen.second), strict=True)
        sums = [info_nce(self.head(one), self.head(other), counted, self.temperature) for one, other in views]
        return torch.stack(sums).mean(dim=0)


def _given(pairs: Tensor) -> Tensor:
    """(B, F) bool of (B, F, 2): fields that are not the missing pair."""
    return (pairs != 0.0).any(dim=-1)


def _metadata(examples: Examples) -> tuple[Tensor, Tensor]:
    """(B, 2 F) numbers and which of them are known."""
    pairs = examples.images.new_zeros(len(examples.images), 0, 2) if examples.meta is None else examples.meta
    return pairs.flatten(1), _given(pairs).repeat_interleave(2, dim=1).to(pairs.dtype)


def _image_width(config: ModelConfig) -> int:
    return 2 * FILTERS + 4 * config.in_channels


def _image(examples: Examples) -> tuple[Tensor, Tensor]:
    """(B, 2 K + 4 C) random features and statistics of the whole images; those of fill only do not count."""
    assert examples.responses is not None
    counted = examples.valid.flatten(1).any(dim=1)
    valid = examples.valid | ~counted[:, None, None]
    values = torch.cat([image_mean(examples.responses, valid), image_statistics(examples.images, valid)], dim=1)
    return values, counted[:, None].to(values.dtype).expand_as(values)


def _band_groups(channels: int) -> list[int]:
    """How many bands of so many belong together, one group after the other; each by itself where they are not OLI's."""
    return list(OLI_GROUPS) if channels == len(OLI.bands) else [1] * channels


def _normalised(pixels: Tensor, valid: Tensor) -> Tensor:
    """(M, C, P) pixels less their mean and by their spread over the C bands and the valid ones, (M, 1, P) of 0 or 1."""
    count = (valid.sum(dim=2, keepdim=True) * pixels.shape[1]).clamp_min(1)
    less = pixels - (pixels * valid).sum(dim=(1, 2), keepdim=True) / count
    return less / ((less.square() * valid).sum(dim=(1, 2), keepdim=True) / count + FLAT**2).sqrt()


def _rows(maps: Tensor) -> Tensor:
    """(B, K, H, W) to (B H W, K)."""
    return maps.flatten(2).transpose(1, 2).flatten(0, 1)


TARGETS: dict[str, Callable[[ModelConfig, TargetOptions], Target]] = {
    "metadata": MetadataTarget,
    "patch_features": PatchFeatureTarget,
    "normalised_pixels": NormalisedPixelTarget,
    "image": ImageTarget,
    "image_prefix": PrefixImageTarget,
    "readout": ReadoutTarget,
    "contrast": ContrastTarget,
}
"""Every target by the name that configs give it."""


class Targets(nn.Module):
    """The targets of a run, each with the weight of its mean error in the loss.

    Args:
        config: of the model.
        weights: names of `TARGETS` to weights; empty for none.
        seed: of the heads' first weights.
        options: what else the config says.
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: Mapping[str, float],
        seed: int,
        options: TargetOptions = TargetOptions(),  # noqa: B008 - immutable
    ) -> None:
        super().__init__()
        self.names = tuple(name for name in TARGETS if weights.get(name))
        self.weights = tuple(weights[name] for name in self.names)
        self.channels = config.in_channels
        self.features = RandomFeatures(config.in_channels, FILTERS)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "target heads"))
            self.heads = nn.ModuleDict({name: TARGETS[name](config, options) for name in self.names})
        self._uses_responses = any(target.uses_responses for target in self._all())
        self.uses_second = any(target.uses_second for target in self._all())

    @torch.no_grad()
    def fit(self, examples: Examples, seed: int) -> None:
        """Take filters and scales from patches of the training split."""
        examples = self._of_first(examples)
        if self._uses_responses:
            self.features.fit(examples.images, examples.valid, seed)
        found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in self.names]
        for start in range(0, len(examples.images), FITTED_AT_ONCE):
            rows = slice(start, start + FITTED_AT_ONCE)
            meta = None if examples.meta is None else examples.meta[rows]
            part = self._with_responses(Examples(examples.images[rows], examples.valid[rows], meta))
            for target, parts in zip(self._all(), found, strict=True):
                parts.append(target.numbers(part))
        for target, parts in zip(self._all(), found, strict=True):
            values, counted = zip(*parts, strict=True)
            target.scale.fit(torch.cat(values), torch.cat(counted) > 0)

    def forward(self, seen: TrainingPass) -> Tensor:
        """(2 T,) sums of T targets: error and weight of the first, and so on."""
        with torch.no_grad():
            seen = seen._replace(examples=self._with_responses(self._of_first(seen.examples)))
        return torch.cat([target(seen) for target in self._all()])

    def _of_first(self, examples: Examples) -> Examples:
        """Patches of a second sensor by its bands that see what the first's see: one target for both."""
        if examples.images.shape[1] == self.channels:
            return examples
        return examples._replace(images=examples.images[:, list(LIKE_OLI)])

    def _with_responses(self, examples: Examples) -> Examples:
        return examples._replace(responses=self.features(examples.images)) if self._uses_responses else examples

    def errors(self, sums: Tensor) -> Tensor:
        """(T,) mean errors from the (2 T,) sums of the whole batch."""
        pairs = sums.view(-1, 2)
        return mean_error(pairs[:, 0], pairs[:, 1])

    def loss(self, errors: Tensor) -> Tensor:
        """What the (T,) errors add to the loss."""
        return sum((weight * error for weight, error in zip(self.weights, errors, strict=True)), errors.new_zeros(()))

    def _all(self) -> Iterable[Target]:
        return self.heads.values()  # pyright: ignore[reportReturnType]
