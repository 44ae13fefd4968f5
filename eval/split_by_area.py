"""Split files for BigEarthNet-Landsat that keep areas on one side, to stand beside the published ones.

    python -m eval.split_by_area --dataset_path DIR --dataset_csv CSV [CSV ...] [--out DIR]

Writes `area-train.csv`, `area-val.csv` and `area-test.csv` (no header, one id a line) with the patches of the files
given. A patch's area is a square on the globe, so other dates and overlapping tiles of the same ground stay together.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from datasets.bigearthnet import BigEarthNetDatasetLS
from datasets.pack.format import is_pack, open_header
from datasets.packed import PackedDataset
from datasets.patches import PatchDataset
from eval.statistics.spatial_blocks import CELL, split_by_area, touching
from utils.arguments import user_path
from utils.data_config import BigEarthNetInfo
from utils.errors import ConfigError, run_script
from utils.files import check_writable, write_text
from utils.reporting import reporter

SPLITS = ("train", "val", "test")


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(argv)
    if min(options.shares or (1, 1, 1)) <= 0 or options.cell < 1:
        raise ConfigError("--shares must be three numbers above 0, --cell at least 1")
    if options.shares is None and len(options.dataset_csv) != len(SPLITS):
        raise ConfigError("give --shares TRAIN VAL TEST, or three split files, whose sizes are then kept")
    out = check_writable(options.out or options.dataset_path)
    parts = {csv: _dataset(options.dataset_path, csv) for csv in options.dataset_csv}
    place_of = {
        name: place
        for part in parts.values()
        for name, place in zip(part.ids, part.places("reading coordinates"), strict=True)
    }
    ids, places = list(place_of), np.array(list(place_of.values()))
    sizes: list[float] = options.shares or [len(part) for part in parts.values()]
    shares: dict[str, float] = dict(zip(SPLITS, sizes, strict=True))
    splits = split_by_area(ids, shares, options.seed, places, options.cell)
    reporter.info(f"{len(ids):,} patches in squares of {options.cell * 1.2:g} km; seed {options.seed}")
    if options.gap:
        splits = _with_gap(splits, ids, places)
    _write(out, splits)
    for split, kept in splits.items():
        beside = _beside(split, splits, ids, places)
        reporter.info(f"{out / _name(split)}: {len(kept):,} patches, {beside:,} of them beside a test patch")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eval.split_by_area", description="Split files that keep neighbouring patches on one side."
    )
    add = parser.add_argument
    add(
        "--dataset_path",
        required=True,
        type=user_path,
        metavar="DIR",
        help="BigEarthNet-Landsat's folder, or a pack of it",
    )
    add("--dataset_csv", required=True, nargs="+", metavar="CSV", help="split files: the patches to be split anew")
    add("--out", type=user_path, metavar="DIR", help="where the new files go (default: beside the given ones, DIR)")
    add("--shares", nargs=3, type=float, metavar=("TRAIN", "VAL", "TEST"),
        help="sizes (default: those of the three files given)")  # fmt: skip
    add("--cell", type=int, default=CELL, help="side of a square in patches of 1.2 km (default: %(default)s)")
    add("--gap", action="store_true", help="leave out training and validation patches that lie beside a test patch")
    add("--seed", type=int, default=0, help="which square goes where (default: %(default)s)")
    return parser


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


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
