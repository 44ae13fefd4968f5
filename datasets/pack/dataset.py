"""A pack as a dataset: the same batches as from the GeoTIFFs, from a memory map."""

import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets.layout import layout_of
from datasets.pack.format import (
    FIX,
    NO_LABEL_FILE,
    PIXELS,
    TABLE,
    Header,
    Recipe,
    TableRow,
    open_checksums,
    open_header,
    open_pixels,
    read_table,
    require_unchanged,
)
from datasets.patches import MEMORY_LIMIT, Labels, PatchDataset, RawBatch, find_split
from utils.data_config import DATASETS, IMAGE_SIZE, BandStatistics, Crop
from utils.data_utils import list_some
from utils.errors import DataError
from utils.metadata import PUBLISHED_FIELDS

DEFAULT_CROP: dict[str, Crop] = {name: info.CROP for name, info in DATASETS.items()}


class PackedDataset(PatchDataset):
    """Patches of a pack.

    Args:
        root: the pack's folder.
        split_file: as the dataset's own class takes it; a relative path may be inside the pack.
        dataset: the dataset that the pack has to be of.
        labels: for BigEarthNet-Landsat, as `BigEarthNetDatasetLS` takes it; EuroSAT-Landsat's are always there.
        image_size, crop: what the pack has to have been made with; None is the dataset's own crop.
        statistics: for the z-scores; None is the dataset's own (EuroSAT-Landsat: BigEarthNet's, as published).
        published_behaviour: see the dataset classes. Resized pixels have to have been packed with the same.
        meta_fields: of the model, see `utils.metadata`; a pack holds times and places, from which they follow.

    Attributes:
        fill: (N,) int64, fill pixels of every patch.

    Raises:
        DataError: when the pack is unfinished, damaged, made otherwise than asked, or lacks patches of the split.
    """

    def __init__(
        self,
        root: str | Path,
        split_file: str | Path,
        *,
        dataset: str,
        labels: Labels = "none",
        image_size: int = IMAGE_SIZE,
        crop: Crop | None = None,
        statistics: BandStatistics | None = None,
        published_behaviour: bool = False,
        meta_fields: Sequence[str] = PUBLISHED_FIELDS,
    ) -> None:
        root = Path(root)
        self.header = open_header(root)
        recipe = make_recipe(dataset, crop, image_size, published_behaviour)
        _require_recipe(root, self.header.recipe, recipe)
        self._layout = layout_of(dataset)
        if statistics is None:
            statistics = self._layout.statistics(published_behaviour)
        self.name, self.multilabel, self.classes = dataset, self._layout.multilabel, DATASETS[dataset].CLASSES
        split = find_split(split_file, root)
        ids = self._layout.split_names(split)
        super().__init__(root, ids, image_size, recipe.crop, statistics, published_behaviour, meta_fields)
        self.simulated = self.header.simulated
        self._pixels: np.ndarray | None = None
        self._map()
        self._checksums = open_checksums(root, self.header)
        self._compared = np.zeros(self.header.count, bool)
        """(patches of the pack,) those whose pixels this process has compared with their checksums."""
        for name in (TABLE, *(name for name in self.header.splits if split.resolve() == (root / name).resolve())):
            require_unchanged(root, self.header, name)
        self._take_rows(_rows_of(self.header, root, ids, split), labels)

    def _take_rows(self, found: list[tuple[int, TableRow]], labels: str) -> None:
        """Fill `ids`, `labels`, `fill` and the metadata from the split's rows of the table."""
        lacking = [row.id for _, row in found if row.labels == NO_LABEL_FILE] if labels != "none" else []
        if lacking and labels == "error":
            raise DataError(
                f"{self.root}: {len(lacking)} patches were packed without a label file ({list_some(lacking)}); "
                "add them and pack again, or set data.missing_labels: skip"
            )
        self.skipped_labels = lacking
        if lacking:
            found = [(number, row) for number, row in found if row.labels != NO_LABEL_FILE]
            if not found:
                raise DataError(f"{self.root}: none of the split's patches was packed with a label file")
        rows = [row for _, row in found]
        self.ids = [row.id for row in rows]
        self._rows = np.array([number for number, _ in found])
        try:
            self.fill = np.array([int(row.fill) for row in rows])
            self._columns = self._layout.columns(rows, self.published_behaviour)
            if labels != "none" or not DATASETS[self.name].LABEL_FILES:
                indices = [[int(index) for index in row.labels.split(";") if index] for row in rows]
                self.labels = self._layout.label_tensor(indices)
        except (ValueError, IndexError) as error:
            raise DataError(f"{self.root / TABLE}: is damaged ({error}); pack again") from error

    def _map(self) -> np.ndarray:
        """The pixels of the whole pack, mapped when they are first needed in a process."""
        if self._pixels is None:
            self._pixels = np.asarray(open_pixels(self.root, self.header))
        return self._pixels

    def __getstate__(self) -> dict[str, Any]:
        """Without the map, which would travel to a reader process as a copy of all pixels."""
        return {**self.__dict__, "_pixels": None}

    def path_of(self, index: int) -> Path:
        """The file that holds all patches."""
        return self.root / PIXELS

    def read(self, indices: Sequence[int]) -> RawBatch:
        """Pixels and metadata of some patches; see `PatchDataset.read`."""
        at = np.asarray(indices)
        # In the order asked for: sorting first and undoing it afterwards costs a second copy and gains nothing.
        rows = self._rows[at]
        pixels = self._map()[rows]
        self._compare(rows, pixels)
        return RawBatch(pixels, None if self._columns is None else self._columns[at])

    def _compare(self, rows: np.ndarray, pixels: np.ndarray) -> None:
        """Compare patches that this process reads for the first time with their checksums."""
        if self._checksums is None or self._compared[rows].all():
            return
        for at in np.flatnonzero(~self._compared[rows]):
            if zlib.crc32(pixels[at].data) != self._checksums[rows[at]]:
                patch_id = self.ids[int(np.flatnonzero(self._rows == rows[at])[0])]
                raise DataError(f"{self.root / PIXELS}: patch {patch_id} changed since it was packed; {FIX}")
        self._compared[rows] = True

    def hold_in_memory(self, most_bytes: int = MEMORY_LIMIT, threads: int = 2) -> bool:
        """False: the system keeps the mapped pages that are read in memory, once for all processes."""
        return False

    @property
    def random_access(self) -> bool:
        """True: patches are copied out of the map."""
        return True

    def fingerprint(self) -> str:
        """Hex SHA-256 of what the pixels depend on: the pack's checksums, the ids in order, and how they are read."""
        files = {name: self.header.files[name].sha256 for name in (PIXELS, TABLE)}
        parts = [self.name, self.crop, self.image_size, self.published_behaviour, self.ids, files]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def make_recipe(dataset: str, crop: Crop | None, image_size: int, published_behaviour: bool) -> Recipe:
    """How a config's patches are made; a centre crop is the same in both modes."""
    crop = crop or DEFAULT_CROP[dataset]
    resized = published_behaviour if crop == "resize" else None
    return Recipe(dataset=dataset, crop=crop, image_size=image_size, published_resize=resized)


