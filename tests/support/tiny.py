"""Small inputs that several tests share: configs on the embedded sample, and datasets written by hand."""

import json
from pathlib import Path

import numpy as np
import rasterio
import yaml
from conftest import SAMPLE

from models import MOEMAE, build_model

TINY_MODEL = {
    "size": "XXS",
    "device": "cpu",
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 4,
    "num_groups": 2,
    "dfirsth": 16,
    "dlasth": 8,
}

UTM_33N = rasterio.CRS.from_epsg(32633)


def write_config(path: Path, **sections: object) -> Path:
    path.write_text(yaml.safe_dump(sections))
    return path


def sample_ids(count: int) -> list[str]:
    return (SAMPLE / "bigearthnet-train.csv").read_text().split()[:count]


def training_config(folder: Path, patches: int = 10, **training: object) -> Path:
    """A run of a few seconds: a tiny model on a few sample patches."""
    csv = folder / "train.csv"
    csv.write_text("\n".join(sample_ids(patches)) + "\n")
    values = {
        "dataset_path": str(SAMPLE),
        "dataset_csv": str(csv),
        "epochs": 3,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "weight_path": str(folder / "run"),
        **training,
    }
    return write_config(folder / "train.yaml", model=TINY_MODEL, training=values)


def write_tif(path: Path, pixels: np.ndarray, crs=UTM_33N, origin=(500_000.0, 5_500_000.0)) -> Path:
    """A GeoTIFF as in the published datasets: (C, H, W), 30 m, pixel-interleaved."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, height, width = pixels.shape
    transform = rasterio.Affine(30.0, 0.0, origin[0], 0.0, -30.0, origin[1])
    profile = {"driver": "GTiff", "dtype": pixels.dtype.name, "interleave": "pixel", "crs": crs, "transform": transform}
    with rasterio.open(path, "w", count=bands, height=height, width=width, **profile) as file:
        file.write(pixels)
    return path


def write_bigearthnet(root: Path, patches: dict, labels: dict | None = None) -> Path:
    """A dataset in the published layout with a split file `split.csv`."""
    for name, pixels in patches.items():
        write_tif(root / "images" / f"{name}.tif", pixels)
    (root / "labels").mkdir(parents=True, exist_ok=True)
    for name, names in (labels or {}).items():
        (root / "labels" / f"{name}_labels_metadata.json").write_text(json.dumps({"labels": names}))
    (root / "split.csv").write_text("\n".join(patches) + "\n")
    return root


def some_pixels(seed: int = 0, shape: tuple[int, int, int] = (7, 43, 43)) -> np.ndarray:
    return np.random.default_rng(seed).integers(7_000, 20_000, shape, dtype=np.uint16)


def tiny_model(**changes: object) -> MOEMAE:
    """In evaluation mode; always the same weights."""
    numbers = {key: value for key, value in TINY_MODEL.items() if key not in ("size", "device")}
    return build_model("XXS", seed=0, **{**numbers, **changes}).eval()
