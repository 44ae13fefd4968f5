"""Embedding files written by hand: clusters, so that a plane has something to show."""

import json
from pathlib import Path

import numpy as np

from utils.data_config import BigEarthNetInfo


def write_embeddings(path: Path, x: np.ndarray, y: np.ndarray, ids: list[str] | None, **record: object) -> Path:
    """An `.npz` as `embed.compute_embed` writes it; a JSON beside it where `record` says anything."""
    split = path.stem.rpartition("_")[2]
    arrays = {f"x_{split}": x.astype(np.float32), f"y_{split}": y.astype(np.int16)}
    np.savez(path, **arrays, **({} if ids is None else {"ids": np.array(ids)}))
    if record:
        path.with_suffix(".json").write_text(json.dumps({"split": split, **record}))
    return path


def clusters(count: int, width: int = 16, groups: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Embeddings (N, D), labels (N, 19) that go with the cluster, and BigEarthNet ids."""
    random = np.random.default_rng(seed)
    group = random.integers(0, groups, count)
    x = random.normal(0, 4, (groups, width))[group] + random.normal(0, 1, (count, width))
    usual = random.random((groups, len(BigEarthNetInfo.CLASSES))) < 0.15
    y = usual[group] ^ (random.random((count, len(BigEarthNetInfo.CLASSES))) < 0.02)
    days = [f"2017{1 + i % 12:02d}{1 + i % 28:02d}" for i in range(count)]
    ids = [f"S2A_MSIL2A_{day}T{8 + i % 4:02d}1031_{i // 200}_{i % 200}" for i, day in enumerate(days)]
    return x, y, ids
