"""What a report is made of: sections of text, tables and figures. Rendered by `studies/report.py`."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from eval.statistics.bootstrap import Interval


class Value(NamedTuple):
    """A number with its 95 % interval, where it has one; shown with `digits` after the point."""

    value: float
    low: float | None = None
    high: float | None = None
    digits: int = 1

    @classmethod
    def of(cls, found: Interval, scale: float = 1.0, digits: int = 1) -> "Value":
        """An interval as a cell, in units of 1 / `scale`."""
        bounds = found.bounds
        low, high = (None, None) if bounds is None else (scale * bounds[0], scale * bounds[1])
        return cls(scale * found.value, low, high, digits)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Both ends of the interval; None where there is no interval."""
        return None if self.low is None or self.high is None else (self.low, self.high)


Cell = str | int | float | Value | None
"""None is shown as an empty cell: not run, or not defined."""


class Table(NamedTuple):
    """A table of results."""

    name: str
    """File name of its CSV, without ending: `[a-z0-9_]+`."""
    title: str
    columns: Sequence[str]
    """The first one names the rows."""
    rows: Sequence[Sequence[Cell]]
    measured_on: str
    """In plain words, which data these numbers were measured on."""
    note: str = ""


class Figure(NamedTuple):
    """A picture."""

    path: Path
    """PNG."""
    caption: str


class Section(NamedTuple):
    """One part of the report."""

    title: str
    text: Sequence[str] = ()
    """Paragraphs, plain text. Including what the data do not support."""
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    passed: bool | None = None
    """Whether a sanity experiment met its criterion; None for everything else."""
