"""Which images a folder of one's own holds, what they show, and which of them a split is made of."""

import csv
import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.patches import find_split
from utils.data_utils import list_some
from utils.errors import DataError

ENDINGS = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
"""Of image files, in any case."""

SEVERAL = ";"
"""Between the labels of an image in a table."""

HEADERS = ("file", "filename", "image", "path")
"""First cells that make a table's first line a header, in any case."""

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
        path: the folder; its sub-folders are the classes. Or the CSV: paths are relative to its own folder, several
            labels stand in one cell, joined by `;`, and the first line may be a header (`file,label`).

    Raises:
        DataError: naming what is missing or malformed.
    """
    path = Path(path)
    if path.is_dir():
        return _of_folders(path)
    if path.is_file():
        return _of_csv(path)
    raise DataError(f"{path}: no such folder or CSV; set dataset_path to a folder with a folder of images per class")


def _of_folders(root: Path) -> LabelledTable:
    found = {
        folder.name: sorted(path.name for path in folder.iterdir() if _is_image(path))
        for folder in sorted(root.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
    }
    classes = tuple(name for name, files in found.items() if files)
    if not classes:
        raise DataError(
            f"{root}: holds no folder with images ({', '.join(ENDINGS)}); expected {root}/<class>/<image>, "
            "or give a CSV of file,label as dataset_path"
        )
    files = [f"{name}/{file}" for name in classes for file in found[name]]
    labels = [(index,) for index, name in enumerate(classes) for _ in found[name]]
    return LabelledTable(root, files, labels, classes, multilabel=False)


def _of_csv(path: Path) -> LabelledTable:
    rows = _read_rows(path)
    if short := [number for number, row in rows if len(row) < 2]:
        raise DataError(f"{path}: line {short[0]} has no label; expected file,label in every line")
    names = [_inside(row[0], path) for _, row in rows]
    if twice := _repeated(names):
        raise DataError(f"{path}: lists images twice: {list_some(twice)}; leave out the repetitions")
    texts = [tuple(filter(None, (label.strip() for label in row[1].split(SEVERAL)))) for _, row in rows]
    multilabel = any(len(labels) != 1 for labels in texts)
    if multilabel and not any(SEVERAL in row[1] for _, row in rows):
        number = next(number for (number, _), labels in zip(rows, texts, strict=True) if not labels)
        raise DataError(f"{path}: line {number} has no label; expected file,label in every line")
    classes = tuple(sorted({label for labels in texts for label in labels}))
    index = {name: number for number, name in enumerate(classes)}
    if missing := [name for name in names if not (path.parent / name).is_file()]:
        raise DataError(
            f"{path}: {len(missing)} of {len(names)} files are not there: {list_some(missing)}; "
            f"paths are relative to {path.parent}"
        )
    labels = [tuple(index[label] for label in labels) for labels in texts]
    return LabelledTable(path.parent, names, labels, classes, multilabel)


def split_rows(table: LabelledTable, split: str | Path, seed: int) -> list[int]:
    """Rows of a table that a split is made of.

    Args:
        table: all images.
        split: a file with an image in the first cell of every line (a relative path may be inside the table's
            folder), or a range such as `0-60%`: of every class so much of its images, in an order that the seed and
            their names decide, so that ranges which do not overlap share no image.
        seed: of that order.

    Raises:
        DataError: when the split is malformed, empty or names images that are not there.
    """
    found = _RANGE.fullmatch(str(split))
    if found is None:
        return _rows_of_file(table, find_split(split, table.root))
    first, last = (float(number) / 100 for number in found.groups())
    if not 0 <= first < last <= 1:
        raise DataError(f"split {split!r}: a range goes from a smaller to a larger share, within 0-100%")
    rows = np.flatnonzero([first <= at < last for at in _positions(table, seed)]).tolist()
    if not rows:
        raise DataError(f"split {split!r}: of {len(table.files)} images none falls into it; take a wider range")
    return rows


def _rows_of_file(table: LabelledTable, path: Path) -> list[int]:
    if not path.is_file():
        raise DataError(f"{path}: no such split file; give one, or a share of the images such as 0-60%")
    known = {name: row for row, name in enumerate(table.files)}
    by_end = defaultdict(list)
    for name, row in known.items():
        by_end[name.rpartition("/")[2]].append(row)
    rows, strange = [], []
    for _, cells in _read_rows(path):
        name = _inside(cells[0], path)
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
    if twice := _repeated([table.files[row] for row in rows]):
        raise DataError(f"{path}: lists images twice: {list_some(twice)}; leave out the repetitions")
    return rows


def _positions(table: LabelledTable, seed: int) -> np.ndarray:
    """Where every image stands among those of its class, from 0 to 1, in an order drawn from the seed."""
    groups = defaultdict(list)
    for row, labels in enumerate(table.labels):
        groups[None if table.multilabel else labels].append(row)
    place = np.empty(len(table.files))
    for rows in groups.values():
        drawn = sorted(rows, key=lambda row: hashlib.sha256(f"{seed}/split/{table.files[row]}".encode()).digest())
        place[drawn] = (np.arange(len(rows)) + 0.5) / len(rows)
    return place


def _read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Line numbers and cells of a CSV, without empty lines and a header."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [(number, [cell.strip() for cell in row]) for number, row in enumerate(csv.reader(file), start=1)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a CSV ({getattr(error, 'strerror', None) or error})") from error
    rows = [(number, row) for number, row in rows if row and row[0]]
    if rows and rows[0][1][0].lower() in HEADERS:
        rows = rows[1:]
    if not rows:
        raise DataError(f"{path}: lists no images; give one a line")
    return rows


def _inside(name: str, path: Path) -> str:
    """A path below the images' folder as it is written in an id."""
    name = name.replace("\\", "/").removeprefix("./")
    if name.startswith("/") or ".." in name.split("/"):
        raise DataError(f"{path}: {name} leads out of the folder; give paths below it")
    return name


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".") and path.is_file()


def _repeated(names: Sequence[str]) -> list[str]:
    seen: set[str] = set()
    return [name for name in names if name in seen or seen.add(name)]
