"""What a report is made of: sections of text, tables and figures. Results first, looks later (`studies/report.py`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Value(NamedTuple):
    """A number with its 95 % interval, where it has one; shown with `digits` after the point."""

    value: float
    low: float | None = None
    high: float | None = None
    digits: int = 1


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
    """Paragraphs, plain text. What the data do not support is said here."""
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    passed: bool | None = None
    """The mark of a sanity experiment; None for everything else."""
