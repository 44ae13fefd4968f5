"""What every patch dataset is: ids, pixels in batches, a fingerprint; and the types that carry a sample and a batch."""

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from transformation.transformer import ZScoreNormalize, least_side, squared
from utils.data_config import DATASETS, OTHER_SENSORS, SIMULATED_MARK, BandStatistics
from utils.data_utils import list_some
from utils.errors import DataError
from utils.metadata import PUBLISHED_FIELDS, encode_metadata, select_fields, unknown_columns
from utils.sensors import OLI, Sensor

HASHED_FILES = 4096
"""Up to so many files a fingerprint reads whole; of larger datasets, so many evenly spread ones."""


MEMORY_LIMIT = 1 << 30
"""Digital numbers (DN) of about 48,000 patches."""

READ_AT_ONCE = 128
"""Patches that are read at a time for their metadata."""


Labels = Literal["none", "error", "skip"]
"""Whether labels are read; "error" refuses patches that have none, "skip" leaves them out."""


class Sample(NamedTuple):
    """One patch."""

    image: Tensor
    """(C, H, W) float32, normalised; 0 on fill pixels."""
    meta: Tensor | None
    """(F, 2) sin/cos of the model's metadata fields; None where the dataset has no metadata."""
    valid: Tensor
    """(H, W) bool; False on fill pixels."""
    label: Tensor | None
    """() class index, or (L,) multi-hot; None where labels were not asked for."""
    id: str


class Batch(NamedTuple):
    """B patches; fields as in `Sample` with a leading dimension.

    A padded training batch has more rows than ids: the last ones are without a valid pixel.
    """

    images: Tensor
    meta: Tensor | None
    valid: Tensor
    labels: Tensor | None
    ids: list[str]
    bands: Tensor | None = None
    """(B, C) bool, bands that the files hold; None: all. The others hold their mean."""

    def to(self, device: torch.device) -> "Batch":
        """The same with its tensors on `device`."""

        def moved(value: Tensor) -> Tensor:
            return value.to(device, non_blocking=True)

        return self._each(moved, self.ids)

    def select(self, rows: np.ndarray) -> "Batch":
        """The given rows only (B,) bool."""
        kept = torch.from_numpy(rows)
        ids = [name for name, keep in zip(self.ids, rows.tolist(), strict=True) if keep]
        return self._each(lambda value: value[kept], ids)

    def _each(self, change: Callable[[Tensor], Tensor], ids: list[str]) -> "Batch":
        """Every tensor changed alike."""
        meta = None if self.meta is None else change(self.meta)
        labels = None if self.labels is None else change(self.labels)
        bands = None if self.bands is None else change(self.bands)
        return Batch(change(self.images), meta, change(self.valid), labels, ids, bands)

    def sample(self, row: int) -> Sample:
        """One patch."""
        meta = None if self.meta is None else self.meta[row]
        labels = None if self.labels is None else self.labels[row]
        return Sample(self.images[row], meta, self.valid[row], labels, self.ids[row])


class RawBatch(NamedTuple):
    """Digital numbers (DN) of patches, cropped to the model's size."""

    pixels: np.ndarray
    """(B, C, S, S) uint16"""
    columns: np.ndarray | None
    """(B, len(FIELDS)) float64 in plain units, NaN where not known; see `utils.metadata`. None without metadata."""
    without_number: np.ndarray | None = None
    """(B,) int64, pixels of each file that hold NaN or infinity although nothing says so; None where none can."""