def _require_recipe(root: Path, packed: Recipe, asked: Recipe) -> None:
    """Refuse a pack that was made otherwise than a config asks, naming the key and the option of the command."""
    published = "with --published_behaviour" if asked.published_resize else "without --published_behaviour"
    for name, key, option in (
        ("dataset", "data.dataset", f"with --dataset {asked.dataset}"),
        ("crop", "data.crop", f"with --crop {asked.crop}"),
        ("image_size", "model.img_size", f"with --image_size {asked.image_size}"),
        ("published_resize", "published_behaviour", published),
    ):
        was, now = (str(getattr(recipe, name)).lower() for recipe in (packed, asked))
        if was != now:
            raise DataError(
                f"{root}: was packed for {key}: {was}, not {now}; set {key}: {was}, or give a pack made {option}"
            )


def _rows_of(header: Header, root: Path, ids: list[str], split: Path) -> list[tuple[int, TableRow]]:
    """Row number and row of every id, in the split's order."""
    wanted = set(ids)
    found = {row.id: (number, row) for number, row in enumerate(read_table(root, header.count)) if row.id in wanted}
    if missing := [name for name in ids if name not in found]:
        bad = sorted(set(missing) & set(header.source.left_out))
        why = f" ({len(bad)} of them were left out as bad)" if bad else ""
        raise DataError(
            f"{split}: {len(missing)} of {len(ids)} patches are not in the pack {root}: {list_some(missing)}{why}; "
            f"pack them too, or use one of the pack's own split files: {', '.join(header.splits)}"
        )
    return [found[name] for name in ids]
