"""What a run on a series is asked for, without what answers it: the command line is read before that is imported."""

from dataclasses import dataclass, fields
from pathlib import Path

from scenes.settings import CellSettings, SceneSettings

FORMATS = ("cog", "zarr", "both")
"""A Cloud-Optimised GeoTIFF a date, one Zarr group of all dates, or both."""
EXTENTS = ("union", "intersection", "first")
"""What of the ground is in the results: all that any date has, what every date has, or what the first scene has."""

SHIPPED_VECTOR = "shipped"
"""Stands for the weights of the temporal module that come with the project."""


@dataclass(frozen=True, kw_only=True)
class SeriesSettings(CellSettings):
    """The options of `embed_series.py` that are not about finding the scenes."""

    format: str = "cog"
    extent: str = "union"
    like: Path | None = None
    change: tuple[str, str] | None = None
    """Dates that are compared, as `scenes.series.dates.date_of` takes them."""
    null: tuple[str, ...] | None = None
    """Dates between which nothing should have changed; None: those of the same season."""
    vector: str | None = None
    """Weights of the temporal module, or `SHIPPED_VECTOR`; None: no vector of the whole series."""
    fdr: float = 0.1
    """Share of false discoveries among the cells that are called changed."""

    def of_date(self, out: Path) -> SceneSettings:
        """What a date is asked for, with another folder for its results."""
        shared = {field.name: getattr(self, field.name) for field in fields(CellSettings)}
        return SceneSettings(**{**shared, "out": out})
