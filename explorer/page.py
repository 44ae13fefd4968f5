"""The page: data, thumbnails, styles and scripts in one file without external requests."""

import base64
import html
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from eval.probing.projection import Projection
from explorer.colours import colours
from explorer.pictures import TILES_A_ROW, Pictures
from explorer.points import NEIGHBOURS, Points, neighbours, projections
from utils.data_config import IMAGE_SIZE, BigEarthNetInfo, EuroSATInfo
from utils.files import write_text

ASSETS = Path(__file__).parent / "assets"
STYLES = ("base.css", "page.css")
"""The first is that of the page that embeds in the browser (`web/`) as well."""
SCRIPTS = ("data", "groups", "camera", "index", "paint", "draw", "details", "legend", "pointer", "main")
"""In the order in which they need each other."""
NAMES = {BigEarthNetInfo.NAME: "BigEarthNet-Landsat", EuroSATInfo.NAME: "EuroSAT-Landsat"}
GRID = 65_535
"""Positions are whole numbers from 0 to this."""


def write_page(
    path: Path, points: Points, pictures: Pictures | None, method: Literal["pca", "tsne"], seed: int
) -> Path:
    """Project the patches and write the page; the same bytes for the same input.

    Args:
        path: the page.
        points: the patches.
        pictures: of them, where there are any.
        method: see `projections`.
        seed: of the projection.
    """
    views = projections(points, method, seed)
    title = f"{len(points.x):,} {'simulated patches' if points.simulated else 'patches'}"
    if points.dataset:
        title += f" of {NAMES[points.dataset]}"
    parts = {
        "TITLE": html.escape(title),
        "STYLE": "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in STYLES),
        "META": _json(_meta(points, pictures, views, title)),
        "SHEETS": "\n".join(_sheet(number, text) for number, text in enumerate(pictures.sheets if pictures else ())),
        "SCRIPT": "\n".join((ASSETS / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS),
    }
    pieces = (ASSETS / "page.html").read_text(encoding="utf-8").split("%%")
    return write_text(path, "".join(parts.get(piece, piece) for piece in pieces))


def _sheet(number: int, text: str) -> str:
    return f'<script type="text/plain" id="sheet{number}">{text}</script>'


def _meta(points: Points, pictures: Pictures | None, views: list[Projection], title: str) -> dict[str, Any]:
    """Everything but the pictures; arrays are little-endian bytes in base64."""
    lat_lon = None if pictures is None else pictures.lat_lon
    near = neighbours(points)
    return {
        "title": title,
        "count": len(points.x),
        "classes": points.classes,
        "colours": colours(points.classes),
        "multilabel": points.multilabel,
        "labels": _bytes(np.packbits(points.labels, axis=1, bitorder="little"), np.uint8),
        "splitNames": points.split_names,
        "splits": _bytes(points.splits, np.uint8),
        "ids": points.ids,
        "minutes": _bytes(points.minutes, np.int32),
        "latLon": None if lat_lon is None else _bytes(lat_lon, np.float32),
        "near": _bytes(near, np.uint32),
        "nearCount": near.shape[1],
        "views": [{"name": view.method, "xy": _bytes(_whole(view.points), np.uint16)} for view in views],
        "sheets": len(pictures.sheets) if pictures else 0,
        "tilesARow": TILES_A_ROW,
        "tileSide": IMAGE_SIZE,
        "about": _about(points, pictures),
    }


def _about(points: Points, pictures: Pictures | None) -> list[str]:
    """What a reader has to know about the numbers."""
    record = points.provenance
    drawn = f"{len(points.x):,} patches"
    lines = [drawn if len(points.x) == points.total else f"{drawn} of {points.total:,}, drawn at random"]
    if points.simulated:
        lines.append("The patches are simulated: no satellite took them.")
    checkpoint = record.get("checkpoint") or {}
    if checkpoint.get("sha256"):
        lines.append(f"Embedded with {Path(checkpoint.get('path', '')).name}, SHA-256 {checkpoint['sha256'][:12]}…")
    pool = "mean over all tokens" if points.averaged else record.get("pool")
    lines.append(f"{points.x.shape[1]} numbers a patch" + (f" ({pool})" if pool else ""))
    lines.append(f"Neighbours: the {NEIGHBOURS} nearest by Euclidean distance between standardised embeddings.")
    if points.multilabel:
        lines.append("A patch with several labels has the colour of the one that most patches have, or fewest.")
    if points.dataset == BigEarthNetInfo.NAME:
        lines.append("Dates are those of the Sentinel-2 acquisition; the Landsat scene is within two months of it.")
    if pictures is None:
        lines.append("No pictures and places: the page was made without --dataset_path.")
    else:
        lines.append("Pictures are in true colour, the same stretch for all; pixels without data are grey.")
    return lines


def _whole(points: np.ndarray) -> np.ndarray:
    """(N, 2) positions on the grid, in the middle of it, the same scale for both directions."""
    low, high = points.min(axis=0), points.max(axis=0)
    scale = GRID / max(float((high - low).max()), 1e-12)
    return np.rint((points - (low + high) / 2) * scale + GRID / 2).clip(0, GRID)


def _bytes(array: np.ndarray, kind: type) -> str:
    return base64.b64encode(np.ascontiguousarray(array, np.dtype(kind).newbyteorder("<")).tobytes()).decode()


def _json(value: Any) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False).replace("<", "\\u003c")
    return text.encode("utf-8", "backslashreplace").decode()  # halves of letters, which UTF-8 does not have