class PatchDataset(Dataset[Sample]):
    """A list of patches in files. Subclasses give `read`, `path_of` and the attributes below.

    Attributes:
        name: the dataset's name in a config.
        ids: one per patch, in split order.
        classes: class names in label order.
        multilabel: whether a label is multi-hot.
        labels: (N,) or (N, L) int64, or None where they were not asked for.
        skipped_labels: ids left out because they have no label file.
        normalize: digital numbers to z-scores.
        crop: how patches reach the model's size, "center" or "resize".
        image_size: side in pixels.
        simulated: whether the folder says that no satellite took these patches.
        meta_fields: of the model, in its order: what `Batch.meta` holds.
        sensor: whose bands the patches have.
        one_shape: whether all patches have these bands.
    """

    name: str
    classes: tuple[str, ...]
    multilabel: bool
    sensor: Sensor = OLI
    one_shape: bool = True

    def __init__(
        self,
        root: Path,
        ids: list[str],
        image_size: int,
        crop: str,
        statistics: BandStatistics,
        published_behaviour: bool,
        meta_fields: Sequence[str] = PUBLISHED_FIELDS,
    ) -> None:
        self.root, self.ids = root, ids
        self.meta_fields = tuple(meta_fields)
        self.simulated = is_simulated(root)
        self.labels: Tensor | None = None
        self.skipped_labels: list[str] = []
        self.image_size, self.crop = image_size, crop
        self.published_behaviour = published_behaviour
        self.statistics = statistics
        self.normalize = ZScoreNormalize(statistics, fill_is_data=published_behaviour)
        self._held: RawBatch | None = None

    @property
    def kind(self) -> str:
        """What to call the patches in logs and figures: "patches" or "simulated patches"."""
        return "simulated patches" if self.simulated else "patches"

    @property
    def statistics_name(self) -> str:
        """The dataset whose statistics the z-scores use; "custom" for any others."""
        named = {info.STATISTICS: name for name, info in (DATASETS | OTHER_SENSORS).items()}
        return named.get(self.statistics, "custom")

    def bands_of(self, indices: Sequence[int]) -> Tensor | None:
        """(B, C) bool, the sensor's bands that the files of some patches hold; None: all."""
        return None

    def path_of(self, index: int) -> Path:
        """The file of one patch."""
        raise NotImplementedError

    def read(self, indices: Sequence[int]) -> RawBatch:
        """Read patches from their files. Raises DataError naming the first bad file."""
        raise NotImplementedError

    @property
    def min_side(self) -> int:
        """Least height and width of a file, pixels."""
        return least_side(self.image_size, self.crop)

    def square(self, pixels: np.ndarray) -> np.ndarray:
        """(C, H, W) digital numbers of a file to (C, S, S), cropped or resized."""
        return squared(pixels, self.image_size, self.crop, self.published_behaviour)

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, indices: Sequence[int]) -> Batch:
        """The patches at `indices`, normalised."""
        raw = self.gather(indices)
        images, valid = self.normalize(torch.from_numpy(raw.pixels))
        ids = [self.ids[index] for index in indices]
        bands = self.bands_of(indices)
        return Batch(images, self.encode(raw.columns), valid, self.labels_of(indices), ids, bands)

    def encode(self, columns: np.ndarray | None) -> Tensor | None:
        """Metadata columns as the model takes them, (B, F, 2) float32; None without metadata."""
        if columns is None:
            return None
        return torch.from_numpy(encode_metadata(columns, self.meta_fields, self.published_behaviour))

    def metadata(self, progress: str | None = None) -> np.ndarray:
        """Metadata columns of every patch, (N, len(FIELDS)) float64, NaN where not known.

        Reads the patches of a dataset that is not in memory.

        Args:
            progress: label of a progress bar on a terminal; None shows none.
        """
        starts = range(0, len(self), READ_AT_ONCE)
        parts = [unknown_columns(0)]
        for start in tqdm(starts, desc=progress, leave=False, disable=None if progress else True):
            rows = range(start, min(start + READ_AT_ONCE, len(self)))
            columns = self.gather(rows).columns
            parts.append(unknown_columns(len(rows)) if columns is None else columns)
        return np.concatenate(parts)

    def places(self, progress: str | None = None) -> np.ndarray:
        """Latitude and longitude of every patch, (N, 2) degrees, NaN where not known; see `metadata`."""
        return select_fields(self.metadata(progress), ("lat", "lon"))

    def labels_of(self, indices: Sequence[int]) -> Tensor | None:
        """Labels of some patches, where there are any."""
        return None if self.labels is None else self.labels[torch.as_tensor(indices, dtype=torch.int64)]

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"patch {index} of {len(self)}")
        return self.batch([index % len(self)]).sample(0)

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Several patches with one read: what `torch.utils.data.DataLoader` asks for where it is offered.

        Its own collation knows no None: give it a dataset with metadata and labels, or a `collate_fn`.
        """
        batch = self.batch(indices)
        return [batch.sample(row) for row in range(len(indices))]

    def gather(self, indices: Sequence[int]) -> RawBatch:
        """Digital numbers (DN) and metadata of some patches, from memory where they are held."""
        if self._held is None:
            return self.read(indices)
        rows = np.asarray(indices)
        of_rows = (None if values is None else values[rows] for values in self._held[1:])
        return RawBatch(self._held.pixels[rows], *of_rows)

    @property
    def in_memory(self) -> bool:
        """Whether the digital numbers are held in memory."""
        return self._held is not None

    @property
    def random_access(self) -> bool:
        """Whether a patch costs no more than a copy, so that reader processes would only be in the way."""
        return self.in_memory

    def hold_in_memory(self, most_bytes: int = MEMORY_LIMIT, threads: int = 2) -> bool:
        """Read every patch once and keep the digital numbers, if they take at most `most_bytes`; True if they do.

        A bar shows the progress on a terminal.
        """
        if self.in_memory:
            return True
        bytes_each = len(self.sensor.bands) * self.image_size**2 * np.dtype(np.uint16).itemsize
        if bytes_each * len(self) > most_bytes:
            return False
        chunks = [range(start, min(start + 32, len(self))) for start in range(0, len(self), 32)]
        with ThreadPoolExecutor(threads) as pool:
            reads = pool.map(self.read, chunks)
            parts = list(tqdm(reads, total=len(chunks), desc="reading patches", leave=False, disable=None))
        joined = [None if part[0] is None else np.concatenate(part) for part in zip(*parts, strict=True)]
        self._held = RawBatch(*joined)  # pyright: ignore[reportArgumentType] - only a field that may be None is
        return True

    def fingerprint(self) -> str:
        """Hex SHA-256 of what the pixels depend on: ids in order, crop, file sizes, and the bytes of the files.

        Of more than `HASHED_FILES` files, the bytes of so many evenly spread ones count.
        """
        paths = [self.path_of(index) for index in range(len(self))]
        try:
            sizes = [path.stat().st_size for path in paths]
            digest = hashlib.sha256(
                json.dumps([self.name, self.crop, self.image_size, self.published_behaviour, self.ids, sizes]).encode()
            )
            for index in np.unique(np.linspace(0, len(paths) - 1, min(len(paths), HASHED_FILES)).astype(int)):
                digest.update(paths[index].read_bytes())
        except OSError as error:
            raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error
        return digest.hexdigest()


def find_split(path: str | Path, folder: str | Path) -> Path:
    """A split file's path: as given, or inside the dataset's folder where only that exists.

    Raises:
        DataError: when the two are the wrong way round, as the published code has them for BigEarthNet.
    """
    if Path(folder).is_file() and Path(path).is_dir():
        raise DataError(f"{folder}: is a split file and {path} a folder; give the folder first: (root, split file)")
    inside = Path(folder) / path
    return inside if not Path(path).exists() and inside.exists() else Path(path)


def read_split(path: Path) -> list[str]:
    """The non-empty lines of a split file's first column, in order.

    Raises:
        DataError: when it is missing, empty, not text, or names a patch twice or with a path in it.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not a text file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot read the split file ({error.strerror})") from error
    names = [line.split(",")[0].strip().strip('"') for line in lines]
    if names and names[0] == "0":  # the header that pandas writes for a nameless column
        names = names[1:]
    names = [name for name in names if name]
    if not names:
        raise DataError(f"{path}: lists no patches; give a file with one patch a line")
    if unsafe := [name for name in names if "/" in name or "\\" in name or ".." in name]:
        raise DataError(f"{path}: holds paths instead of patch names: {list_some(unsafe)}; leave out the folders")
    seen: set[str] = set()
    if twice := [name for name in names if name in seen or seen.add(name)]:
        raise DataError(f"{path}: lists {len(twice)} patches twice: {list_some(twice)}; leave out the repetitions")
    return names


def is_simulated(folder: Path) -> bool:
    """Whether a dataset's folder, or the one above it, says that its patches are simulated."""
    for readme in (folder / "README.md", folder.parent / "README.md"):
        if readme.is_file() and readme.read_text(encoding="utf-8", errors="replace").startswith(SIMULATED_MARK):
            return True
    return False


def dataset_folder(path: str | Path, wrapped: str) -> Path:
    """The dataset's folder: `path`, or `path/wrapped` where the archive was unpacked with its top folder.

    Raises:
        DataError: when `path` is no folder.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; set dataset_path to where the dataset was unpacked")
    return folder / wrapped if (folder / wrapped).is_dir() else folder
