"""One vector for a series: embeddings of one place on several dates through blocks of the encoder's kind.

A date is a token: its embedding, and when it was. Any number of dates in any order; dates that are missing influence
nothing. Tokens of days at which nothing was seen look at those of dates, and are looked at by none: in pretraining
they foretell the dates that were left out, afterwards they fill in the year. The vector is that year's mean and its
first two harmonics, fitted to what was seen and, with less weight, to what was foretold for even steps of a year; so it
has the same meaning whenever the place was seen.

Dimensions: B series, T dates, D width of an embedding, d width of a token, Q days that are asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.encoder import Block
from models.moe import NO_NOISE, Routing
from models.noise import LayerNoise
from models.positions import truncated_normal

YEAR = 365.25
"""Days."""
HARMONICS = 5
"""Numbers that describe a year: 1, and sine and cosine of once and twice the day of the year."""
FARTHEST = 5.0
"""Years from the middle of a series beyond which a date is as far as that."""
RIDGE = 1e-6
"""Of the fit, which has more numbers than dates where few were seen and nothing is foretold."""


@dataclass(frozen=True)
class TemporalConfig:
    """What shapes the weights."""

    width: int
    """D."""
    pool: str
    """Pooling that the embeddings are of, a key of `models.pooling.POOLINGS`."""
    encoder: str = ""
    """SHA-256 of the checkpoint that they are of."""
    dim: int = 96
    depth: int = 2
    heads: int = 6
    groups: int = 3
    experts: int = 3
    k: int = 2
    expert_width: int = 80
    slots: int = 12
    """Even steps of a year at which the place is foretold."""
    foretold: float = 0.1
    """Weight of what is foretold for a step, where what was seen on a date has 1."""


class SeriesTokens(NamedTuple):
    """What the blocks made of B series."""

    dates: Tensor  # (B, T, d)
    asked: Tensor  # (B, Q, d)
    routing: tuple[Routing | None, ...]


class TemporalModule(nn.Module):
    """Series of embeddings to vectors. Series in which no date is present have NaN."""

    mean: Tensor
    spread: Tensor

    def __init__(self, config: TemporalConfig) -> None:
        super().__init__()
        self.config = config
        d = config.dim
        self.value = nn.Linear(config.width, d)
        self.when = nn.Linear(HARMONICS, d)
        self.asked = nn.Parameter(torch.empty(d))
        self.blocks = nn.ModuleList(
            Block(d, config.heads, config.groups, config.expert_width, config.experts, config.k)
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(d)
        self.head = nn.Linear(d, config.width)
        self.register_buffer("mean", torch.zeros(config.width))
        self.register_buffer("spread", torch.ones(config.width))
        truncated_normal(self.asked, 0.02)

    @property
    def vector_width(self) -> int:
        """Numbers in the vector of a series."""
        return HARMONICS * self.config.width

    def forward(self, vectors: Tensor, times: Tensor, present: Tensor | None = None) -> Tensor:
        """The vectors of B series, (B, vector_width): mean, then sine and cosine of each harmonic, of every number.

        Args:
            vectors: (B, T, D), the dates in any order.
            times: (B, T) or (T,) decimal years (`decimal_year`).
            present: (B, T) bool; None: where no number of a date is NaN.
        """
        values, times, present = self._read(vectors, times, present)
        days = self.steps_around(_middle(times, present))
        foretold, _ = self._foretell(values, times, present, days)
        weight = torch.cat([present.float(), torch.full_like(foretold[..., 0], self.config.foretold)], dim=1)
        year = fitted_year(torch.cat([values, foretold], dim=1), torch.cat([times, days], dim=1), weight)
        return torch.where(present.any(dim=1, keepdim=True), year.flatten(1), torch.nan)

    def foretell(
        self,
        vectors: Tensor,
        times: Tensor,
        present: Tensor,
        days: Tensor,
        noise: Sequence[LayerNoise] | None = None,
    ) -> tuple[Tensor, SeriesTokens]:
        """What the place would look like on other days, in standard deviations: (B, Q, D).

        Args:
            vectors, times, present: as for `forward`.
            days: (B, Q) decimal years.
            noise: of the blocks' gates, for training.
        """
        return self._foretell(*self._read(vectors, times, present), days, noise)

    def steps_around(self, middle: Tensor) -> Tensor:
        """(B, slots) even steps of the year around (B, 1) decimal years."""
        steps = (torch.arange(self.config.slots, device=middle.device) + 0.5) / self.config.slots
        return middle - 0.5 + steps

    def standardised(self, vectors: Tensor) -> Tensor:
        """In standard deviations from the mean of the pretraining's embeddings."""
        return (vectors - self.mean) / self.spread

    def _read(self, vectors: Tensor, times: Tensor, present: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        if present is None:
            present = ~vectors.isnan().any(dim=-1)
        values = torch.where(present.unsqueeze(-1), self.standardised(vectors.float()), 0.0)
        return values, times.expand(present.shape), present

    def _foretell(
        self, values: Tensor, times: Tensor, present: Tensor, days: Tensor, noise: Sequence[LayerNoise] | None = None
    ) -> tuple[Tensor, SeriesTokens]:
        middle, T = _middle(times, present), times.shape[1]
        dates = self.value(values) + self.when(_features(times, middle))
        x = torch.cat([dates, self.asked + self.when(_features(days, middle))], dim=1)
        hidden = torch.cat([~present, torch.ones_like(days, dtype=torch.bool)], dim=1).float()
        routing = []
        for block, of_gate in zip(self.blocks, noise or [NO_NOISE] * len(self.blocks), strict=True):
            x, chosen = block(x, of_gate, hidden=hidden)
            routing.append(chosen)
        x = self.norm(x)
        seen = present.unsqueeze(-1).float()
        mean = (values * seen).sum(dim=1, keepdim=True) / seen.sum(dim=1, keepdim=True).clamp(min=1)
        return mean + self.head(x[:, T:]), SeriesTokens(x[:, :T], x[:, T:], tuple(routing))


def decimal_year(day: date) -> float:
    """A day as a year with its part that has passed."""
    return day.year + (day.timetuple().tm_yday - 0.5) / YEAR


def harmonics(times: Tensor) -> Tensor:
    """(…, HARMONICS) of decimal years: 1, and sines and cosines of the season."""
    angle = 2 * torch.pi * (times % 1.0)
    waves = [angle.sin(), angle.cos(), (2 * angle).sin(), (2 * angle).cos()]
    return torch.stack([torch.ones_like(angle), *waves], dim=-1)


def fitted_year(values: Tensor, times: Tensor, weight: Tensor) -> Tensor:
    """Least-squares coefficients of the harmonics, (B, HARMONICS, D), of (B, n, D) values with (B, n) weights."""
    basis = harmonics(times).double()
    weighted = (basis * weight.unsqueeze(-1)).transpose(1, 2)
    normal = weighted @ basis + RIDGE * torch.eye(HARMONICS, dtype=basis.dtype, device=basis.device)
    return torch.linalg.solve(normal, weighted @ values.double()).float()


def _middle(times: Tensor, present: Tensor) -> Tensor:
    """(B, 1) mean time of the dates that are present."""
    seen = present.to(times.dtype)
    return ((times * seen).sum(dim=1) / seen.sum(dim=1).clamp(min=1)).unsqueeze(1)


def _features(times: Tensor, middle: Tensor) -> Tensor:
    """(B, n, HARMONICS) of (B, n) decimal years: the season, and how far from the middle of the series."""
    away = (times - middle).clamp(-FARTHEST, FARTHEST)
    return torch.cat([harmonics(times)[..., 1:], away.unsqueeze(-1)], dim=-1).float()
