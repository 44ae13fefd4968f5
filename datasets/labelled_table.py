"""Which images a folder of one's own holds, what they show, and which of them a split is made of."""

import hashlib
import logging
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.patches import find_split
from datasets.table_columns import ENDINGS, find_image, read_labelled, read_lines, require_once
from datasets.table_metadata import table_metadata
from utils.data_utils import list_some
from utils.errors import DataError
from utils.parsing import is_there

OTHER_IMAGES = (".jp2", ".bmp", ".gif", ".webp", ".npy", ".nc", ".img", ".vrt")
"""Endings of images that are not read."""

SPLIT_FOLDERS = ("train", "training", "val", "valid", "validation", "test", "testing", "dev")

logger = logging.getLogger(__name__)
_SAID: set[str] = set()

_RANGE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*-\s*(\d+(?:\.\d+)?)\s*%\s*")


class LabelledTable(NamedTuple):
    """Images and their labels, in the order of their names."""

    root: Path
    """Folder that the files are in."""
    files: list[str]
    """Paths below it, with forward slashes: the ids."""
    labels: list[tuple[int, ...]]
    """Class indices of every image."""
    classes: tuple[str, ...]
    multilabel: bool
    """Whether an image may have several labels, or none."""
    splits: tuple[str | None, ...] | None = None
    """The split that a column of the table names for every image."""
    metadata: np.ndarray | None = None
    """(n, len(FIELDS)) when and where every image was taken, by columns of the table; see `utils.metadata`."""

    def label_array(self, rows: Sequence[int]) -> np.ndarray:
        """Labels of some images, int64: (n, L) multi-hot, or (n,) class indices."""
        if not self.multilabel:
            return np.array([self.labels[row][0] for row in rows], np.int64)
        hot = np.zeros((len(rows), len(self.classes)), np.int64)
        for at, row in enumerate(rows):
            hot[at, list(self.labels[row])] = 1
        return hot


def read_table(path: str | Path) -> LabelledTable:
    """The images of a folder with a folder per class, or of a CSV with a file and its labels in every line.

    Args:
        path: the folder; its sub-folders are the classes, with all images below them. Or the CSV: paths are relative
            to its own folder or absolute; its header names the columns (`file,label,split,date,lat,lon`, see
            `datasets/table_columns.py`), without one they are file and label. Several labels stand in one cell (`;`,
            `|`, commas in quotes, a list), or each class has a column of 0 and 1. What is left out is said.

    Raises:
        DataError: naming what is missing or malformed.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return _of_folders(path)
    if path.is_file():
        return _of_csv(path)
    raise DataError(f"{path}: no such folder or CSV; set dataset_path to a folder with a folder of images per class")


def _of_folders(root: Path) -> LabelledTable:
    folders = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and not folder.name.startswith(".")]
    found = {folder.name: _images_below(folder) for folder in folders}
    classes = tuple(name for name, files in found.items() if files)
    if not classes:
        raise DataError(
            f"{root}: holds no folder with images ({', '.join(ENDINGS)}); expected {root}/<class>/<image>, "
            "or give a CSV of file,label as dataset_path"
        )
    if all(name.lower() in SPLIT_FOLDERS for name in classes):
        raise DataError(
            f"{root}: its folders are splits ({', '.join(classes)}), not classes; give one of them, or a CSV of "
            "file,label,split as dataset_path"
        )
    _say_left_out(
        root, len([path for path in root.iterdir() if _is_image(path)]), "images that are in no class's folder"
    )
    strange = [path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in OTHER_IMAGES]
    _say_left_out(root, len(strange), f"files that are none of {', '.join(ENDINGS)}")
    files = [f"{name}/{file}" for name in classes for file in found[name]]
    labels = [(index,) for index, name in enumerate(classes) for _ in found[name]]
    return LabelledTable(root, files, labels, classes, multilabel=False)


def _images_below(folder: Path) -> list[str]:
    """Paths of a class's images below its folder, in its sub-folders too, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if _is_image(path))


def _say_left_out(path: Path, count: int, what: str) -> None:
    """One line for what is not taken, however often it is read."""
    if count:
        say_once(f"note: {path}: {count} {what} left out")


def say_once(text: str) -> None:
    """One line, however often it is said."""
    if text not in _SAID:
        _SAID.add(text)
        logger.warning(text)


