"""What a pack is made from: the files of some splits, and one read of each of them."""

import csv
import io
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from datasets.geotiff import GDAL_OPTIONS, RawPatch, centers_to_lat_lon, decode_patch, read_bytes
from datasets.layout import layout_of
from datasets.pack.format import NO_LABEL_FILE, Recipe, TableRow
from datasets.patches import dataset_folder, find_split, is_simulated
from transformation.transformer import least_side, squared
from utils.data_config import DATASETS
from utils.errors import DataError

_ABSENT = (-1, -1)


class Chunk(NamedTuple):
    """Some patches on their way into a pack."""

    pixels: Tensor
    """(n, C, S, S) uint16, the readable ones."""
    table: bytes
    """Their n lines of the table."""
    listing: bytes
    """Sizes and times of change of all files asked for."""
    bad: list[tuple[str, str]]
    """Id and reason of the unreadable ones."""


class PackSource:
    """Patches of one dataset's folder.

    Attributes:
        root: the dataset's folder.
        recipe: what is made of a patch.
        splits: the split files.
        ids: the patches of all of them, each once, in order of first appearance.
        simulated: whether the folder says that no satellite took these patches.
        chunk: patches that a reader process reads and hands over at a time (1.4 MB).
        entry: patches between two entries of the journal, a multiple of `chunk`: the most that is read again after an
            interruption (46 MB).

    Raises:
        DataError: for a folder or split file that is not there or not one.
    """

    chunk = 64
    entry = 2048

    def __init__(self, root: str | Path, splits: Sequence[str], recipe: Recipe) -> None:
        self.recipe = recipe
        self.layout = layout_of(recipe.dataset)
        self.root = dataset_folder(root, DATASETS[recipe.dataset].FOLDER)
        self.splits = [find_split(split, root) for split in splits]
        self.ids = list(dict.fromkeys(name for split in self.splits for name in self.layout.split_names(split)))
        self.simulated = is_simulated(self.root)

    def files(self, patch_id: str) -> tuple[Path, ...]:
        """The GeoTIFF of a patch, and where its label file would be; see `Layout.files`."""
        return self.layout.files(self.root, patch_id)

    def listing_line(self, patch_id: str) -> bytes:
        """Sizes and times of change of a patch's files; cheap, and equal as long as nobody touched them."""
        return f"{patch_id} {[_stat(path) for path in self.files(patch_id)]}\n".encode()

    def checksum(self, patch_id: str) -> str:
        """CRC-32 of a patch's files as the table has it. Raises DataError for one that cannot be read."""
        image, *labels = self.files(patch_id)
        return _checksum(read_bytes(image), *(_bytes_if_there(path) or b"" for path in labels))

    def changed(self, checksums: dict[str, str], num_threads: int = 4) -> list[str]:
        """The patches whose files are not there any more or have other bytes than when they were packed.

        Args:
            checksums: id to the table's `source`.
            num_threads: readers.
        """

        def differing(ids: list[str]) -> list[str]:
            return [patch_id for patch_id in ids if self._differs(patch_id, checksums[patch_id])]

        names = list(checksums)
        parts = [names[at : at + self.entry] for at in range(0, len(names), self.entry)]
        with ThreadPoolExecutor(num_threads) as pool:
            bar = tqdm(pool.map(differing, parts), total=len(parts), desc="comparing", leave=False, disable=None)
            return [patch_id for part in bar for patch_id in part]

    def _differs(self, patch_id: str, checksum: str) -> bool:
        try:
            return self.checksum(patch_id) != checksum
        except DataError:
            return True

    def read_chunk(self, ids: Sequence[str]) -> Chunk:
        """Patches, with what is wrong with the bad ones: everything that the dataset classes would refuse."""
        listing = b"".join(map(self.listing_line, ids))  # before reading: a file that changes meanwhile shows later
        read: list[_Read] = []
        bad: dict[str, str] = {}
        with rasterio.Env(**GDAL_OPTIONS):
            for patch_id in ids:
                try:
                    read.append(self._read(patch_id))
                except DataError as error:
                    bad[patch_id] = str(error)
        places: dict[str, tuple[str, str]] = {}
        for patch, place in zip(read, self._places(read), strict=True):
            if isinstance(place, DataError):
                bad[patch.id] = str(place)
            else:
                places[patch.id] = place
        good = [patch for patch in read if patch.id not in bad]
        pixels = np.empty(self.recipe.pixels_shape(len(good)), np.uint16)
        for row, patch in enumerate(good):
            pixels[row] = patch.pixels
        fill = (~pixels.all(axis=1)).sum(axis=(1, 2)).tolist()
        rows = [
            TableRow(patch.id, patch.time, *places[patch.id], patch.labels, str(count), patch.checksum)
            for patch, count in zip(good, fill, strict=True)
        ]
        reasons = [(patch_id, bad[patch_id]) for patch_id in ids if patch_id in bad]
        return Chunk(torch.from_numpy(pixels), table_lines(rows), listing, reasons)

    def _read(self, patch_id: str) -> "_Read":
        """One patch, all but its place; within `rasterio.Env(**GDAL_OPTIONS)`. Raises DataError naming the file."""
        files = self.files(patch_id)
        image, labels = files[0], files[1:]
        time = self.layout.time(patch_id)
        data = read_bytes(image)
        label_text = _bytes_if_there(labels[0]) if labels else None
        recipe = self.recipe
        info = DATASETS[recipe.dataset]
        bands, kept = len(info.FILE_BANDS), len(info.SENSOR.bands)
        patch = decode_patch(data, image, bands, kept, least_side(recipe.image_size, recipe.crop))
        if labels and label_text is None:
            label = NO_LABEL_FILE
        else:
            label = ";".join(map(str, self.layout.label_indices(patch_id, files, label_text)))
        pixels = squared(patch.pixels, recipe.image_size, recipe.crop, bool(recipe.published_resize))
        return _Read(patch_id, image, patch, pixels, time, label, _checksum(data, label_text or b""))

    def _places(self, read: Sequence["_Read"]) -> list[tuple[str, str] | DataError]:
        """Latitude and longitude as text, all at once; where that fails, one by one to tell whose fault it is."""
        if not self.layout.has_metadata:
            return [("", "")] * len(read)
        try:
            lat, lon = centers_to_lat_lon([patch.raw for patch in read], [str(patch.image) for patch in read])
        except DataError as error:
            return [error] if len(read) == 1 else [self._places([patch])[0] for patch in read]
        return [(repr(north), repr(east)) for north, east in zip(lat.tolist(), lon.tolist(), strict=True)]


class _Read(NamedTuple):
    """A patch between its file and its row."""

    id: str
    image: Path
    raw: RawPatch
    pixels: np.ndarray
    time: str
    labels: str
    checksum: str


class SourceChunks(Dataset):
    """A source in chunks, for reader processes."""

    def __init__(self, source: PackSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return -(-len(self.source.ids) // self.source.chunk)

    def __getitem__(self, index: int) -> Chunk:
        size = self.source.chunk
        return self.source.read_chunk(self.source.ids[index * size : (index + 1) * size])


def table_lines(rows: Iterable[Sequence[str]]) -> bytes:
    """Rows as lines of the table."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _stat(path: Path) -> tuple[int, int]:
    try:
        state = path.stat()
    except OSError:
        return _ABSENT
    return state.st_size, state.st_mtime_ns


def _bytes_if_there(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _checksum(*parts: bytes) -> str:
    value = 0
    for part in parts:
        value = zlib.crc32(part, value)
    return f"{value:08x}"
