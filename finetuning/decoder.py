"""From tokens and pixels to a class for every pixel: heads for maps, all of which see a bounded neighbourhood only.

The decoder starts where per-pixel baselines end: it sees the bands and their products, as a logistic regression does;
the two-sided responses of filters that start as whitened pieces of the training pixels, as random convolutional
features (`transformation.random_features`); and the tokens. Layers of 1 x 1, with depthwise convolutions between them,
make classes of that.

Dimensions: B crops, C bands, D token width, K classes, h x w pixels, p pixels along a patch.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformation.random_features import RIDGE, THRESHOLD, whitening
from utils.randomness import generator

SIDE = 5
"""Of a filter, in pixels of its bank."""
SPACINGS = (1, 3)
"""Of a bank's filters: every pixel, and means of 3 x 3 at every third."""
LIMIT = 6.0
"""Standard deviations beyond which a pixel counts as no farther."""
HALO = 20
"""Pixels around a tile that reach into it, at most; a multiple of the patch."""
LEAST_SPREAD = 0.05
PIECES = 20_000
"""That a bank's filters are whitened by."""


class HeadSizes(NamedTuple):
    """What shapes a head's weights."""

    bands: int
    width: int
    """D, of a token."""
    classes: int
    patch: int
    kind: str = "decoder"
    tokens: bool = True
    pixels: bool = True
    token_numbers: int = 48
    filters: int = 32
    hidden: int = 112
    mixing: tuple[int, ...] = (5, 5)
    dropout: float = 0.1

    @property
    def reach(self) -> int:
        """Pixels around one that its class depends on, at most."""
        of_pixels = max(SPACINGS) * (SIDE // 2) + max(SPACINGS) // 2 if self.pixels else 0
        return max(of_pixels, self.patch) + sum(side // 2 for side in self.mixing)


def build_head(sizes: HeadSizes) -> "TokenLinear | DenseDecoder":
    """The head of a kind."""
    return TokenLinear(sizes) if sizes.kind == "linear" else DenseDecoder(sizes)


class TokenLinear(nn.Module):
    """A linear classifier of tokens, whose scores are interpolated between them."""

    def __init__(self, sizes: HeadSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.standardise = Standardise(sizes.width)
        self.classify = nn.Conv2d(sizes.width, sizes.classes, 1)

    def fit(self, crops: Sequence[tuple[Tensor, Tensor, Tensor]], seed: int) -> None:
        """Take over means and spreads of the training part; see `DenseDecoder.fit`."""
        self.standardise.fit(torch.cat([tokens.flatten(1) for _, _, tokens in crops], dim=1))

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Scores (B, K, h, w); arguments as for `DenseDecoder`."""
        return upsampled(self.classify(self.standardise(tokens)), self.sizes.patch)


class DenseDecoder(nn.Module):
    """Tokens and pixels to scores of classes."""

    first: Tensor
    second: Tensor

    def __init__(self, sizes: HeadSizes) -> None:
        super().__init__()
        self.sizes = sizes
        inputs = 0
        if sizes.pixels:
            self.of_pixels = Standardise(sizes.bands)
            self.banks = nn.ModuleList(
                nn.Conv2d(sizes.bands, sizes.filters, SIDE, padding=SIDE // 2 * spacing, dilation=spacing)
                for spacing in SPACINGS
            )
            first, second = torch.triu_indices(sizes.bands, sizes.bands)
            self.register_buffer("first", first, persistent=False)
            self.register_buffer("second", second, persistent=False)
            inputs += sizes.bands + len(first) + 2 * sizes.filters * len(SPACINGS)
        if sizes.tokens:
            self.of_tokens = Standardise(sizes.width)
            self.project = nn.Conv2d(sizes.width, sizes.token_numbers, 1)
            inputs += sizes.token_numbers
        self.standardise = Standardise(inputs)
        self.begin = nn.Conv2d(inputs, sizes.hidden, 1)
        self.mix = nn.ModuleList(Mixing(sizes.hidden, side) for side in (sizes.mixing or (1,)))
        self.classify = nn.Conv2d(sizes.hidden, sizes.classes, 1)
        self.dropout = nn.Dropout(sizes.dropout)

    @torch.no_grad()
    def fit(self, crops: Sequence[tuple[Tensor, Tensor, Tensor]], seed: int) -> None:
        """Take over from the training part what a decoder begins with: means, spreads, filters.

        Args:
            crops: (C, h, w) images, (h, w) where they can be seen, and (D, h / p, w / p) tokens.
            seed: of the filters.
        """
        if self.sizes.pixels:
            self.of_pixels.fit(torch.cat([image[:, seen] for image, seen, _ in crops], dim=1))
            standard = [self._standard(image.unsqueeze(0)) for image, _, _ in crops]
            for spacing, bank in zip(SPACINGS, self.banks, strict=True):
                pieces = torch.cat([_pieces(_blurred(image, spacing), spacing) for image in standard])
                _whiten(bank, pieces, generator(seed, "filters", spacing))  # pyright: ignore[reportArgumentType]
        if self.sizes.tokens:
            self.of_tokens.fit(torch.cat([tokens.flatten(1) for _, _, tokens in crops], dim=1))
        seen = [self.features(image.unsqueeze(0), tokens.unsqueeze(0))[0][:, where] for image, where, tokens in crops]
        self.standardise.fit(torch.cat(seen, dim=1))

    def features(self, images: Tensor, tokens: Tensor) -> Tensor:
        """(B, F, h, w): all that classes follow from, at every pixel."""
        found = []
        if self.sizes.pixels:
            x = self._standard(images)
            found += [x, x[:, self.first] * x[:, self.second]]
            for spacing, bank in zip(SPACINGS, self.banks, strict=True):
                response = bank(_blurred(x, spacing))
                found += [F.relu(response - THRESHOLD), F.relu(-response - THRESHOLD)]
        if self.sizes.tokens:
            found.append(upsampled(self.project(self.of_tokens(tokens)), self.sizes.patch))
        return torch.cat(found, dim=1)

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Scores of classes.

        Args:
            images: (B, C, h, w) z-scores, hidden pixels filled; h and w are multiples of p.
            tokens: (B, D, h / p, w / p), of the patches that they consist of.

        Returns:
            (B, K, h, w)
        """
        x = self.dropout(self.standardise(self.features(images, tokens)))
        x = F.gelu(self.begin(x))
        for mix in self.mix:
            x = mix(x)
        return self.classify(self.dropout(x))

    def _standard(self, images: Tensor) -> Tensor:
        return self.of_pixels(images).clamp(-LIMIT, LIMIT)


class Standardise(nn.Module):
    """Channels to mean 0 and standard deviation 1 over the training part."""

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def fit(self, values: Tensor) -> None:
        """(channels, n); columns with NaN are left out."""
        values = values[:, values.isfinite().all(dim=0)]
        self.mean.copy_(values.mean(dim=1))
        self.std.copy_(values.std(dim=1).clamp_min(LEAST_SPREAD))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w); NaN, where a patch shows nothing, becomes the mean."""
        return ((x - self.mean[:, None, None]) / self.std[:, None, None]).nan_to_num(0.0)


class Mixing(nn.Module):
    """x + GELU(1 x 1 of the norm of a depthwise convolution); every pixel is normalised by itself."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.around = nn.Conv2d(channels, channels, side, padding=side // 2, groups=channels) if side > 1 else None
        self.norm = nn.LayerNorm(channels)
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) to the same."""
        y = x if self.around is None else self.around(x)
        y = self.norm(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return x + F.gelu(self.mix(y))


def upsampled(cells: Tensor, patch: int) -> Tensor:
    """(B, N, h / p, w / p) to (B, N, h, w), linear between the middles of the cells."""
    return F.interpolate(cells, scale_factor=float(patch), mode="bilinear", align_corners=False)


def _blurred(x: Tensor, spacing: int) -> Tensor:
    """Means over squares of the spacing."""
    return x if spacing == 1 else F.avg_pool2d(x, spacing, 1, spacing // 2, count_include_pad=False)


def _pieces(image: Tensor, spacing: int) -> Tensor:
    """All pieces (n, C * SIDE * SIDE) of a (1, C, h, w) image."""
    return F.unfold(image, SIDE, dilation=spacing)[0].T


def _whiten(bank: nn.Conv2d, pieces: Tensor, random: torch.Generator) -> None:
    """Let a bank's filters be whitened pieces, whose responses have unit spread."""
    order = torch.randperm(len(pieces), generator=random)[:PIECES]
    chosen = pieces[order].double()
    mean = chosen.mean(dim=0)
    centred = chosen - mean
    to_white = whitening(centred.T @ centred / len(centred), RIDGE, of_mean=True)
    drawn = centred[torch.arange(bank.out_channels) % len(centred)] @ to_white
    weight = (drawn / drawn.norm(dim=1, keepdim=True).clamp_min(1e-6)) @ to_white
    weight = weight / (centred @ weight.T).std(dim=0).clamp_min(1e-6)[:, None]
    bank.weight.copy_(weight.float().view_as(bank.weight))
    if bank.bias is not None:
        bank.bias.copy_((-weight @ mean).float())
