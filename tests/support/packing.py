"""Packs made in tests, and a source to make them from."""

from pathlib import Path

from conftest import SAMPLE
from tiny import some_pixels, write_bigearthnet

from datasets.packed import main

EUROSAT = SAMPLE.parent / "eurosat-l-sample"
FOLDERS = {"bigearthnet_ls": SAMPLE, "eurosat_ls": EUROSAT}
SPLITS = {
    "bigearthnet_ls": [f"bigearthnet-{split}.csv" for split in ("train", "val", "test")],
    "eurosat_ls": [f"eurosat-{split}.txt" for split in ("train", "val", "test")],
}
IDS = [f"S2A_MSIL2A_20170613T101031_1_{i}" for i in range(10)]
SHAPE = (7, 43, 45)


def pack(out: Path, root: Path = SAMPLE, splits=("split.csv",), *options: str, dataset: str = "bigearthnet_ls") -> Path:
    """Run the command in this process."""
    command = ["--dataset", dataset, "--dataset_path", str(root), "--dataset_csv", *splits, "--out", str(out)]
    assert main([*command, "--num_workers", "0", *options]) == 0
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write_source(root: Path) -> Path:
    """Ten patches written by hand: one without labels, one without a label file, one with fill."""
    patches = {name: some_pixels(i, SHAPE) for i, name in enumerate(IDS)}
    patches[IDS[2]][:, 10] = 0
    labels = {name: ["Pastures", "Sea and ocean"] for name in IDS[2:]} | {IDS[0]: []}
    return write_bigearthnet(root, patches, labels)
