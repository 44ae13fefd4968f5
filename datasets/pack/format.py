"""What a pack is on disk, and how it is checked: a folder with pixels, a table, split files and a header.

- `pixels.npy`: (N, C, S, S) uint16, digital numbers, cropped or resized; C-contiguous, so a patch is one piece.
- `patches.csv`: one row a patch in the same order; see `COLUMNS`.
- `checksums.u32`: (N,) little-endian uint32, CRC-32 of every patch's bytes in `pixels.npy`; packs of before have none.
- the split files it was made with, so that their names mean the same as in the dataset's own folder.
- `pack.json`: the header, written last. A folder without it is an unfinished pack, which `journal.jsonl` goes on from.
"""

import csv
import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import ValidationError
from tqdm import tqdm

from utils.config import Section, one_of
from utils.data_config import DATASETS
from utils.data_utils import list_some
from utils.errors import DataError
from utils.files import sha256
from utils.parsing import map_npy

FORMAT = 1
"""Raised by every change after which older code would misread a pack."""

HEADER, PIXELS, TABLE, JOURNAL, BAD_FILES = "pack.json", "pixels.npy", "patches.csv", "journal.jsonl", "bad_files.txt"
CHECKSUMS = "checksums.u32"

COLUMNS = ("id", "time", "lat", "lon", "labels", "fill", "source")
"""Of the table. `time` (UTC), `lat` and `lon` (degrees, EPSG:4326, all their digits) are empty where the dataset has
none. `labels` are indices of the header's `label_names`, joined by `;`, or `NO_LABEL_FILE`. `fill` counts the patch's
fill pixels. `source` is the CRC-32 of the GeoTIFF's bytes and, after them, the label file's."""

NO_LABEL_FILE = "missing"

LABEL_NAMES = {name: info.LABEL_NAMES for name, info in DATASETS.items()}
"""As they stand in the datasets' own files."""

FIX = "remove the folder and pack again"

HASH_BLOCK = 1 << 22


class FileRecord(Section):
    """A file of a pack."""

    bytes: int
    sha256: str


class Recipe(Section):
    """What decides a pack's contents, besides the files it is made from."""

    dataset: Annotated[str, one_of(DATASETS)]
    crop: Literal["center", "resize"]
    image_size: int
    published_resize: bool | None
    """Whether resized values are truncated, as published; None where nothing is resized."""

    def pixels_shape(self, count: int) -> tuple[int, int, int, int]:
        """(N, C, S, S) of `count` patches."""
        return count, len(DATASETS[self.dataset].SENSOR.bands), self.image_size, self.image_size

    @property
    def patch_bytes(self) -> int:
        """What a patch takes in `pixels.npy`."""
        return math.prod(self.pixels_shape(1)) * np.dtype(np.uint16).itemsize


class Source(Section):
    """The files that a pack was made from."""

    ids: str
    """SHA-256 of the ids asked for, in order."""
    listing: str
    """SHA-256 of their files' sizes and times of change."""
    left_out: list[str]
    """Ids whose files were bad."""


class Header(Section):
    """`pack.json`."""

    format: int
    recipe: Recipe
    simulated: bool
    count: int
    bands: list[str]
    label_names: list[str]
    source: Source
    splits: list[str]
    files: dict[str, FileRecord]


class TableRow(NamedTuple):
    """One patch of the table, as text; fields as in `COLUMNS`."""

    id: str
    time: str
    lat: str
    lon: str
    labels: str
    fill: str
    source: str


def is_pack(path: str | Path) -> bool:
    """Whether a folder is a pack, whole or not."""
    return any((Path(path) / name).is_file() for name in (HEADER, JOURNAL, PIXELS))


def open_header(folder: Path) -> Header:
    """The header of a pack whose files are all there with their right sizes.

    Raises:
        DataError: naming what is unfinished, missing, damaged or from a later version, and the fix.
    """
    header = read_header(folder)
    for name, record in header.files.items():
        path = folder / name
        try:
            size = path.stat().st_size
        except OSError as error:
            raise DataError(f"{path}: is missing from the pack ({error.strerror}); {FIX}") from error
        if size != record.bytes:
            raise DataError(f"{path}: has {size:,} bytes where the pack's header says {record.bytes:,}; {FIX}")
    return header


