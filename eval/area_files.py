"""Split files whose areas are on one side each: the work of `python -m eval.split_by_area`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.bigearthnet import BigEarthNetDatasetLS
from datasets.pack.dataset import PackedDataset
from datasets.pack.format import is_pack, open_header
from datasets.patches import PatchDataset
from eval.split_by_area import SPLITS
from eval.statistics.spatial_blocks import CELL, split_by_area, touching
from utils.data_config import BigEarthNetInfo
from utils.errors import ConfigError
from utils.files import check_writable, write_text
from utils.reporting import reporter


def write_area_splits(
    folder: Path,
    files: Sequence[str],
    out: Path,
    shares: Sequence[float] | None,
    cell: int | None,
    gap: bool,
    seed: int,
) -> None:
    """Deal the patches of some split files anew, and write `area-train.csv`, `area-val.csv`, `area-test.csv`.

    Args:
        folder: BigEarthNet-Landsat's folder, or a pack of it.
        files: the split files.
        out: folder of the new ones.
        shares: sizes of training, validation and test; None: those of the three files given.
        cell: side of a square in patches of 1.2 km; None: `spatial_blocks.CELL`.
        gap: leave out training and validation patches that lie beside a test patch.
        seed: which square goes where.

    Raises:
        ConfigError: for a gap that leaves nothing, and new files that are there already with other patches.
    """
    check_writable(out)
    cell = CELL if cell is None else cell
    parts = {csv: _dataset(folder, csv) for csv in files}
    place_of = {
        name: place
        for part in parts.values()
        for name, place in zip(part.ids, part.places("reading coordinates"), strict=True)
    }
    ids, places = list(place_of), np.array(list(place_of.values()))
    sizes: list[float] = list(shares) if shares else [len(part) for part in parts.values()]
    splits = split_by_area(ids, dict(zip(SPLITS, sizes, strict=True)), seed, places, cell)
    reporter.info(f"{len(ids):,} patches in squares of {cell * 1.2:g} km; seed {seed}")
    if gap:
        splits = _with_gap(splits, ids, places)
    _write(out, splits)
    for split, kept in splits.items():
        beside = _beside(split, splits, ids, places)
        reporter.info(f"{out / _name(split)}: {len(kept):,} patches, {beside:,} of them beside a test patch")


def _dataset(folder: Path, csv: str) -> PatchDataset:
    if not is_pack(folder):
        return BigEarthNetDatasetLS(folder, csv)
    recipe = open_header(folder).recipe
    return PackedDataset(
        folder, csv, dataset=BigEarthNetInfo.NAME, image_size=recipe.image_size, crop=recipe.crop,
        published_behaviour=bool(recipe.published_resize),
    )  # fmt: skip


def _with_gap(splits: dict[str, list[str]], ids: list[str], places: np.ndarray) -> dict[str, list[str]]:
    """Without the patches of other splits that touch a test patch, and those of training that touch validation."""
    for split, others in (("train", ("val", "test")), ("val", ("test",))):
        taken = {name for other in others for name in splits[other]}
        beside = touching(ids, places, _among(ids, set(splits[split])), _among(ids, taken))
        left_out = {name for name, close in zip(ids, beside, strict=True) if close}
        splits = {**splits, split: [name for name in splits[split] if name not in left_out]}
        reporter.info(f"{len(left_out):,} patches of {split} left out: beside one of {' or '.join(others)}")
        if not splits[split]:
            raise ConfigError(f"--gap leaves no patch in {split}: use a larger --cell")
    return splits


def _beside(split: str, splits: dict[str, list[str]], ids: list[str], places: np.ndarray) -> int:
    others = _among(ids, set(splits["test"])) if split != "test" else np.zeros(len(ids), bool)
    return int(touching(ids, places, _among(ids, set(splits[split])), others).sum())


def _among(ids: list[str], chosen: set[str]) -> np.ndarray:
    return np.array([name in chosen for name in ids])


def _name(split: str) -> str:
    return f"area-{split}.csv"


def _write(out: Path, splits: dict[str, list[str]]) -> None:
    """Write the files; others of the same names stay as they are, and are named."""
    texts = {out / _name(split): "".join(f"{name}\n" for name in ids) for split, ids in splits.items()}
    for path, text in texts.items():
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise ConfigError(f"{path}: is there already with other patches; remove it or give another --out")
    for path, text in texts.items():
        write_text(path, text)
