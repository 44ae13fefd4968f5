"""Labels as shapes: polygons and points of a vector file, points of a table, on the scene's map projection."""

import csv
import importlib.util
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import rasterio.features
import rasterio.warp
from rasterio.crs import CRS
from rasterio.errors import CRSError

from utils.errors import ConfigError, DataError

TABLE_ENDINGS = (".csv", ".tsv", ".txt")
VECTOR_ENDINGS = (".geojson", ".json", ".gpkg", ".shp", ".fgb", ".zip", ".kml")
CLASS_COLUMN = "class"
"""The column taken where none is named."""
_LON, _LAT = ("lon", "long", "longitude", "lng"), ("lat", "latitude")
_AREAS, _POINTS = ("Polygon", "MultiPolygon"), ("Point", "MultiPoint")
MOST_CLASSES = 254
_WHOLE = re.compile(r"-?[0-9]{1,18}")


class Shapes(NamedTuple):
    """Shapes with classes, on a scene's projection."""

    geometries: tuple[dict[str, Any], ...]
    """GeoJSON."""
    classes: np.ndarray
    """(N,) index into names."""
    names: tuple[str, ...]
    only_points: bool
    left_out: int
    """Shapes without a class or a place."""


def read_shapes(path: Path, column: str | None, crs: CRS) -> Shapes:
    """Read a vector file or a table of points.

    Args:
        path: by its ending a table (lon, lat in degrees and a class) or what GDAL's vector side reads.
        column: of the classes; None: `class`, or the only one there is.
        crs: of the scene.

    Raises:
        DataError, ConfigError: naming the file and what is wrong with it.
    """
    table = path.suffix.lower() in TABLE_ENDINGS
    geometries, values, source = _read_table(path, column) if table else _read_vector(path, column)
    kept = [
        (geometry, name)
        for geometry, value in zip(geometries, values, strict=True)
        if (name := class_name(value)) is not None
        and geometry is not None
        and rasterio.features.is_valid_geom(geometry)
        and geometry.get("coordinates")
    ]
    if not kept:
        raise DataError(f"{path}: no shape of it has both a place and a class; check the file and --column")
    if other := {geometry["type"] for geometry, _ in kept} - {*_AREAS, *_POINTS}:
        raise DataError(f"{path}: holds {', '.join(sorted(other))}, which cover no pixel; give polygons or points")
    names = ordered_names(path, {name for _, name in kept})
    try:
        placed = rasterio.warp.transform_geom(source, crs, [geometry for geometry, _ in kept])
    except Exception as error:  # GDAL's errors have no public class
        raise DataError(f"{path}: its coordinates have no place on the scene's projection; check its CRS") from error
    return Shapes(
        tuple(placed),
        np.array([names.index(name) for _, name in kept]),
        names,
        all(geometry["type"] in _POINTS for geometry, _ in kept),
        len(values) - len(kept),
    )


def class_name(value: object) -> str | None:
    """A class as it stands in a file to its name; None where nothing stands there."""
    if value is None or (isinstance(value, float | np.floating) and not np.isfinite(value)):
        return None
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)  # a column of whole numbers with a gap is read as floats
    text = " ".join(str(value).split())
    return text if text and text.lower() not in ("nan", "none", "null", "<na>") else None


def ordered_names(path: Path, names: Iterable[str]) -> tuple[str, ...]:
    """In order, numbers by value. Raises DataError for fewer than two or too many."""
    numbers = {name: int(name) if _WHOLE.fullmatch(name) else None for name in names}
    ordered = sorted(numbers, key=lambda name: (numbers[name] is None, numbers[name] or 0, name))
    if len(ordered) < 2:
        raise DataError(f"{path}: holds {len(ordered)} class ({', '.join(ordered)}); a map needs two or more")
    if len(ordered) > MOST_CLASSES:
        raise DataError(
            f"{path}: holds {len(ordered):,} classes, a map at most {MOST_CLASSES}; name the classes' column: --column"
        )
    return tuple(ordered)


