"""A CSV of images read by its header: which column names the file, the label, the split, time and place."""

import ast
import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from utils.arguments import user_path
from utils.data_utils import list_some
from utils.errors import DataError
from utils.parsing import is_there

ENDINGS = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
"""Of image files, in any case."""
FILES = (
    "file", "filename", "filepath", "image", "imagepath", "imagefile", "imagename", "img", "path", "fname", "imageid",
    "patch", "patchid", "name", "id",
)  # fmt: skip
LABELS = (
    "label", "labels", "classname", "class", "classes", "category", "categories", "target", "landcover", "tags",
    "labelname", "classid",
)  # fmt: skip
SPLITS = ("split", "subset", "set", "partition", "fold")
DATES = ("datetime", "date", "acquisitiondate", "sensingdate", "timestamp")
CLOCKS = ("time", "acquisitiontime", "sensingtime")
LATITUDES = ("lat", "latitude")
LONGITUDES = ("lon", "long", "longitude", "lng")
OTHERS = ("x", "y", "area", "index", *DATES, *CLOCKS, *LATITUDES, *LONGITUDES)
"""Headers, in lower case and one word: of dates or whole times (UTC), of times of day beside them, of degrees
(EPSG:4326); and of columns that are neither file, label nor split."""
DAY, CLOCK, LAT, LON = range(4)
"""Places in `Columns.taken`."""
NOTHING = ("", "nan", "nat", "na", "n/a", "none", "null")
"""Cells, in lower case, that say that a value is not known."""
_SEPARATORS = (";", "|")
_DELIMITERS = (",", ";", "\t")


class Row(NamedTuple):
    """One image of a table."""

    line: int
    file: str
    labels: tuple[str, ...]
    split: str | None
    taken: tuple[str | None, ...] = ()
    """Cells of `Columns.taken`; None where nothing stands there."""


class Columns(NamedTuple):
    """Where things stand in a line."""

    file: int
    label: int | None
    split: int | None
    one_hot: tuple[tuple[int, str], ...]
    """Column and class, where every class has a column of 0 and 1."""
    header: bool
    taken: tuple[int | None, ...] = (None,) * 4
    """Of when and where images were taken: date or whole time, time of day, latitude, longitude."""
    names: tuple[str, ...] = ()
    """Of all columns, as the header writes them."""

    def header_of(self, which: int) -> str:
        """What the header writes over a column of `taken` that is there."""
        at = self.taken[which]
        assert at is not None
        return self.names[at]


def read_lines(path: Path) -> tuple[Columns, list[tuple[int, list[str]]], int]:
    """The columns of a CSV, its lines with their numbers, and how many lines without a file are left out.

    Raises:
        DataError: when it cannot be read, lists nothing, or its header names no file.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = list(enumerate(csv.reader(text.splitlines(), delimiter=_delimiter(text)), start=1))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a CSV ({getattr(error, 'strerror', None) or error})") from error
    cells = [(number, [cell.strip() for cell in row]) for number, row in rows if any(cell.strip() for cell in row)]
    if not cells:
        raise DataError(f"{path}: lists no images; give one a line")
    columns = _columns(path, cells)
    cells = cells[columns.header :]
    kept = [(number, row) for number, row in cells if len(row) > columns.file and row[columns.file]]
    if not kept:
        raise DataError(f"{path}: lists no images; give one a line")
    return columns, kept, len(cells) - len(kept)


def read_labelled(path: Path) -> tuple[Columns, list[Row], bool, int]:
    """Columns, images with their labels, whether an image may have several, and how many lines are left out.

    Raises:
        DataError: as `read_lines`, and for lines without a label.
    """
    columns, lines, left_out = read_lines(path)
    if columns.one_hot:
        texts = [tuple(name for at, name in columns.one_hot if at < len(row) and _is_one(row[at])) for _, row in lines]
        several = any(len(labels) != 1 for labels in texts)
    else:
        at = columns.label
        if at is None:
            raise DataError(f"{path}: line {lines[0][0]} has no label; expected file,label in every line")
        found = [row[at] if at < len(row) else None for _, row in lines]
        if None in found:
            raise DataError(
                f"{path}: line {lines[found.index(None)][0]} has no label; expected file,label in every line"
            )
        texts, marked = _labels_of([text or "" for text in found])
        several = marked or any(len(labels) > 1 for labels in texts)
        if not several and () in texts:
            raise DataError(f"{path}: line {lines[texts.index(())][0]} has no label; expected file,label in every line")
    rows = [
        Row(number, row[columns.file], labels, _cell(row, columns.split), tuple(_said(row, at) for at in columns.taken))
        for (number, row), labels in zip(lines, texts, strict=True)
    ]
    return columns, rows, several, left_out


def _cell(row: list[str], at: int | None) -> str | None:
    """The text of a column; None where there is no such column or the line ends before it."""
    return row[at] if at is not None and at < len(row) else None


def _said(row: list[str], at: int | None) -> str | None:
    """The same, and None for a cell that says that nothing is known."""
    text = _cell(row, at)
    return None if text is None or text.lower() in NOTHING else text


def _delimiter(text: str) -> str:
    """What stands between the cells of the first line; a comma where nothing tells."""
    first = text.lstrip().split("\n", 1)[0]
    for delimiter in _DELIMITERS:
        words = [_word(cell) for cell in first.split(delimiter)]
        if len(words) > 1 and (
            set(words) & {*FILES} or Path(first.split(delimiter)[0].strip()).suffix.lower() in ENDINGS
        ):
            return delimiter
    return ","


def _word(header: str) -> str:
    return "".join(letter for letter in header.strip().strip('"').lower() if letter.isalnum())


def _columns(path: Path, cells: list[tuple[int, list[str]]]) -> Columns:
    first = cells[0][1]
    words = [_word(cell) for cell in first]
    file = _first_of(FILES, words)
    looks_like_data = any(Path(cell).suffix.lower() in ENDINGS for cell in first)
    if file is None or looks_like_data:
        return _without_header(path, cells)
    split, label = _first_of(SPLITS, words), _first_of(LABELS, words)
    taken = tuple(_first_of(names, words) for names in (DATES, CLOCKS, LATITUDES, LONGITUDES))
    known = Columns(file, label, split, (), True, taken, tuple(first))
    rest = [at for at, word in enumerate(words) if at not in (file, split) and word and word not in OTHERS
            and not word.startswith("unnamed")]  # fmt: skip
    if label is not None or not rest:
        return known
    body = [row for _, row in cells[1:]]
    flags = ("0", "1", "0.0", "1.0", "True", "False")
    if len(rest) > 1 and all(at < len(row) and row[at] in flags for row in body for at in rest):
        return known._replace(one_hot=tuple((at, first[at]) for at in rest))
    if len(rest) == 1:
        return known._replace(label=rest[0])
    named = ", ".join(first[at] for at in rest)
    raise DataError(f"{path}: its header names no label column among {named}; call it {LABELS[0]}")


def _first_of(names: Sequence[str], words: list[str]) -> int | None:
    """The column of the first of these headers that is there."""
    return next((words.index(name) for name in names if name in words), None)


def _without_header(path: Path, cells: list[tuple[int, list[str]]]) -> Columns:
    """The first column of image files, else the first; its label is the next. A first line of 0 is pandas' header."""
    rows = [row for _, row in cells]
    width = min(len(row) for row in rows)
    images = [at for at in range(width) if all(Path(row[at]).suffix.lower() in ENDINGS for row in rows if row[at])]
    file = images[0] if images else 0
    if len({len(row) for row in rows}) == 1 and width > file + 2:
        raise DataError(
            f"{path}: has {width} columns and no header that names them; give it one, such as {FILES[0]},{LABELS[0]}"
        )
    return Columns(file, file + 1 if any(len(row) > file + 1 for row in rows) else None, None, (), False)


