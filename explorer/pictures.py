"""True-colour thumbnails of patches, many to a sheet, and the places of the patches."""

import base64
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from datasets.loader import build_dataset
from datasets.patches import PatchDataset
from explorer.points import PatchSource, Points
from utils.analysis_utils import TRUE_COLOUR
from utils.data_config import IMAGE_SIZE, REFLECTANCE_OFFSET, REFLECTANCE_SCALE
from utils.errors import DataError
from utils.files import write_text
from utils.metadata import select_fields

TILES_A_ROW = 25
"""Of a sheet, and as many rows: 1,000 x 1,000 pixels, which a phone decodes in 4 MB."""
QUALITY = 80
"""Of WebP: some 300 bytes a patch."""
BRIGHTEST = 0.25
"""Reflectance that becomes white; the same for all patches, so that their colours can be compared."""
GAMMA = 1.8
FILL = 0.6
"""Grey of pixels without data."""


class Pictures(NamedTuple):
    """What the dataset's files add to a page."""

    sheets: list[str]
    """WebP in base64; patch number i is tile i % 625 of sheet i // 625, row by row."""
    lat_lon: np.ndarray | None
    """(N, 2) float32 degrees; None where the dataset has no places."""


def make_pictures(points: Points, dataset_path: str) -> Pictures:
    """Read the patches and draw them.

    Args:
        points: whose ids are looked up.
        dataset_path: the dataset's folder, or a pack.

    Raises:
        DataError: when the folder does not hold these patches, or the embeddings do not name them.
    """
    source = points.source
    if source is None:
        raise DataError("the embeddings do not name their dataset and patches; leave --dataset_path out")
    names = list(dict.fromkeys(source.ids))
    with tempfile.TemporaryDirectory() as scratch:
        split = write_text(Path(scratch) / "patches.txt", "".join(f"{name}\n" for name in names))
        dataset = _open(source, points.provenance, dataset_path, split)
        row_of = {name: row for row, name in enumerate(dataset.ids)}
        sheets, places = [], []
        for pixels, columns in _read_sheets(dataset, [row_of[name] for name in source.ids]):
            sheets.append(_sheet(pixels))
            if columns is not None:
                places.append(select_fields(columns, ("lat", "lon")))
    return Pictures(sheets, np.concatenate(places).astype(np.float32) if places else None)


def _open(source: PatchSource, provenance: dict[str, Any], dataset_path: str, split: Path) -> PatchDataset:
    """The patches as they were embedded."""
    config = provenance.get("config", {})
    options = {
        "crop": config.get("data", {}).get("crop"),
        "image_size": config.get("model", {}).get("img_size") or IMAGE_SIZE,
        "published_behaviour": bool(provenance.get("published_behaviour")),
    }
    try:
        return build_dataset(source.dataset, dataset_path, str(split), **options)
    except DataError as error:
        said = str(error).replace(str(split), "the embeddings")
        raise DataError(f"--dataset_path {dataset_path}: is not what was embedded ({said})") from error


def _read_sheets(dataset: PatchDataset, rows: list[int]) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Pixels and metadata columns of the patches, a sheet at a time."""
    step = TILES_A_ROW**2
    for start in tqdm(range(0, len(rows), step), desc="drawing patches", leave=False, disable=None):
        read = dataset.read(rows[start : start + step])
        yield read.pixels, read.columns


def _sheet(pixels: np.ndarray) -> str:
    """(n, C, S, S) digital numbers as one WebP."""
    count, _, side, _ = pixels.shape
    rows = -(-count // TILES_A_ROW)
    tiles = np.zeros((rows * TILES_A_ROW, side, side, 3), np.uint8)
    tiles[:count] = picture(pixels)
    grid = tiles.reshape(rows, TILES_A_ROW, side, side, 3)
    image = grid.transpose(0, 2, 1, 3, 4).reshape(rows * side, TILES_A_ROW * side, 3)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "WEBP", quality=QUALITY)
    return base64.b64encode(file.getvalue()).decode()


def picture(pixels: np.ndarray) -> np.ndarray:
    """(n, C, H, W) digital numbers as (n, H, W, 3) uint8 in true colour, all in one stretch; fill is grey."""
    shown = pixels[:, list(TRUE_COLOUR)].transpose(0, 2, 3, 1).astype(np.float32)
    bright = ((shown * REFLECTANCE_SCALE + REFLECTANCE_OFFSET) / BRIGHTEST).clip(0, 1) ** (1 / GAMMA)
    fill = np.logical_not(np.any(pixels, axis=1))
    return np.rint(255 * np.where(fill[..., None], FILL, bright)).astype(np.uint8)