def choose_column(path: Path, column: str | None, present: Sequence[str]) -> str:
    """The column of classes. Raises ConfigError with those there are."""
    if column is None and len(present) == 1:
        return present[0]
    wanted = column or CLASS_COLUMN
    matches = [name for name in present if name == wanted] or [
        name for name in present if name.lower() == wanted.lower()
    ]
    if len(matches) != 1:
        listed = ", ".join(present) or "none"
        raise ConfigError(f"--column: {path} has no column {wanted}; its columns: {listed}")
    return matches[0]


def _read_table(path: Path, column: str | None) -> tuple[list, list, CRS]:
    try:
        table = pd.read_csv(path, sep=None, engine="python", dtype=str, encoding="utf-8-sig", skipinitialspace=True)
    except (OSError, ValueError, csv.Error) as error:  # pandas' own are among the second
        reason = (str(error).splitlines() or [""])[0]
        raise DataError(f"{path}: cannot be read as a table ({reason[:120]}); give columns lon, lat, class") from error
    columns = [str(name) for name in table.columns]
    lon, lat = (next((name for name in columns if name.lower() in known), None) for known in (_LON, _LAT))
    if lon is None or lat is None:
        raise DataError(f"{path}: has no columns lon and lat (degrees) but {', '.join(columns)}; rename its columns")
    name = choose_column(path, column, [other for other in columns if other not in (lon, lat)])
    x, y = (np.asarray(pd.to_numeric(table[part], errors="coerce"), np.float64) for part in (lon, lat))
    if (np.abs(x) > 360).any() or (np.abs(y) > 90).any():
        largest = f"{np.nanmax(np.abs(x)):g} and {np.nanmax(np.abs(y)):g}"
        raise DataError(f"{path}: lon and lat go up to {largest}, which are no degrees; give degrees (EPSG:4326)")
    points = [
        {"type": "Point", "coordinates": (float(a), float(b))} if np.isfinite((a, b)).all() else None
        for a, b in zip(x, y, strict=True)
    ]
    return points, table[name].tolist(), CRS.from_epsg(4326)


def _read_vector(path: Path, column: str | None) -> tuple[list, list, CRS]:
    if importlib.util.find_spec("pyogrio") is None:
        raise ConfigError(f"{path}: reading polygons needs the package pyogrio (pip install -r requirements.txt)")
    # Asked for above; a type checker may run where it is not installed.
    import pyogrio.raw  # pyright: ignore[reportMissingImports]

    try:
        layers = pyogrio.list_layers(path)
        if len(layers) != 1:
            listed = ", ".join(str(name) for name in layers[:, 0])
            raise DataError(
                f"{path}: has {len(layers)} layers ({listed}); save the one with the labels to its own file"
            )
        about, _, shapes, fields = pyogrio.raw.read(path, force_2d=True)
        if not about["crs"]:
            raise DataError(f"{path}: does not say its coordinate reference system (a shapefile has it in its .prj)")
        present = [str(name) for name in about["fields"]]
        values = fields[present.index(choose_column(path, column, present))].tolist()
        as_text, kind = io.BytesIO(), about["geometry_type"]  # GDAL turns its own geometries into GeoJSON
        pyogrio.raw.write(as_text, shapes, [], [], driver="GeoJSON", geometry_type=kind, crs=about["crs"])
    except (OSError, ValueError, RuntimeError) as error:  # pyogrio's errors are of the last
        raise DataError(f"{path}: cannot be read as a vector file ({error}); check the file") from error
    try:
        crs = CRS.from_user_input(about["crs"])
    except CRSError as error:
        raise DataError(f"{path}: its coordinate reference system is not known ({error}); reproject it") from error
    return [feature["geometry"] for feature in json.loads(as_text.getvalue())["features"]], values, crs
