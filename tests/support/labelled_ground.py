"""A small scene with labels, and configs of short fine-tuning runs on it."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scene_files import CLEAR, CLOUD, some_numbers, tiny_checkpoint, write_band, write_product
from tiny import TINY_MODEL

from configs.finetuning import FinetuningConfig, read_finetuning_config

SIDE = (120, 132)
UNKNOWN = 255
HEAD = {"kind": "decoder", "token_numbers": 6, "filters": 4, "hidden": 12, "mixing": [3]}


def ground_numbers(side: tuple[int, int] = SIDE, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(7, *side) digital numbers and (*side,) classes: forest, field and water in stripes that bend."""
    numbers = some_numbers(side, seed).astype(np.int64)
    rows, columns = np.mgrid[: side[0], : side[1]]
    classes = ((columns + 8 * np.sin(rows / 9)) // 14 % 3).astype(np.uint8)
    numbers[4] += np.array([2500, 0, -6000])[classes]
    numbers[3] += np.array([-400, 700, 0])[classes]
    return numbers.clip(1, 65535).astype(np.uint16), classes


def write_ground(folder: Path) -> dict[str, Any]:
    """A scene under some cloud and its labels, and the tiny model's weights; the paths by name."""
    numbers, classes = ground_numbers()
    qa = np.full(SIDE, CLEAR)
    qa[:9, :30] = CLOUD
    scene = write_product(folder / "scene", numbers, qa)
    labels = write_band(folder / "labels.tif", classes[None], nodata=UNKNOWN)
    return {"scene": str(scene), "labels": str(labels), "checkpoint": str(tiny_checkpoint(folder / "tiny.pth"))}


def ground_config(folder: Path, files: dict[str, Any], **changes: Any) -> Path:
    """A config file of a run of a second; keys of `changes` are `section.key` with two underscores for the dot."""
    values: dict[str, Any] = {
        "task": "segmentation",
        "model": {"checkpoint_path": files["checkpoint"], "device": "cpu"},
        "head": dict(HEAD),
        "ground": {"scenes": [{"scene": files["scene"], "labels": files["labels"]}], "block": 20},
        "training": {
            "epochs": 2,
            "steps": 3,
            "batch_size": 3,
            "crop": 24,
            "symmetries": 1,
            "weight_path": str(folder / "run"),
        },
    }
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            values.setdefault(section, {})[name] = value
        else:
            values[section] = value
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "finetune.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def read_config(path: Path) -> FinetuningConfig:
    return read_finetuning_config(str(path), [])


__all__ = ["HEAD", "SIDE", "TINY_MODEL", "UNKNOWN", "ground_config", "ground_numbers", "read_config", "write_ground"]
