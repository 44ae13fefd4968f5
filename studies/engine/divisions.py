"""A dataset divided into splits or folds that keep areas whole, with a gap between them where one is asked for."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from configs.reproduction import SourceSection
from datasets.patches import PatchDataset
from eval.statistics.spatial_blocks import area_folds, split_by_area, touching
from studies.engine.stages import StageCache
from utils.errors import ConfigError
from utils.files import write_npz, write_text


class Fold(NamedTuple):
    """One division of a dataset into splits."""

    name: str
    """For folders: "" where there is one division only, else "fold0", "fold1", …"""
    splits: Mapping[str, str]
    """Split name ("train", "test" and often "val") to split file."""
    left_out: int = 0
    """Patches for fitting and choosing that touch a test patch, and are in no split (`data.gap`)."""


def divided(
    key: str, section: SourceSection, parts: Sequence[PatchDataset], seed: int, cache: StageCache
) -> tuple[Fold, ...]:
    """Folds, or one division, that keep areas whole.

    Args:
        key: of the dataset.
        section: folds, shares and gap.
        parts: all patches, each once.
        seed: which area goes where.
        cache: of the stages.

    Raises:
        ConfigError: where there are too few areas, or the gap leaves a split empty.
    """
    ids = [patch_id for part in parts for patch_id in part.ids]

    def work(folder: Path) -> None:
        write_npz(folder / "places.npz", {"places": np.concatenate([part.places() for part in parts])})

    stage = cache.stage(f"places/{key}", {"patches": [part.fingerprint() for part in parts]}, work, quiet=True)
    with np.load(stage.folder / "places.npz") as arrays:
        places = arrays["places"]
    if section.folds is None:
        shares: dict[str, float] = dict(section.shares.items())
        divisions = {"": split_by_area(ids, shares, seed, places)}
    else:
        fold_of = area_folds(ids, section.folds, seed, places)
        divisions = {f"fold{number}": _fold(ids, fold_of, number) for number in range(section.folds)}
    folds = []
    for name, splits in divisions.items():
        kept = _with_gap(key, splits, ids, places) if section.gap else splits
        left_out = len(ids) - sum(map(len, kept.values()))
        folder = cache.folder / "splits" / key / name
        files = {split: _split_file(folder, split, names) for split, names in kept.items()}
        folds.append(Fold(name, files, left_out))
    return tuple(folds)


def fold_rows(fold_of: np.ndarray, number: int) -> dict[str, np.ndarray]:
    """Rows of the splits of one fold: tested on one part, choices made on the next, fitted on the rest."""
    test, val = fold_of == number, fold_of == (number + 1) % (fold_of.max() + 1)
    rows = {"train": ~test & ~val, "val": val, "test": test}
    return {split: np.flatnonzero(chosen) for split, chosen in rows.items()}


def _fold(ids: Sequence[str], fold_of: np.ndarray, number: int) -> dict[str, list[str]]:
    return {split: [ids[int(row)] for row in rows] for split, rows in fold_rows(fold_of, number).items()}


def _with_gap(
    key: str, splits: Mapping[str, list[str]], ids: Sequence[str], places: np.ndarray
) -> dict[str, list[str]]:
    """The splits without the patches that touch one of those tested on."""
    tested = np.isin(ids, splits["test"])
    close = {ids[row] for row in np.flatnonzero(touching(ids, places, ~tested, tested)).tolist()}
    kept = {split: [name for name in names if name not in close] for split, names in splits.items()}
    if empty := [split for split, names in kept.items() if not names]:
        raise ConfigError(f"{key}.gap: every patch of {empty[0]} touches a test patch; set {key}.gap to false")
    return kept


def _split_file(folder: Path, split: str, names: list[str]) -> str:
    path = folder / f"{split}.csv"
    text = "".join(f"{name}\n" for name in names)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
    return str(path)
