"""What the hub holds of each dataset, as its authors published it.

Landsat-Bench lists one and the same MD5 sum for both archives, so at least one of them is wrong and neither is used
here: a transfer is checked by the hub's own checksums, and what comes out of the archive by its content.
"""

from typing import NamedTuple

from utils.data_config import BigEarthNetInfo, EuroSATInfo

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


BIGEARTHNET = Published(
    dataset=BigEarthNetInfo.NAME,
    repo="isaaccorley/bigearthnet-l",
    archive="bigearthnet-l.tar.gz",
    top="bigearthnet-l",
    splits={split: f"bigearthnet-{split}.csv" for split in BigEarthNetInfo.SPLIT_SIZES},
    counts=BigEarthNetInfo.SPLIT_SIZES,
    patch_files=(27_000, 1_200),
)
EUROSAT = Published(
    dataset=EuroSATInfo.NAME,
    repo="isaaccorley/eurosat-l",
    archive="eurosat-l.zip",
    top="eurosat-l",
    splits={split: f"eurosat-{split}.txt" for split in EuroSATInfo.SPLIT_SIZES},
    counts=EuroSATInfo.SPLIT_SIZES,
    patch_files=(8_300,),
)
PUBLISHED = {source.dataset: source for source in (BIGEARTHNET, EUROSAT)}
"""Dataset name in a config to where it comes from."""
