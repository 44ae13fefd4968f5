"""Small Landsat products for tests: numbers like Collection-2 Level-2, written in the published layouts."""

import json
from pathlib import Path

import numpy as np
import rasterio
from tiny import TINY_MODEL, UTM_33N

from classification_models.logistic_regression import LogisticRegressionModel
from embed_scene import main
from models import build_model
from models.checkpoint import write_checkpoint
from utils.files import sha256

PRODUCT = "LC08_L2SP_193024_20180704_20200831_02_T1"
ORIGIN = (16694 * 30.0 - 15, 183342 * 30.0 + 15)
"""Upper left corner: pixel centres on multiples of 30 m, and in the middle of a window of the global grid."""
GROUND = np.array([8300, 8600, 9600, 9300, 15500, 12600, 10600], np.int64)[:, None, None]
WIDTH = TINY_MODEL["embed_dim"]
"""Numbers of a tiny model's cell."""
CLEAR, CLOUD, SHADOW, FILL = 21824, 22280, 23888, 1


def some_numbers(side: tuple[int, int] = (130, 170), seed: int = 0) -> np.ndarray:
    """(7, *side) uint16: land with large and small structures, green brighter than coastal blue."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[: side[0], : side[1]] / 17
    waves = 600 * (np.sin(rows + 2 * np.cos(columns)) + np.cos(1.3 * columns))
    return (GROUND + waves * (GROUND / 9000) + random.normal(0, 80, (7, *side))).round().astype(np.uint16)


def write_band(path: Path, numbers: np.ndarray, origin=ORIGIN, size: float = 30.0, crs=UTM_33N, **options) -> Path:
    """A GeoTIFF of (bands, h, w) numbers; `descriptions` and `transform` may be given."""
    names = options.pop("descriptions", None)
    grid = options.pop("transform", rasterio.Affine(size, 0, origin[0], 0, -size, origin[1]))
    profile = {"driver": "GTiff", "count": len(numbers), "height": numbers.shape[1], "width": numbers.shape[2]}
    profile |= {"dtype": numbers.dtype.name, "crs": crs, "transform": grid, **options}
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", **profile) as file:
        file.write(numbers)
        if names:
            file.descriptions = names
    return path


def write_product(
    folder: Path,
    numbers: np.ndarray,
    qa: np.ndarray | None = None,
    product: str = PRODUCT,
    time: str | None = "09:52:31.1234560Z",
    **options: object,
) -> Path:
    """A Collection-2 Level-2 folder; `time` None leaves the MTL out."""
    for number, band in enumerate(numbers, 1):
        write_band(folder / f"{product}_SR_B{number}.TIF", band[None], **options)
    if qa is not None:
        write_band(folder / f"{product}_QA_PIXEL.TIF", qa[None].astype(np.uint16), **options)
    if time is not None:
        image = {"DATE_ACQUIRED": f"{product[17:21]}-{product[21:23]}-{product[23:25]}", "SCENE_CENTER_TIME": time}
        groups = {"PRODUCT_CONTENTS": {"LANDSAT_PRODUCT_ID": product}, "IMAGE_ATTRIBUTES": image}
        (folder / f"{product}_MTL.json").write_text(json.dumps({"LANDSAT_METADATA_FILE": groups}))
    return folder


def tiny_checkpoint(path: Path, **changes: object) -> Path:
    """Weights of a model that runs in no time."""
    options = {key: value for key, value in TINY_MODEL.items() if key not in ("size", "device")}
    write_checkpoint(path, build_model("XXS", seed=0, **options, **changes), epoch=0, best_train_loss=0.0)
    return path


def embed(scene: Path, checkpoint: Path, out: Path, *options: object) -> Path:
    """Run `embed_scene.py` and return the embedding file."""
    arguments = ["--scene", scene, "--checkpoint", checkpoint, "--out", out, "--device", "cpu", *options]
    assert main(list(map(str, arguments))) == 0
    return out / "embeddings.tif"


def read(path: Path) -> np.ndarray:
    """(bands, h, w)"""
    with rasterio.open(path) as file:
        return file.read()


def write_probe(path: Path, checkpoint: Path | None = None, width: int = WIDTH, classes: int = 3, **train) -> Path:
    """A probe with some coefficients and, with a checkpoint, the record beside it."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(60, width)), np.arange(60) % classes
    LogisticRegressionModel(scale=True).fit(x, y).save(path)
    if checkpoint is not None:
        origin = {"pool": "mean", "checkpoint": {"sha256": sha256(checkpoint)}, "dataset": "bigearthnet_ls", **train}
        record = {"classes": ["low", "middle", "high"], "embeddings": {"train": origin}}
        path.with_suffix(".json").write_text(json.dumps(record))
    return path


def six_band_folder(root: Path, names: tuple[str, ...] | None = None) -> Path:
    """Ten images of ETM+ in each of two classes."""
    for number in range(20):
        path = root / ("wood", "field")[number % 2] / f"{number}.tif"
        write_band(path, some_numbers((48, 48), number)[1:], descriptions=names)
    return root
