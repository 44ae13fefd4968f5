"""Small series for tests: some dates of one place, and `embed_series.py` on them."""

from pathlib import Path

import numpy as np
import torch
from scene_files import CLEAR, ORIGIN, PRODUCT, WIDTH, some_numbers, write_product

from embed_series import main
from models.temporal import TemporalConfig, TemporalModule
from models.temporal_weights import write_temporal

SIDE = (90, 130)
DAYS = ("20180704", "20180720", "20190707")


def product_of(day: str) -> str:
    """The id of a product of a day (YYYYMMDD)."""
    return PRODUCT.replace("20180704", day)


def write_date(folder: Path, day: str, seed: int = 0, **options: object) -> Path:
    """A product of a day, named after it: the same land, a little brighter and noisier each time."""
    side = options.pop("side", SIDE)
    random = np.random.default_rng(int(day) + seed)
    numbers = some_numbers(side) + int(day) % 7 * 40 + random.normal(0, 30, (7, *side)).round()
    qa = options.pop("qa", np.full(side, CLEAR))
    return write_product(folder / day, numbers.astype(np.uint16), qa, product_of(day), **options)


def moved(rows: int, columns: int) -> tuple[float, float]:
    """The corner of a scene that begins so many pixels further down and right."""
    return ORIGIN[0] + 30.0 * columns, ORIGIN[1] - 30.0 * rows


def series(scenes: list[Path] | Path, checkpoint: Path, out: Path, *options: object) -> Path:
    """Run `embed_series.py` and return its folder."""
    places = [scenes] if isinstance(scenes, Path) else scenes
    arguments = ["--scenes", *places, "--checkpoint", checkpoint, "--out", out, "--device", "cpu", *options]
    assert main(list(map(str, arguments))) == 0
    return out


def files_of(folder: Path) -> list[Path]:
    """The dates' files, earliest first."""
    return sorted(folder.glob("embeddings_*.tif"))


def temporal_weights(path: Path, **about: object) -> Path:
    """A temporal module of a few numbers on the tiny model's cells."""
    torch.manual_seed(0)
    sizes = {"width": WIDTH, "pool": "patch_mean", "dim": 12, "heads": 2, "groups": 1, "expert_width": 6, "slots": 3}
    write_temporal(path, TemporalModule(TemporalConfig(**{**sizes, **about})))
    return path