def read_header(folder: Path) -> Header:
    """`pack.json` alone; errors as `open_header`."""
    path = folder / HEADER
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if (folder / JOURNAL).exists():
            raise DataError(f"{folder}: is an unfinished pack; run the same command again to finish it") from None
        what = f"holds no finished pack ({HEADER} is missing); {FIX}" if folder.is_dir() else "no such folder"
        raise DataError(f"{folder}: {what}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', 'not text')}); {FIX}") from error
    try:
        version = _Versioned.model_validate_json(text).format
        if version > FORMAT:
            raise DataError(f"{path}: has format {version}, this code reads up to {FORMAT}; update it, or {FIX}")
        header = Header.model_validate_json(text)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "the whole"
        raise DataError(f"{path}: is damaged ({where}: {error.errors()[0]['msg']}); {FIX}") from error
    if missing := {PIXELS, TABLE, *header.splits} - header.files.keys():
        raise DataError(f"{path}: is damaged (no record of {list_some(sorted(missing))}); {FIX}")
    name = header.recipe.dataset
    if (header.bands, header.label_names) != (list(DATASETS[name].SENSOR.bands), list(LABEL_NAMES[name])):
        raise DataError(f"{path}: is damaged (bands or label names are not those of {name}); {FIX}")
    return header


class _Versioned(Section):
    """The one key that every version of the header has."""

    model_config = {**Section.model_config, "extra": "ignore"}
    format: int


def open_pixels(folder: Path, header: Header) -> np.ndarray:
    """The pixels as a read-only memory map."""
    path, expected = folder / PIXELS, header.recipe.pixels_shape(header.count)
    try:
        pixels = map_npy(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be mapped ({error}); {FIX}") from error
    if pixels.shape != expected or pixels.dtype != np.dtype("<u2") or not pixels.flags.c_contiguous:
        raise DataError(f"{path}: holds {pixels.shape} {pixels.dtype} where the header says {expected}; {FIX}")
    return pixels


def open_checksums(folder: Path, header: Header) -> np.ndarray | None:
    """(N,) CRC-32 of every patch, compared with their own checksum; None where the pack was made without."""
    if CHECKSUMS not in header.files:
        return None
    require_unchanged(folder, header, CHECKSUMS)
    checksums = np.fromfile(folder / CHECKSUMS, "<u4")
    if len(checksums) != header.count:
        raise DataError(f"{folder / CHECKSUMS}: holds {len(checksums)} where the header says {header.count}; {FIX}")
    return checksums


def require_unchanged(folder: Path, header: Header, name: str) -> None:
    """Compare a file with its checksum, once in a process while it stays the same. Raises DataError."""
    found = (folder / name).stat()
    seen = (folder.resolve() / name, found.st_ino, found.st_size, found.st_mtime_ns, header.files[name].sha256)
    if seen in _unchanged:
        return
    if sha256(folder / name) != header.files[name].sha256:
        raise DataError(f"{folder / name}: changed since the pack was made; {FIX}")
    _unchanged.add(seen)


_unchanged: set[tuple[object, ...]] = set()
"""Files that this process has compared."""


def read_table(folder: Path, count: int) -> Iterator[TableRow]:
    """The rows of the table, one after the other. Raises DataError where it is not a table of `count` patches."""
    number = 0
    for number, row in enumerate(read_rows(folder / TABLE), start=1):  # noqa: B007
        yield row
    if number != count:
        raise DataError(f"{folder / TABLE}: holds {number} patches where the header says {count}; {FIX}")


def read_rows(path: Path) -> Iterator[TableRow]:
    """The rows of a table that may still be growing. Raises DataError naming a line that is none."""
    number = 0
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for number, cells in enumerate(csv.reader(file, strict=True), start=1):
                if len(cells) != len(COLUMNS):
                    raise ValueError(f"{len(cells)} cells instead of {len(COLUMNS)}")
                if number > 1:
                    yield TableRow(*cells)
                elif tuple(cells) != COLUMNS:
                    raise ValueError("other columns")
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: is damaged (line {number}: {error}); {FIX}") from error


def file_record(path: Path, bar: tqdm) -> FileRecord:
    """Size and checksum of a file; `bar` counts the bytes."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK):
            digest.update(block)
            size += len(block)
            bar.update(len(block))
    return FileRecord(bytes=size, sha256=digest.hexdigest())


def verify_checksums(folder: Path) -> Header:
    """Read a whole pack and compare every checksum.

    Raises:
        DataError: naming the files that changed since the pack was made.
    """
    header = open_header(folder)
    total = sum(record.bytes for record in header.files.values())
    with tqdm(total=total, desc="checking", unit="B", unit_scale=True, leave=False, disable=None) as bar:
        changed = [name for name, record in header.files.items() if file_record(folder / name, bar) != record]
    if changed:
        raise DataError(f"{folder}: {list_some(changed)} changed since the pack was made; {FIX}")
    open_pixels(folder, header)
    return header
