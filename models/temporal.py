"""One vector for a series: embeddings of one place on several dates through blocks of the encoder's kind.

A date is a token: its embedding, and when it was. Any number of dates in any order; dates that are missing influence
nothing. Beside the dates, tokens of days at which nothing was seen look at those where something was, and are looked
at by none: in pretraining they foretell the dates that were left out, afterwards they read the series out on the same
days of every year, whenever the place was seen.

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
FEATURES = 5
"""Numbers that say when a date was: sine and cosine of once and twice the day of the year, and the year."""
FARTHEST = 5.0
"""Years from the middle of a series beyond which a date is as far as that."""


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
    """Days of the year at which a series is read out."""


class SeriesTokens(NamedTuple):
    """What the blocks made of B series."""

    cls: Tensor  # (B, d)
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
        self.when = nn.Linear(FEATURES, d)
        self.cls = nn.Parameter(torch.empty(d))
        self.asked = nn.Parameter(torch.empty(d))
        self.blocks = nn.ModuleList(
            Block(d, config.heads, config.groups, config.expert_width, config.experts, config.k)
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(d)
        self.head = nn.Linear(d, config.width)
        self.register_buffer("mean", torch.zeros(config.width))
        self.register_buffer("spread", torch.ones(config.width))
        for token in (self.cls, self.asked):
            truncated_normal(token, 0.02)

    @property
    def vector_width(self) -> int:
        """Numbers in the vector of a series."""
        return (3 + self.config.slots) * self.config.dim

    def forward(self, vectors: Tensor, times: Tensor, present: Tensor | None = None) -> Tensor:
        """The vectors of B series, (B, vector_width).

        Args:
            vectors: (B, T, D), the dates in any order.
            times: (B, T) or (T,) decimal years (`decimal_year`).
            present: (B, T) bool; None: where no number of a date is NaN.
        """
        values, times, present = self._read(vectors, times, present)
        slots = (torch.arange(self.config.slots, device=times.device) + 0.5) / self.config.slots
        tokens = self.tokens(values, times, present, _middle(times, present).floor() + slots)
        seen = present.unsqueeze(-1).float()
        count = seen.sum(dim=1).clamp(min=1)
        mean = (tokens.dates * seen).sum(dim=1) / count
        spread = (((tokens.dates - mean.unsqueeze(1)).square() * seen).sum(dim=1) / count + 1e-6).sqrt()
        vector = torch.cat([tokens.cls, mean, spread, tokens.asked.flatten(1)], dim=1)
        return torch.where(present.any(dim=1, keepdim=True), vector, torch.nan)

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
        values, times, present = self._read(vectors, times, present)
        tokens = self.tokens(values, times, present, days, noise)
        seen = present.unsqueeze(-1).float()
        mean = (values * seen).sum(dim=1, keepdim=True) / seen.sum(dim=1, keepdim=True).clamp(min=1)
        return mean + self.head(tokens.asked), tokens

    def tokens(
        self,
        values: Tensor,
        times: Tensor,
        present: Tensor,
        days: Tensor,
        noise: Sequence[LayerNoise] | None = None,
    ) -> SeriesTokens:
        """Standardised values (B, T, D) and days to ask for, (B, Q), through the blocks."""
        B, T = present.shape
        middle = _middle(times, present)
        dates = self.value(values) + self.when(_features(times, middle))
        asked = self.asked + self.when(_features(days, middle))
        x = torch.cat([self.cls.expand(B, 1, -1), dates, asked], dim=1)
        hidden = torch.cat([torch.zeros(B, 1), (~present).float().cpu(), torch.ones(B, days.shape[1])], dim=1)
        hidden, routing = hidden.to(x.device), []
        for block, of_gate in zip(self.blocks, noise or [NO_NOISE] * len(self.blocks), strict=True):
            x, chosen = block(x, of_gate, hidden=hidden)
            routing.append(chosen)
        x = self.norm(x)
        return SeriesTokens(x[:, 0], x[:, 1 : 1 + T], x[:, 1 + T :], tuple(routing))

    def standardised(self, vectors: Tensor) -> Tensor:
        """In standard deviations from the mean of the pretraining's embeddings."""
        return (vectors - self.mean) / self.spread

    def _read(self, vectors: Tensor, times: Tensor, present: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        if present is None:
            present = ~vectors.isnan().any(dim=-1)
        values = torch.where(present.unsqueeze(-1), self.standardised(vectors.float()), 0.0)
        return values, times.expand(present.shape), present


def decimal_year(day: date) -> float:
    """A day as a year with its part that has passed."""
    return day.year + (day.timetuple().tm_yday - 0.5) / YEAR


def _middle(times: Tensor, present: Tensor) -> Tensor:
    """(B, 1) mean time of the dates that are present."""
    seen = present.to(times.dtype)
    return ((times * seen).sum(dim=1) / seen.sum(dim=1).clamp(min=1)).unsqueeze(1)


def _features(times: Tensor, middle: Tensor) -> Tensor:
    """(B, n, FEATURES) of (B, n) decimal years: the season, and how far from the middle of the series."""
    angle = 2 * torch.pi * (times % 1.0)
    away = (times - middle).clamp(-FARTHEST, FARTHEST)
    return torch.stack([angle.sin(), angle.cos(), (2 * angle).sin(), (2 * angle).cos(), away], dim=-1).float()
