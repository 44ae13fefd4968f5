"""EuroSAT-Landsat (Landsat-Bench, arXiv:2506.08780): one of ten classes, no date, no reliable georeferencing.

Layout: `<Class>/<Class>_N.tif` with 8 bands of about 22 x 22 pixels, split files with lines `<Class>_N.jpg`.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import rasterio
import torch
from torch import Tensor

from datasets.geotiff import GDAL_OPTIONS, read_patch
from datasets.layout import Layout
from datasets.patches import PatchDataset, RawBatch, dataset_folder, find_split, read_split
from utils.data_config import IMAGE_SIZE, BandStatistics, BigEarthNetInfo, EuroSATInfo
from utils.data_utils import list_some
from utils.errors import DataError
from utils.metadata import PUBLISHED_FIELDS


class EuroSATDatasetLS(PatchDataset):
    """EuroSAT-Landsat patches, without metadata.

    Args:
        root: the folder with one folder per class (or the one above, holding `eurosat-l/`).
        split_file: lines `<Class>_N.jpg`; a relative path may be inside `root`.
        image_size: side of the patches returned, pixels.
        crop: "resize" scales the small patches up, as Landsat-Bench and the published code do.
        statistics: for the z-scores; EuroSAT-Landsat's own by default, BigEarthNet-Landsat's as published.
        published_behaviour: resized values are truncated, fill pixels treated as data, BigEarthNet's statistics used.
        meta_fields: of the model; none of them is known here.

    Raises:
        DataError: listing the split entries that match no file.
    """

    name = EuroSATInfo.NAME
    sensor = EuroSATInfo.SENSOR
    multilabel = False
    classes = EuroSATInfo.CLASSES

    def __init__(
        self,
        root: str | Path,
        split_file: str | Path,
        *,
        image_size: int = IMAGE_SIZE,
        crop: Literal["center", "resize"] = "resize",
        statistics: BandStatistics | None = None,
        published_behaviour: bool = False,
        meta_fields: Sequence[str] = PUBLISHED_FIELDS,
    ) -> None:
        split = find_split(split_file, root)
        folder = dataset_folder(root, EuroSATInfo.FOLDER)
        names = split_names(split)
        if statistics is None:
            statistics = eurosat_statistics(published_behaviour)
        super().__init__(folder, names, image_size, crop, statistics, published_behaviour, meta_fields)
        present = {path.stem for name in self.classes for path in (self.root / name).glob("*.tif")}
        if unmatched := [name for name in names if name not in present or class_of(name) not in self.classes]:
            raise DataError(
                f"{split}: {len(unmatched)} of {len(names)} entries match no file "
                f"{self.root}/<Class>/<Class>_N.tif: {list_some(unmatched)}"
            )
        self.labels = torch.tensor([self.classes.index(class_of(name)) for name in names])

    def path_of(self, index: int) -> Path:
        return image_path(self.root, self.ids[index])

    def read(self, indices: Sequence[int]) -> RawBatch:
        """Pixels of some patches; see `PatchDataset.read`."""
        with rasterio.Env(**GDAL_OPTIONS):
            patches = [
                read_patch(self.path_of(index), len(EuroSATInfo.FILE_BANDS), len(self.sensor.bands), self.min_side)
                for index in indices
            ]
        return RawBatch(np.stack([self.square(patch.pixels) for patch in patches]), None)


def eurosat_statistics(published_behaviour: bool) -> BandStatistics:
    """EuroSAT-Landsat's own statistics; the published code used BigEarthNet-Landsat's."""
    return BigEarthNetInfo.STATISTICS if published_behaviour else EuroSATInfo.STATISTICS


def split_names(split: Path) -> list[str]:
    """The patches of a split file, `Class_N`. Raises DataError as `read_split` does."""
    names = [Path(name).stem for name in read_split(split)]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{split}: lists patches twice: {list_some(twice)}; leave out the repetitions")
    return names


def image_path(root: Path, name: str) -> Path:
    """The GeoTIFF of a patch."""
    return root / f"{class_of(name)}/{name}.tif"


def class_of(name: str) -> str:
    """`AnnualCrop_17` is an AnnualCrop."""
    return name.rpartition("_")[0]


class EuroSATLayout(Layout):
    """One class a patch, in its name; no time and no place."""

    multilabel = False
    has_metadata = False

    def split_names(self, split: Path) -> list[str]:
        return split_names(split)

    def files(self, root: Path, patch_id: str) -> tuple[Path, ...]:
        return (image_path(root, patch_id),)

    def statistics(self, published_behaviour: bool) -> BandStatistics:
        return eurosat_statistics(published_behaviour)

    def label_indices(self, patch_id: str, files: Sequence[Path], text: bytes | None) -> list[int]:
        names, name = EuroSATInfo.LABEL_NAMES, class_of(patch_id)
        if name not in names:
            raise DataError(f"{files[0]}: {name!r} is none of the classes {', '.join(names)}")
        return [names.index(name)]

    def label_tensor(self, indices: Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor([index for (index,) in indices])


LAYOUT = EuroSATLayout()
