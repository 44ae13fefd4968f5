"""What the hub holds of each dataset, as its authors published it.

Landsat-Bench lists one and the same MD5 sum for both archives, so at least one of them is wrong and neither is used
here: a transfer is checked by the hub's own checksums, and what comes out of the archive by its content.
"""

from typing import NamedTuple

from utils.data_config import DATASETS, BigEarthNetInfo, DatasetInfo, EuroSATInfo

REPORT, RECORD = "check_report.txt", "download.json"
"""In a dataset's folder: every finding of a check, and where the files came from."""

READ_WHOLE = 4096
"""Patches that a check reads whole, of those in the splits, unless more are asked for."""

DISK_BLOCK = 4096
"""Files take whole blocks, bytes."""


class Published(NamedTuple):
    """One dataset on the hub."""

    dataset: str
    repo: str
    archive: str
    top: str
    """The archive's folder."""
    splits: dict[str, str]
    """Name of a split to its file."""
    counts: dict[str, int]
    """Name of a split to its number of patches."""
    patch_files: tuple[int, ...]
    """About how many bytes each file of a patch has."""

    @property
    def files(self) -> tuple[str, ...]:
        """All files wanted, small ones first."""
        return *self.splits.values(), self.archive

    @property
    def unpacked_files(self) -> int:
        """About how many files come out of the archive."""
        return sum(self.counts.values()) * len(self.patch_files)

    @property
    def unpacked_bytes(self) -> int:
        """About how much disk they take."""
        patch = sum(-(-size // DISK_BLOCK) * DISK_BLOCK for size in self.patch_files)
        return sum(self.counts.values()) * patch


def _published(info: type[DatasetInfo]) -> Published:
    hub = info.HUB
    splits = {split: hub.split_file.format(split) for split in info.SPLIT_SIZES}
    return Published(info.NAME, hub.repo, hub.archive, info.FOLDER, splits, info.SPLIT_SIZES, hub.patch_files)


PUBLISHED = {name: _published(info) for name, info in DATASETS.items()}
"""Dataset name in a config to where it comes from."""
BIGEARTHNET, EUROSAT = PUBLISHED[BigEarthNetInfo.NAME], PUBLISHED[EuroSATInfo.NAME]
