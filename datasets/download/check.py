"""Whether a dataset's folder holds what its authors published: counts, names, and patches that can be read.

Every file of every split is looked for, with its label file. A sample, evenly spread over the splits, is read whole,
the way the packer reads it: a GeoTIFF with the right bands and numbers, large enough, with a place on the globe, and a
label file with known classes.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from tqdm import tqdm

from datasets.download.source import READ_WHOLE, RECORD, REPORT, Published
from datasets.layout import layout_of
from datasets.pack.dataset import make_recipe
from datasets.pack.source import PackSource
from datasets.patches import dataset_folder
from utils.cores import usable_cores
from utils.data_config import IMAGE_SIZE, EuroSATInfo
from utils.data_utils import list_some
from utils.errors import DataError

MOST_UNLABELLED = 0.05
"""Share of patches without a label file that is put up with: the published data lack about one in 200."""

EXPECTED = (REPORT, RECORD, "README.md", "samples.csv")
"""Files in a dataset's folder that are no patch's, besides the split files."""

READ_AT_ONCE = 64

Kind = Literal[
    "missing", "empty", "unreadable", "missing label file", "empty label file", "in two splits", "in no split"
]


class Finding(NamedTuple):
    """A file that is not as it should be."""

    kind: Kind
    path: str
    """Below the dataset's folder."""
    why: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.path}" + (f" ({self.why})" if self.why else "")


class Checked(NamedTuple):
    """What a check found."""

    counts: dict[str, int]
    """Patches by split."""
    read: int
    """Patches that were read whole."""
    problems: list[Finding]
    """What makes the dataset unusable as it is."""
    notes: list[Finding]
    """What the dataset classes put up with."""

    @property
    def report(self) -> str:
        """All findings, one a line."""
        return "".join(f"{finding}\n" for finding in (*self.problems, *self.notes))


class _Listing(NamedTuple):
    """The files in a dataset's folder: path below it to size."""

    images: dict[str, int]
    labels: dict[str, int]
    others: list[str]


def check_dataset(out: Path, source: Published, sample: int | None = READ_WHOLE) -> Checked:
    """Check a folder against what is published.

    Args:
        out: the folder with the split files and, below it or itself, the dataset's folder.
        source: what should be there.
        sample: patches to read whole; None is all.

    Raises:
        DataError: when a split file is missing, damaged or of another length than published, or no folder is there.
    """
    root = dataset_folder(out, source.top)
    splits = {split: _split_path(out, root, name) for split, name in source.splits.items()}
    ids = {split: layout_of(source.dataset).split_names(path) for split, path in splits.items()}
    wrong = [
        f"{splits[split]} lists {len(names):,} patches where {source.counts[split]:,} are published"
        for split, names in ids.items()
        if len(names) != source.counts[split]
    ]
    if wrong:
        raise DataError(f"{'; '.join(wrong)}; remove it and fetch it again")
    reader = PackSource(
        out, [str(path) for path in splits.values()], make_recipe(source.dataset, None, IMAGE_SIZE, False)
    )
    listing = _list_files(root, source)
    problems, notes = _compare(reader, listing)
    notes += [Finding("in two splits", name) for name, number in _times(ids.values()) if number > 1]
    absent = {finding.path for finding in problems}
    whole = [name for name in reader.ids if reader.files(name)[0].relative_to(root).as_posix() not in absent]
    chosen = whole if sample is None else _evenly(whole, sample)
    problems += _read_whole(reader, chosen)
    return Checked({split: len(names) for split, names in ids.items()}, len(chosen), problems, notes)


def _split_path(out: Path, root: Path, name: str) -> Path:
    """A split file beside the dataset's folder, or in it."""
    return root / name if not (out / name).exists() and (root / name).exists() else out / name


def _times(splits: Iterable[Sequence[str]]) -> Iterator[tuple[str, int]]:
    yield from Counter(name for names in splits for name in names).items()


def _evenly(names: list[str], count: int) -> list[str]:
    at = np.unique(np.linspace(0, len(names) - 1, min(len(names), count)).astype(int)) if names else []
    return [names[index] for index in at]


def _list_files(root: Path, source: Published) -> _Listing:
    listing = _Listing({}, {}, [])
    is_eurosat = source.dataset == EuroSATInfo.NAME
    expected = {*EXPECTED, *source.splits.values()}
    for path, size in tqdm(_files_below(root), desc="listing", unit=" files", leave=False, disable=None):
        folder, _, name = path.rpartition("/")
        if name.endswith(".tif") and (folder in EuroSATInfo.CLASSES if is_eurosat else folder == "images"):
            listing.images[path] = size
        elif name.endswith(".json") and folder == "labels" and not is_eurosat:
            listing.labels[path] = size
        elif path not in expected:
            listing.others.append(path)
    return listing


def _files_below(root: Path, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Paths and sizes of all files."""
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=True):
                    yield from _files_below(Path(entry.path), f"{prefix}{entry.name}/")
                else:
                    yield prefix + entry.name, entry.stat().st_size
    except OSError as error:
        raise DataError(f"{error.filename or root}: cannot be read ({error.strerror})") from error


def _compare(reader: PackSource, listing: _Listing) -> tuple[list[Finding], list[Finding]]:
    """Problems and notes from names and sizes alone."""
    problems: list[Finding] = []
    unlabelled: list[Finding] = []
    wanted: set[str] = set()
    for name in reader.ids:
        image, *labels = (path.relative_to(reader.root).as_posix() for path in reader.files(name))
        wanted.update((image, *labels))
        if image not in listing.images:
            problems.append(Finding("missing", image))
        elif listing.images[image] == 0:
            problems.append(Finding("empty", image))
        for label in labels:
            if label not in listing.labels:
                unlabelled.append(Finding("missing label file", label))
            elif listing.labels[label] == 0:
                problems.append(Finding("empty label file", label))
    surplus = sorted([path for path in (*listing.images, *listing.labels) if path not in wanted] + listing.others)
    notes = [Finding("in no split", path) for path in surplus]
    too_many = len(unlabelled) > max(1, MOST_UNLABELLED * len(reader.ids))
    (problems if too_many else notes).extend(unlabelled)
    return problems, notes


def _read_whole(reader: PackSource, names: list[str]) -> list[Finding]:
    """What is wrong with the patches that are read."""
    chunks = [names[at : at + READ_AT_ONCE] for at in range(0, len(names), READ_AT_ONCE)]
    bad: dict[str, str] = {}
    with ThreadPoolExecutor(min(4, usable_cores())) as pool:
        reads = pool.map(reader.read_chunk, chunks)
        for chunk in tqdm(reads, total=len(chunks), desc="reading patches", leave=False, disable=None):
            bad.update(chunk.bad)
    found = []
    for name, why in bad.items():
        path = reader.files(name)[0].relative_to(reader.root).as_posix()
        found.append(Finding("unreadable", path, why.removeprefix(f"{reader.root}/")))
    return found


def summary(findings: Sequence[Finding]) -> list[str]:
    """One line for every kind of finding, with the first few names."""
    kinds = Counter(finding.kind for finding in findings)
    return [
        f"{count:,} {kind}: {list_some((finding.path for finding in findings if finding.kind == kind), 10)}"
        for kind, count in kinds.items()
    ]
