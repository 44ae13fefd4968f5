"""What may be done at random to the images of a training batch: one row of `AUGMENTATIONS` each."""

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from transformation.transformer import fill_hidden
from utils.sensors import ETM, OLI

WAVES = 4
"""Whose sum a cloud is the upper part of."""

BAND_SETS = {"six": ETM.common, "rgb_nir": (*OLI.rgb, "nir08"), "rgb": OLI.rgb}
"""What sensors have of OLI's bands, by their common names: TM and ETM+, four-band and three-band cameras."""


class Augmented(NamedTuple):
    """Images of a training batch."""

    images: Tensor
    """(B, C, S, S) z-scores, square."""
    valid: Tensor
    """(B, S, S); False on fill."""
    bands: Tensor | None = None
    """(B, C) bool, the bands that the encoder is given; None is all. What is to be reconstructed has all of them."""


class Augmentation(NamedTuple):
    """A row of the table."""

    apply: Callable[[Augmented, Tensor, float], Augmented]
    """Takes the images, (B, `numbers`) uniform numbers in [0, 1) that decide everything, and the strength, 0 to 1."""
    numbers: int
    strength: float
    """Where a config gives none."""


def symmetries(given: Augmented, draw: Tensor, strength: float) -> Augmented:
    """One of the eight symmetries of the square: Landsat looks down, so none of them is special.

    `strength` is the chance of an image to be moved at all, of which an eighth leaves it as it is.
    """
    which = (draw[:, 0] / strength * 8).to(torch.int64)
    which = torch.where(which < 8, which, 0)
    stacked = torch.cat([given.images, given.valid.unsqueeze(1).to(given.images.dtype)], dim=1)
    for bit, moved in enumerate((lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: x.transpose(-1, -2))):
        chosen = (which >> bit & 1).bool()[:, None, None, None]
        stacked = torch.where(chosen, moved(stacked), stacked)
    return given._replace(images=stacked[:, :-1].contiguous(), valid=stacked[:, -1] > 0)


def band_dropout(given: Augmented, draw: Tensor, strength: float) -> Augmented:
    """Every band is missing with the chance `strength`, as in images of a sensor without it; never all of them."""
    kept = draw >= strength
    return _given_only(given, kept | ~kept.any(dim=1, keepdim=True))


def band_sets(given: Augmented, draw: Tensor, strength: float) -> Augmented:
    """With the chance `strength` an image is that of another sensor: one of `BAND_SETS`, or bands at random.

    All of these are equally likely; every band is among those at random with the chance 1/2, and one of them at least.
    """
    some, which, *each = draw.T
    at_random = torch.stack(each, dim=1)
    at_random = at_random >= at_random.amax(dim=1, keepdim=True).clamp(max=0.5)
    sets = _band_sets_on(draw.device).expand(len(draw), -1, -1)
    choices = torch.cat([sets, at_random.unsqueeze(1)], dim=1)
    chosen = choices[torch.arange(len(draw), device=draw.device), (which * choices.shape[1]).to(torch.int64)]
    return _given_only(given, chosen | (some >= strength)[:, None])


@cache
def _band_sets_on(device: torch.device) -> Tensor:
    """(sets, C) bool, copied to a device once: a copy in every step would wait for it."""
    return torch.tensor([[name in names for name in OLI.common] for names in BAND_SETS.values()], device=device)


def _given_only(given: Augmented, kept: Tensor) -> Augmented:
    """Without the bands that are not (B, C) `kept`; an image of which none would be left has what it had."""
    if given.bands is None:
        return given._replace(bands=kept)
    both = kept & given.bands
    return given._replace(bands=torch.where(both.any(dim=1, keepdim=True), both, given.bands))


def random_fill(given: Augmented, draw: Tensor, strength: float) -> Augmented:
    """With the chance `strength` a part becomes fill: beyond a straight line, in a rectangle, or in cloudlike shapes.

    The three are equally likely. An image of which nothing would be left stays as it is.
    """
    some, kind, *rest = draw.T[:, :, None, None]
    hidden = torch.stack([shape(*_coordinates(given.valid), *rest) for shape in (_beyond_a_line, _rectangle, _clouds)])
    which = (kind * len(hidden)).to(torch.int64).expand_as(given.valid)
    left = given.valid & ~hidden.gather(0, which[None])[0]
    changed = (some < strength) & left.flatten(1).any(dim=1)[:, None, None]
    valid = torch.where(changed, left, given.valid)
    images = torch.where(changed[:, None], fill_hidden(given.images, valid), given.images)
    return given._replace(images=images, valid=valid)


def _coordinates(valid: Tensor) -> tuple[Tensor, Tensor]:
    """(1, 1, S) and (1, S, 1), from -1 to 1."""
    along = torch.linspace(-1.0, 1.0, valid.shape[-1], device=valid.device)
    return along[None, None, :], along[None, :, None]


def _beyond_a_line(x: Tensor, y: Tensor, direction: Tensor, distance: Tensor, *_: Tensor) -> Tensor:
    """At most half of the image."""
    angle = 2 * math.pi * direction
    return x * angle.cos() + y * angle.sin() > distance


def _rectangle(x: Tensor, y: Tensor, left: Tensor, top: Tensor, width: Tensor, height: Tensor, *_: Tensor) -> Tensor:
    """Of a tenth to seven tenths of the image's side, with the centre anywhere."""
    sides = ((x, left, width), (y, top, height))
    across, down = ((at - (2 * middle - 1)).abs() < 0.1 + 0.6 * size for at, middle, size in sides)
    return across & down


def _clouds(x: Tensor, y: Tensor, level: Tensor, *rest: Tensor) -> Tensor:
    """Where a sum of waves of random direction, length (half a side to two) and phase is above a level."""
    field = torch.zeros((), device=x.device)
    for direction, length, phase in zip(*(iter(rest[: 3 * WAVES]),) * 3, strict=True):
        angle, turns = 2 * math.pi * direction, math.pi * (0.5 + 1.5 * length)
        field = field + torch.cos(turns * (x * angle.cos() + y * angle.sin()) + 2 * math.pi * phase)
    return field > 2.0 * level


AUGMENTATIONS: dict[str, Augmentation] = {
    "symmetries": Augmentation(symmetries, 1, 1.0),
    "band_dropout": Augmentation(band_dropout, len(OLI.bands), 0.15),
    "band_sets": Augmentation(band_sets, 2 + len(OLI.bands), 0.5),
    "random_fill": Augmentation(random_fill, 3 + 3 * WAVES, 0.3),
}
"""Every augmentation by the name that configs give it."""
