"""A few patches with fill, in files and packed, and loaders that read them in every way."""

from pathlib import Path

import numpy as np
import pytest
import torch
from packing import pack
from tiny import write_bigearthnet

from datasets.loader import BatchLoader, build_dataset

CPU, ELSEWHERE = torch.device("cpu"), torch.device("meta")
COUNT, SIZE = 11, 4
IDS = [f"S2A_MSIL2A_20170613T101031_1_{i}" for i in range(COUNT)]
FILL_ONLY = {5, 9}
ORDER = [5, 7, 0, 2, 10, 3, 9, 1, 4, 6, 8]
WAYS = {"files": (0, False), "readers": (1, False), "memory": (0, False), "resident": (0, True), "pack": (1, False),
        "resident pack": (0, True)}  # fmt: skip
"""Reader processes, and whether all patches are held on the device."""


def a_patch(number: int) -> np.ndarray:
    """Over the whole range of digital numbers, with some fill in some and nothing else in others."""
    pixels = np.random.default_rng(number).integers(1, 65_536, (7, 43, 43), dtype=np.uint16)
    if number == 2:
        pixels[:, 10:20] = 0
    if number == 3:
        pixels[:, 21, 21] = 0  # the pixel that stands for its patch in a first look
    if number in FILL_ONLY:
        pixels[:] = 0
    return pixels


def a_loader(folders, way: str = "files", published: bool = False, labels: str = "error") -> BatchLoader:
    folder = folders[1] if "pack" in way else folders[0]
    options = {"image_size": 40, "labels": labels, "published_behaviour": published}
    dataset = build_dataset("bigearthnet_ls", str(folder), "split.csv", **options)
    assert dataset.ids == IDS
    if way == "memory":
        assert dataset.hold_in_memory()
    workers, resident = WAYS[way]
    return BatchLoader(dataset, SIZE, workers, CPU, resident)


# --------------------------------------------------------------------------- a fixture, which a test file takes by name


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """A dataset in files, and packed."""
    root = tmp_path_factory.mktemp("loader")
    names = ["Pastures", "Sea and ocean", "Airports"]
    labels = {patch_id: names[: number % 3] for number, patch_id in enumerate(IDS)}
    files = write_bigearthnet(root / "files", {patch_id: a_patch(i) for i, patch_id in enumerate(IDS)}, labels)
    return files, pack(root / "pack", files)
