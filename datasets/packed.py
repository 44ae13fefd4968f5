"""A dataset packed into one memory-mapped array: made once from the GeoTIFFs, then read some hundred times faster.

    python -m datasets.packed --dataset bigearthnet_ls --dataset_path DIR --dataset_csv CSV [CSV ...] --out DIR
    python -m datasets.packed --check DIR [--dataset_path DIR]

Every script takes a pack as `dataset_path`. What a pack is on disk stands in `pack_format.py`, how it is written in
`pack_writer.py`.
"""

import argparse
import hashlib
import json
import os
import sys
import time
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
    verify_checksums,
)
from datasets.pack.source import PackSource
from datasets.pack.writer import write_pack
from datasets.patches import MEMORY_LIMIT, Labels, PatchDataset, RawBatch, find_split
from utils.arguments import user_path
from utils.data_config import DATASETS, IMAGE_SIZE, BandStatistics, Crop
from utils.data_utils import list_some
from utils.errors import ConfigError, DataError, run_script
from utils.metadata import PUBLISHED_FIELDS
from utils.reporting import reporter

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
    """Refuse a pack that was made otherwise than a config asks, naming the key and the option of this command."""
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


# --------------------------------------------------------------------------- the command


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    if options.check:
        _check(options)
    else:
        _pack(options)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m datasets.packed",
        description="Pack a dataset's GeoTIFFs into one memory-mapped array. Interrupted, the same command goes on.",
    )
    parser.add_argument("--dataset", choices=sorted(DATASETS), help="which dataset it is")
    parser.add_argument("--dataset_path", metavar="DIR", help="where the dataset was unpacked")
    parser.add_argument("--dataset_csv", nargs="+", metavar="FILE",
                        help="split files; what any of them lists is packed once")  # fmt: skip
    parser.add_argument("--out", type=user_path, metavar="DIR", help="the pack's folder")
    parser.add_argument("--crop", choices=("center", "resize"), help="as data.crop (default: the dataset's own)")
    parser.add_argument("--image_size", type=int, default=IMAGE_SIZE, metavar="S",
                        help=f"side in pixels, as model.img_size (default {IMAGE_SIZE})")  # fmt: skip
    parser.add_argument("--published_behaviour", action="store_true",
                        help="truncate resized values, as published; a centre crop is the same either way")  # fmt: skip
    parser.add_argument("--skip-bad", action="store_true", help="leave unreadable files out and list them")
    parser.add_argument("--num_workers", type=int, default=os.cpu_count() or 1, metavar="N",
                        help="reader processes (default: all cores; 0 reads in this one)")  # fmt: skip
    parser.add_argument("--check", type=user_path, metavar="DIR",
                        help="verify a pack's checksums; with --dataset_path, the source's files too")  # fmt: skip
    return parser


def _pack(options: argparse.Namespace) -> None:
    for name in ("dataset", "dataset_path", "dataset_csv", "out"):
        if getattr(options, name) is None:
            raise ConfigError(f"--{name} is required to pack; see --help")
    if options.image_size < 1 or options.num_workers < 0:
        raise ConfigError("--image_size needs at least 1, --num_workers at least 0")
    recipe = make_recipe(options.dataset, options.crop, options.image_size, options.published_behaviour)
    source = PackSource(options.dataset_path, options.dataset_csv, recipe)
    started = time.perf_counter()
    try:
        header, files = write_pack(source, options.out, options.skip_bad, options.num_workers)
    except KeyboardInterrupt:
        reporter.warning(f"{options.out}: unfinished; run the same command again to go on")
        raise
    kind = "simulated patches" if header.simulated else "patches"
    left_out = f", {len(header.source.left_out)} left out" if header.source.left_out else ""
    what = f"{options.out}: {header.count} {kind} of {recipe.dataset}{left_out}"
    if not files:
        reporter.info(f"{what}; finished and current, nothing to do")
        return
    seconds = time.perf_counter() - started
    reporter.info(
        f"{what}, {header.files[PIXELS].bytes / 1e6:.1f} MB, in {seconds:.1f} s ({files / seconds:.0f} files/s)"
    )


def _check(options: argparse.Namespace) -> None:
    header = verify_checksums(options.check)
    said = f"{options.check}: whole; {header.count} patches, every checksum agrees"
    if options.dataset_path:
        source = PackSource(options.dataset_path, [str(options.check / name) for name in header.splits], header.recipe)
        stale = source.changed({row.id: row.source for row in read_table(options.check, header.count)})
        if stale:
            raise DataError(
                f"{options.check}: {len(stale)} of {header.count} patches have changed in {source.root} since they "
                f"were packed ({list_some(stale)}); pack again"
            )
        said += f"; made from what {source.root} holds now"
    reporter.info(said)


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