def _labels_of(texts: list[str]) -> tuple[list[tuple[str, ...]], bool]:
    """Every cell's labels, and whether the cells have a form in which several stand."""
    if any(text.startswith("[") and text.endswith("]") for text in texts):
        return [_listed(text) for text in texts], True
    separator = next((mark for mark in _SEPARATORS if any(mark in text for text in texts)), None)
    if separator is None and _commas_separate(texts):
        separator = ","
    if separator is None:
        return [(text,) if text else () for text in texts], False
    return [tuple(filter(None, (part.strip() for part in text.split(separator)))) for text in texts], True


def _commas_separate(texts: Sequence[str]) -> bool:
    """Whether commas stand between labels, not inside the names of classes, as in "Moors, heathland".

    They do where no space follows them, or where a part of one cell is found in another one too.
    """
    distinct = set(texts)
    with_comma = [text for text in distinct if "," in text]
    if not with_comma:
        return False
    if all(", " not in text for text in with_comma):
        return True
    parts = Counter(part.strip() for text in distinct for part in set(text.split(",")))
    return any(count > 1 for part, count in parts.items() if part)


def _listed(text: str) -> tuple[str, ...]:
    """["a", "b"] or [a, b]; any other text is one label."""
    if not text.startswith("["):
        return (text,) if text else ()
    try:
        found = ast.literal_eval(text)
        if isinstance(found, list):
            return tuple(str(label) for label in found)
    except (ValueError, SyntaxError):
        pass
    return tuple(filter(None, (part.strip().strip("'\"") for part in text.strip("[]").split(","))))


def _is_one(text: str) -> bool:
    return text in ("1", "1.0", "True")


def find_image(name: str, path: Path, root: Path) -> str:
    """A table's file as an id: below the images' folder with forward slashes, or absolute where it lies elsewhere.

    A name without an image's ending gets that of the file that is there.

    Raises:
        DataError: for a relative path that leads out of the folder.
    """
    name = name.replace("\\", "/").removeprefix("./")
    if name.startswith("~"):
        name = user_path(name).as_posix()
    if ".." in name.split("/"):
        raise DataError(f"{path}: {name} leads out of the folder; give paths below it")
    if name.startswith("/"):
        for base in (root, root.resolve()):
            if Path(name).is_relative_to(base):
                name = Path(name).relative_to(base).as_posix()
                break
    if Path(name).suffix.lower() not in ENDINGS:
        candidates = [f"{name}{end}" for ending in ENDINGS for end in (ending, ending.upper())]
        return next((candidate for candidate in candidates if is_there(root / candidate)), name)
    return name


def require_once(names: Sequence[str], path: Path) -> None:
    """Refuse a table that lists an image twice. Raises DataError naming them."""
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{path}: lists images twice: {list_some(twice)}; leave out the repetitions")
