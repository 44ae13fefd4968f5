"""Small embeddings for the tests of the probe."""

import json
from pathlib import Path

import numpy as np


def make_data(samples: int = 300, width: int = 6, outputs: int = 4, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Features float32 (N, D), multi-hot labels (N, L) and class indices (N,), all learnable."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(samples, width)).astype(np.float32)
    logits = x @ np.random.default_rng(99).normal(size=(width, outputs))
    multi_hot = (logits + random.logistic(size=logits.shape) > 0).astype(np.int16)
    return x, multi_hot, (logits + random.gumbel(size=logits.shape)).argmax(axis=1).astype(np.int16)


def write_npz(path: Path, x: np.ndarray, y: np.ndarray, provenance: dict | None = None, split: str = "train", **more):
    """An embedding file in the project's schema."""
    ids = np.array([f"{path.stem}_{row}" for row in range(len(x))])
    np.savez(path, **({f"x_{split}": x, f"y_{split}": y, "ids": ids} | more))
    if provenance is not None:
        path.with_suffix(".json").write_text(json.dumps(provenance))
    return path
