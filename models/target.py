"""What a target of pretraining is: numbers of a patch that are predicted beside its pixels.

The targets themselves are in `models.targets`. A target is a module with a head of its own, which is trained with the
model and is no part of it. Every target gives two sums over a batch, error and weight, so that the sums of the parts of
a batch add up to those of the whole, as in `models.losses`.

Dimensions: B patches of the batch, N patches of 4 x 4 pixels, F metadata fields, D width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import ModelConfig
from models.encoder import Encoded

SMALLEST_SPREAD = 1e-3
"""In place of the standard deviation of a number that hardly varies."""


class Examples(NamedTuple):
    """Patches with everything that targets are made of."""

    images: Tensor
    """(B, C, S, S) z-scores."""
    valid: Tensor
    """(B, S, S); False on fill."""
    meta: Tensor | None
    """(B, F, 2) metadata as they are; (0, 0) where they are not known. None where the dataset has none."""
    responses: Tensor | None = None
    """(B, 2 K, S, S) of the run's random features; None until `Targets` adds them, where any target needs them."""


class TargetOptions(NamedTuple):
    """What a config says of targets besides their weights."""

    temperature: float = 0.1
    """Of the target `contrast`."""
    widths: tuple[int, ...] = ()
    """So many first numbers of a token have to do as well as all of them (arXiv:2205.13147), below its width D."""


class TrainingPass(NamedTuple):
    """What targets are predicted from, and of which patches."""

    examples: Examples
    shown: Tensor | None
    """(B, F, 2) what the encoder was given of the metadata; (0, 0) where they were masked."""
    encoded: Encoded
    decoded: Tensor
    """(B, N, decoder_dim)"""
    second: Encoded | None = None
    """Of other patches of the same images, without metadata; None where no target asks for it."""


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
        counted = counted.to(values.dtype)
        count = counted.sum(dim=0).clamp_min(1)
        mean = (values * counted).sum(dim=0) / count
        spread = (((values - mean) * counted).square().sum(dim=0) / count).sqrt()
        self.mean.copy_(mean)
        self.std.copy_(spread.clamp_min(SMALLEST_SPREAD))

    def forward(self, values: Tensor) -> Tensor:
        return (values - self.mean) / self.std


class Target(nn.Module):
    """One target: numbers of a patch, predicted in units of their spread over the training split.

    Args:
        width: W, how many numbers.
    """

    uses_responses: bool = False
    """Whether its numbers are made of random features."""
    uses_second: bool = False
    """Whether it is predicted from a second view of the images, too."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = _Scale(width)

    def numbers(self, examples: Examples) -> tuple[Tensor, Tensor]:
        """(M, W), not yet scaled, and how much each of them counts, (M, W) from 0 to 1; M rows a patch or more."""
        raise NotImplementedError

    def predictions(self, seen: TrainingPass) -> list[Tensor]:
        """(M, W) each, in units of the spread; their errors are averaged."""
        raise NotImplementedError

    def forward(self, seen: TrainingPass) -> Tensor:
        """(2,) float32: error and weight, added up over the batch."""
        with torch.no_grad():
            values, counted = self.numbers(seen.examples)
            wanted, weight = self.scale(values), self.weight(counted, seen)
        errors = [(predicted.float() - wanted).square() for predicted in self.predictions(seen)]
        error = sum(errors[1:], start=errors[0]) / len(errors)
        return torch.stack([(error * weight).sum(), weight.sum()])

    def weight(self, counted: Tensor, seen: TrainingPass) -> Tensor:
        """(M, W) weights of the errors; those of a row add up to 1 where all of it counts."""
        return counted / counted.shape[1]


def head(width: int, numbers: int, given: int | None = None) -> nn.Sequential:
    """Two layers that read `numbers` from `given` ones, or from `width`, which is that of the layer between."""
    return nn.Sequential(nn.Linear(given or width, width), nn.GELU(), nn.Linear(width, numbers))


class TokenTarget(Target):
    """A target that is read from tokens before the patches: from whole ones, and from the first numbers of each.

    Args:
        width: W.
        config: of the model.
        options: which first numbers.
    """

    head: nn.Module

    def __init__(self, width: int, config: ModelConfig, options: TargetOptions) -> None:
        super().__init__(width)
        self.widths = (*options.widths, config.embed_dim)

    def tokens(self, encoded: Encoded) -> Tensor:
        """(B, T, D), of which the head reads all numbers side by side."""
        return encoded.cls.unsqueeze(1)

    def cut(self, encoded: Encoded) -> list[Tensor]:
        """(B, T D) for every width, with 0 in place of the other numbers."""
        tokens, last = self.tokens(encoded), self.widths[-1]
        return [F.pad(tokens[..., :width], (0, last - width)).flatten(1) for width in self.widths[:-1]] + [
            tokens.flatten(1)
        ]

    def predictions(self, seen: TrainingPass) -> list[Tensor]:
        return [self.head(numbers) for numbers in self.cut(seen.encoded)]
