"""A STAC item that describes the files of a run, for catalogues: where, when, which numbers, and how they were made.

The fields `emb:…` are those of the proposed embedding extension (Cloud-Native Geospatial sprint of March 2026). Its
schema has no settled address yet, so that the item does not name it under `stac_extensions`.
"""

from datetime import time
from pathlib import Path
from typing import Any

from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform_geom

from scenes.input.product import Scene
from scenes.products.embedding_file import EmbeddingMap
from utils.errors import ConfigError
from utils.files import write_json
from utils.metadata import AcquisitionTime
from utils.sensors import UNSTATED

STAC_ITEM = "stac_item.json"
STAC_VERSION = "1.1.0"
PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
COG, PNG = "image/tiff; application=geotiff; profile=cloud-optimized", "image/png"
ASSETS: dict[str, tuple[str, dict[str, Any]]] = {
    "embeddings.tif": ("embeddings", {"title": "Embeddings, one band a number", "type": COG, "roles": ["data"]}),
    "land_cover.tif": ("land_cover", {"title": "Land cover by a linear probe", "type": COG, "roles": ["data"]}),
    "quick_look.png": ("quick_look", {"title": "True colour and components", "type": PNG, "roles": ["overview"]}),
}
"""Files of a run to the key of their asset and what it says."""
STEPS = 20
"""Points along a side of the footprint: lines of a map projection are curves on the globe."""


def require_described(scene: Scene) -> None:
    """Raise ConfigError where an item could not say where or when."""
    if scene.crs is None:
        raise ConfigError(f"--stac: {scene.name} has no reliable georeferencing, which an item needs; leave it out")
    if scene.time.day is None:
        raise ConfigError(f"--stac: nothing says when {scene.name} was taken, which an item needs; give --date")


def write_item(path: Path, embeddings: EmbeddingMap, scene: Scene, about: dict[str, Any], files: list[Path]) -> Path:
    """Write the item.

    Args:
        path: the item; its assets lie beside it.
        embeddings: the map.
        scene: for name and time; `require_described` has been called.
        about: how the embeddings were made, plain values.
        files: of the run.
    """
    geometry, cell = _footprint(embeddings), [about["cell"]] * 2
    properties = {
        **_when(scene.time),
        **({"instruments": [scene.sensor.name]} if scene.sensor.missing and scene.sensor.name != UNSTATED.name else {}),
        "gsd": round(abs(embeddings.transform.a), 3),
        "emb:type": "chip",
        "emb:dimensions": embeddings.count,
        "emb:chip_layout": {"layout_type": "regular_grid", "chip_size": cell, "stride": cell},
        "emb:temporal_resolution": "single_acquisition",
        "emb:runtime_parameters": about,
        **_quantization(embeddings),
    }
    names = [file.name for file in files]
    assets = {key: {"href": f"./{name}", **told} for name, (key, told) in ASSETS.items() if name in names}
    assets["embeddings"] |= {
        "data_type": embeddings.dtype,
        "proj:code": _code(embeddings.crs),
        "proj:shape": [embeddings.height, embeddings.width],
        "proj:transform": list(embeddings.transform)[:6],
    }
    item = {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [PROJECTION],
        "id": f"{scene.name}_embeddings",
        "geometry": geometry,
        "bbox": _bounds(geometry),
        "properties": properties,
        "links": [],
        "assets": assets,
    }
    return write_json(path, item)


def _when(taken: AcquisitionTime) -> dict[str, str | None]:
    if taken.clock is not None:
        return {"datetime": f"{taken.day}T{taken.clock:%H:%M:%S}Z"}
    return {"datetime": None, "start_datetime": f"{taken.day}T{time.min}Z", "end_datetime": f"{taken.day}T23:59:59Z"}


def _quantization(embeddings: EmbeddingMap) -> dict[str, Any]:
    if embeddings.dtype != "int8":
        return {}
    numbers = {"scale": embeddings.scales.tolist(), "offset": embeddings.offsets.tolist()}
    kinds = {"method": "linear", "original_dtype": "float32", "quantized_dtype": "int8"}
    return {"emb:quantization": {**kinds, **numbers}}


def _code(crs: CRS) -> str | None:
    authority = crs.to_authority()
    return ":".join(authority) if authority else None


def _footprint(embeddings: EmbeddingMap) -> dict[str, Any]:
    """The outline of the map in degrees, cut in two where it crosses the antimeridian."""
    ring = _outline(embeddings.transform, embeddings.height, embeddings.width)
    shape = {"type": "Polygon", "coordinates": [ring]}
    return transform_geom(embeddings.crs, "EPSG:4326", shape, antimeridian_cutting=True, precision=6)


def _outline(grid: Affine, height: int, width: int) -> list[tuple[float, float]]:
    """Counter-clockwise from the upper left corner, closed."""
    down = [(0.0, height * step / STEPS) for step in range(STEPS)]
    right = [(width * step / STEPS, float(height)) for step in range(STEPS)]
    half = down + right
    corners = half + [(width - x, height - y) for x, y in half]
    points = [(grid.c + grid.a * x + grid.b * y, grid.f + grid.d * x + grid.e * y) for x, y in corners]
    return [*points, points[0]]


def _bounds(geometry: dict[str, Any]) -> list[float]:
    """West, south, east, north; west is greater than east where a footprint crosses the antimeridian."""
    parts = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
    boxes = [[bound(point[axis] for point in part[0]) for bound in (min, max) for axis in (0, 1)] for part in parts]
    south, north = min(box[1] for box in boxes), max(box[3] for box in boxes)
    if len(boxes) > 1:
        return [max(box[0] for box in boxes), south, min(box[2] for box in boxes), north]
    return [boxes[0][0], south, boxes[0][2], north]
