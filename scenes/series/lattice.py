"""The one lattice of cells that all dates of a series share.

Windows lie on multiples of 1,200 m from the origin of the map projection (`scenes.windows`), so that cells of scenes of
one projection lie on each other whatever each of them covers: a lattice is no more than an extent.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rasterio.crs import CRS
from rasterio.transform import Affine, array_bounds

from scenes.input.grids import open_raster, same_crs
from scenes.input.virtual_files import shown
from scenes.products.embedding_file import TILE, EmbeddingMap
from scenes.products.geotiffs import write_cog
from scenes.windows import Frame
from utils.errors import DataError

SAME_CELL = 1e-3
"""Share of a cell by which corners may lie off each other: software rounds its numbers."""


class Lattice(NamedTuple):
    """Cells in rows and columns."""

    crs: CRS | None
    transform: Affine
    height: int
    width: int

    @classmethod
    def of(cls, frame: Frame) -> "Lattice":
        """The cells of one scene."""
        return cls(frame.grid.crs, frame.output_transform, *frame.output_shape)

    def offset(self, transform: Affine) -> tuple[float, float]:
        """Rows and columns from this lattice's corner to that of another, whole where cells lie on each other."""
        return (transform.f - self.transform.f) / self.transform.e, (transform.c - self.transform.c) / self.transform.a

    def same_as(self, embeddings: EmbeddingMap) -> bool:
        """Whether a map has just these cells."""
        shape = (embeddings.height, embeddings.width)
        return shape == (self.height, self.width) and self.transform.almost_equals(embeddings.transform, 1e-6)


class _Extent(NamedTuple):
    """Whole rows and columns of cells, counted from the first scene's corner; ends excluded."""

    top: int
    left: int
    bottom: int
    right: int

    def joined(self, other: "_Extent") -> "_Extent":
        low = (min(a, b) for a, b in zip(self[:2], other[:2], strict=True))
        return _Extent(*low, *(max(a, b) for a, b in zip(self[2:], other[2:], strict=True)))

    def common(self, other: "_Extent") -> "_Extent":
        low = (max(a, b) for a, b in zip(self[:2], other[:2], strict=True))
        return _Extent(*low, *(min(a, b) for a, b in zip(self[2:], other[2:], strict=True)))


def common_lattice(frames: Sequence[Frame], names: Sequence[str], extent: str, like: Path | None) -> Lattice:
    """The lattice of a series.

    Args:
        frames, names: of its scenes.
        extent: one of `scenes.series.settings.EXTENTS`.
        like: a raster whose ground is wanted, whatever the extent.

    Raises:
        DataError: for another map projection, pixels between those of the first scene, or no ground in common.
    """
    first = Lattice.of(frames[0])
    extents = [_extent_of(first, Lattice.of(frame), names[0], name) for frame, name in zip(frames, names, strict=True)]
    found, all_of_it = extents[0], extents[0]
    for other in extents[1:]:
        all_of_it = all_of_it.joined(other)
        if extent != "first":
            found = found.joined(other) if extent == "union" else found.common(other)
    if like is not None:
        found = all_of_it.common(_ground_of(like, first, names[0]))
    if found.top >= found.bottom or found.left >= found.right:
        where = shown(like) if like else names[0]
        fix = "give a raster of their ground" if like else "leave --extent out, or give scenes of one place"
        raise DataError(f"{where}: has no ground in common with all of the series; {fix}")
    a, e = first.transform.a, first.transform.e
    corner = (first.transform.c + a * found.left, first.transform.f + e * found.top)
    transform = Affine(a, 0.0, corner[0], 0.0, e, corner[1])
    return Lattice(first.crs, transform, found.bottom - found.top, found.right - found.left)


def _extent_of(first: Lattice, other: Lattice, first_name: str, name: str) -> _Extent:
    """Where a scene's cells lie; raises DataError where they do not lie on the first scene's."""
    _require_same_crs(first.crs, other.crs, first_name, name)
    offsets = first.offset(other.transform)
    top, left = (round(offset) for offset in offsets)
    plain = first.crs is None and (other.height, other.width) != (first.height, first.width)
    if plain or max(abs(offsets[0] - top), abs(offsets[1] - left)) > SAME_CELL:
        raise DataError(
            f"{name}: its pixels do not lie on those of {first_name}; bring its files to that grid (gdalwarp -tr 30 30 "
            "-te … -r near)"
        )
    return _Extent(top, left, top + other.height, left + other.width)


def _require_same_crs(first: CRS | None, other: CRS | None, first_name: str, name: str) -> None:
    if not same_crs(first, other):
        stated = [crs.to_string() if crs else "none" for crs in (other, first)]
        raise DataError(
            f"{name}: its map projection ({stated[0]}) is not that of {first_name} ({stated[1]}); reproject its files: "
            f"gdalwarp -t_srs {stated[1]} -tr 30 30 -tap -r near"
        )


def _ground_of(like: Path, first: Lattice, first_name: str) -> _Extent:
    """The cells that hold some of a raster's ground."""
    file = open_raster(like)
    _require_same_crs(first.crs, file.crs, first_name, shown(like))
    left, bottom, right, top = array_bounds(file.height, file.width, file.transform)
    up = first.offset(Affine(1.0, 0.0, left, 0.0, 1.0, top))
    low = first.offset(Affine(1.0, 0.0, right, 0.0, 1.0, bottom))
    start, stop = (np.floor(np.add(up, SAME_CELL)), np.ceil(np.subtract(low, SAME_CELL)))
    return _Extent(*(int(number) for number in (*start, *stop)))


def placed_stripes(embeddings: EmbeddingMap, lattice: Lattice) -> Iterator[np.ndarray]:
    """(D, rows, width) float32 of a lattice from top to bottom; NaN where the map has no cell."""
    down, right = (round(offset) for offset in lattice.offset(embeddings.transform))
    columns = slice(max(0, right), min(lattice.width, right + embeddings.width))
    for top in range(0, lattice.height, TILE):
        stop = min(top + TILE, lattice.height)
        stripe = np.full((embeddings.count, stop - top, lattice.width), np.nan, np.float32)
        rows = slice(max(top, down), min(stop, down + embeddings.height))
        if rows.start < rows.stop and columns.start < columns.stop:
            cells = embeddings.rows(rows.start - down, rows.stop - down)
            inside = cells[:, columns.start - right : columns.stop - right].transpose(2, 0, 1)
            stripe[:, rows.start - top : rows.stop - top, columns] = inside
        yield stripe


def write_placed(path: Path, embeddings: EmbeddingMap, lattice: Lattice, scratch: Path) -> Path:
    """Write a map's cells on a lattice, in the form and with the tags of the map's own file."""
    bands = tuple(f"embedding {number}" for number in range(embeddings.count))
    layer = embeddings.layer(bands, "float32", np.nan, tile=TILE)
    layer = layer._replace(height=lattice.height, width=lattice.width, transform=lattice.transform)
    return write_cog(path, layer, placed_stripes(embeddings, lattice), scratch)