def _of_csv(path: Path) -> LabelledTable:
    columns, rows, multilabel, left_out = read_labelled(path)
    _say_left_out(path, left_out, "lines without a file name")
    names = [find_image(row.file, path, path.parent) for row in rows]
    require_once(names, path)
    classes = tuple(sorted({label for row in rows for label in row.labels}))
    index = {name: number for number, name in enumerate(classes)}
    if missing := [name for name in names if not is_there(path.parent / name)]:
        raise DataError(
            f"{path}: {len(missing)} of {len(names)} files are not there: {list_some(missing)}; "
            f"paths are relative to {path.parent}"
        )
    labels = [tuple(index[label] for label in row.labels) for row in rows]
    splits = tuple(row.split for row in rows) if any(row.split for row in rows) else None
    metadata, passed_over = table_metadata(path, columns, rows)
    for told in passed_over:
        say_once(f"note: {path}: {told}")
    return LabelledTable(path.parent, names, labels, classes, multilabel, splits, metadata)


def split_rows(table: LabelledTable, split: str | Path, seed: int) -> list[int]:
    """Rows of a table that a split is made of.

    Args:
        table: all images.
        split: a file with an image in the first cell of every line (a relative path may be inside the table's
            folder); a name in the table's column of splits; or a range such as `0-60%`: of every class so much of its
            images, in an order that the seed and their names decide, so that ranges which do not overlap share no
            image.
        seed: of that order.

    Raises:
        DataError: when the split is malformed, empty or names images that are not there.
    """
    found = _RANGE.fullmatch(str(split))
    if found is None:
        path = find_split(Path(split).expanduser(), table.root)
        if table.splits is not None and not path.is_file():
            return _rows_of_split(table, str(split))
        return _rows_of_file(table, path)
    first, last = (float(number) / 100 for number in found.groups())
    if not 0 <= first < last <= 1:
        raise DataError(f"split {split!r}: a range goes from a smaller to a larger share, within 0-100%")
    rows = np.flatnonzero([first <= at < last for at in _positions(table, seed)]).tolist()
    if not rows:
        raise DataError(f"split {split!r}: of {len(table.files)} images none falls into it; take a wider range")
    return rows


def _rows_of_split(table: LabelledTable, split: str) -> list[int]:
    rows = [row for row, name in enumerate(table.splits or ()) if (name or "").lower() == split.lower()]
    if not rows:
        present = ", ".join(sorted({name for name in table.splits or () if name}))
        raise DataError(f"split {split!r}: neither a file nor one of the table's splits ({present})")
    return rows


def _rows_of_file(table: LabelledTable, path: Path) -> list[int]:
    if not path.is_file():
        raise DataError(f"{path}: no such split file; give one, or a share of the images such as 0-60%")
    known = {name: row for row, name in enumerate(table.files)}
    by_end = defaultdict(list)
    for name, row in known.items():
        end = name.rpartition("/")[2]
        for short in {end, end.rpartition(".")[0]}:
            by_end[short].append(row)
    rows, strange = [], []
    columns, lines, left_out = read_lines(path)
    _say_left_out(path, left_out, "lines without a file name")
    for _, cells in lines:
        name = find_image(cells[columns.file], path, table.root)
        matches = [known[name]] if name in known else by_end.get(name, [])
        if len(matches) == 1:
            rows.append(matches[0])
        else:
            strange.append(name)
    if strange:
        raise DataError(
            f"{path}: {len(strange)} lines name no image of {table.root}, or more than one: {list_some(strange)}; "
            "give paths as they are below it"
        )
    require_once([table.files[row] for row in rows], path)
    return rows


def _positions(table: LabelledTable, seed: int) -> np.ndarray:
    """Where every image stands among those of its class, from 0 to 1, in an order drawn from the seed."""
    groups = defaultdict(list)
    for row, labels in enumerate(table.labels):
        groups[None if table.multilabel else labels].append(row)
    place = np.empty(len(table.files))
    for rows in groups.values():
        drawn = sorted(
            rows,
            key=lambda row: hashlib.sha256(
                f"{seed}/split/{table.files[row]}".encode("utf-8", "surrogateescape")
            ).digest(),
        )
        place[drawn] = (np.arange(len(rows)) + 0.5) / len(rows)
    return place


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".") and path.is_file()
