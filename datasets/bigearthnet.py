"""BigEarthNet-Landsat (Landsat-Bench, arXiv:2506.08780): multi-label patches with time and place.

Layout: `images/<id>.tif`, `labels/<id>_labels_metadata.json`, split CSVs whose first column is the id.
The time in an id is the Sentinel-2 acquisition's; the Landsat scene is the least cloudy one within two months.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
import torch
from torch import Tensor
from tqdm import tqdm

from datasets.geotiff import GDAL_OPTIONS, centers_to_lat_lon, read_bytes, read_patch
from datasets.layout import Layout
from datasets.pack.format import TableRow
from datasets.patches import PatchDataset, RawBatch, dataset_folder, find_split, read_split
from utils.data_config import IMAGE_SIZE, BandStatistics, BigEarthNetInfo
from utils.data_utils import PatchTime, list_some, parse_patch_id
from utils.errors import DataError
from utils.metadata import PUBLISHED_FIELDS, Acquisitions, metadata_columns
from utils.parsing import parse_json


class BigEarthNetDatasetLS(PatchDataset):
    """BigEarthNet-Landsat patches.

    Args:
        root: the folder with `images/` and `labels/` (or the one above, holding `bigearthnet-l/`).
        csv: a split file; a relative path may be inside `root`. The first line is a header only if its first cell
            is exactly `0`.
        labels: "none" reads no label files; "error" refuses patches without one; "skip" leaves them out.
        image_size: side of the patches returned, pixels.
        crop: "center" cuts the middle of the 41- to 45-pixel patches; "resize" scales them, as Landsat-Bench does.
        statistics: for the z-scores; the train split's by default.
        published_behaviour: the first digit of the time as hour, and fill pixels treated as data.
        all_classes: labels are the 43 CORINE classes instead of the 19.
        meta_fields: of the model, see `utils.metadata`.

    Raises:
        DataError: naming the file, for everything that is wrong with the split, the images or the labels.
    """

    name = BigEarthNetInfo.NAME
    sensor = BigEarthNetInfo.SENSOR
    multilabel = True

    def __init__(
        self,
        root: str | Path,
        csv: str | Path,
        *,
        labels: Literal["none", "error", "skip"] = "none",
        image_size: int = IMAGE_SIZE,
        crop: Literal["center", "resize"] = "center",
        statistics: BandStatistics = BigEarthNetInfo.STATISTICS,
        published_behaviour: bool = False,
        all_classes: bool = False,
        meta_fields: Sequence[str] = PUBLISHED_FIELDS,
    ) -> None:
        split = find_split(csv, root)
        folder = dataset_folder(root, BigEarthNetInfo.FOLDER)
        ids = read_split(split)
        super().__init__(folder, ids, image_size, crop, statistics, published_behaviour, meta_fields)
        self.classes = BigEarthNetInfo.CORINE if all_classes else BigEarthNetInfo.CLASSES
        for patch_id in ids:
            try:
                parse_patch_id(patch_id)
            except DataError as error:
                raise DataError(f"{split}: {error}; split files have no header, or only `0`") from None
        _require_files(self.root / "images", [f"{patch_id}.tif" for patch_id in ids])
        if labels != "none":
            self._read_labels(skip_missing=labels == "skip", all_classes=all_classes)

    def path_of(self, index: int) -> Path:
        return image_path(self.root, self.ids[index])

    def read(self, indices: Sequence[int]) -> RawBatch:
        """Pixels and metadata of some patches; see `PatchDataset.read`."""
        paths = [self.path_of(index) for index in indices]
        with rasterio.Env(**GDAL_OPTIONS):
            bands = len(self.sensor.bands)
            patches = [read_patch(path, bands, bands, self.min_side, self.sensor) for path in paths]
            lat, lon = centers_to_lat_lon(patches, [str(path) for path in paths])
        times = [parse_patch_id(self.ids[index]) for index in indices]
        columns = patch_columns(times, lat, lon, self.published_behaviour)
        return RawBatch(np.stack([self.square(patch.pixels) for patch in patches]), columns)

    def _read_labels(self, skip_missing: bool, all_classes: bool) -> None:
        """Fill `labels`, dropping the patches without a label file where that is allowed."""
        folder = self.root / "labels"
        present = _names_in(folder)
        lacking = [patch_id for patch_id in self.ids if _label_name(patch_id) not in present]
        if lacking and not skip_missing:
            raise DataError(
                f"{folder}: {len(lacking)} patches have no label file ({list_some(lacking)}); "
                "add them, or set data.missing_labels: skip"
            )
        self.skipped_labels = lacking
        left_out = set(lacking)
        self.ids = [patch_id for patch_id in self.ids if patch_id not in left_out]
        if not self.ids:
            raise DataError(f"{folder}: none of the split's patches has a label file")
        bar = tqdm(self.ids, desc="reading labels", leave=False, disable=None)
        rows = [read_labels(folder / _label_name(patch_id), all_classes) for patch_id in bar]
        self.labels = torch.stack(rows)


def patch_columns(times: Sequence[PatchTime], lat: Any, lon: Any, published_behaviour: bool) -> np.ndarray:
    """Metadata columns (N, len(FIELDS)) of patches, from their ids' times and their centres in degrees."""
    stated = {"hour": [time.published_hour for time in times]} if published_behaviour else None
    return metadata_columns(Acquisitions.of([time.time for time in times], lat, lon), stated)


def read_labels(path: Path, all_classes: bool = False) -> Tensor:
    """A label file as a multi-hot int64 vector over the 19 classes, or the 43 of CORINE.

    CORINE classes that are in none of the 19 are dropped, so a patch may have no label at all.

    Raises:
        DataError: naming the file, when it cannot be read or holds an unknown label.
    """
    return multi_hot([corine_labels(read_bytes(path), path)], all_classes)[0]


def corine_labels(text: bytes, path: Path) -> list[int]:
    """CORINE indices (0-42) in the order of a label file's text; `path` names it in errors, which are `DataError`."""
    try:
        names = parse_json(text)["labels"]
        return [_CORINE_INDEX[name] for name in names]
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: is not a label file (JSON with a list under 'labels'); fetch it again") from error
    except KeyError as error:
        if error.args[0] == "labels":
            raise DataError(f"{path}: is not a label file (JSON with a list under 'labels'); fetch it again") from error
        raise DataError(f"{path}: unknown label {str(error.args[0])[:80]!r}; expected CORINE level-3 names") from error


def multi_hot(corine: Sequence[Sequence[int]], all_classes: bool = False) -> Tensor:
    """CORINE indices of N patches as (N, 19) int64, or (N, 43) for all classes of CORINE."""
    classes = BigEarthNetInfo.CORINE if all_classes else BigEarthNetInfo.CLASSES
    column_of = {index: index for index in range(len(classes))} if all_classes else BigEarthNetInfo.CORINE_TO_CLASS
    cells = [(row, column_of[index]) for row, indices in enumerate(corine) for index in indices if index in column_of]
    vectors = torch.zeros(len(corine), len(classes), dtype=torch.int64)
    rows, columns = torch.tensor(cells, dtype=torch.int64).reshape(-1, 2).unbind(1)
    vectors[rows, columns] = 1
    return vectors


def image_path(root: Path, patch_id: str) -> Path:
    """The GeoTIFF of a patch."""
    return root / f"images/{patch_id}.tif"


def label_path(root: Path, patch_id: str) -> Path:
    """The label file of a patch, which may not be there."""
    return root / f"labels/{_label_name(patch_id)}"


_CORINE_INDEX = {name: index for index, name in enumerate(BigEarthNetInfo.CORINE)}


def _label_name(patch_id: str) -> str:
    return f"{patch_id}_labels_metadata.json"


def _names_in(folder: Path) -> set[str]:
    try:
        return {entry.name for entry in folder.iterdir()}
    except OSError as error:
        raise DataError(f"{folder}: cannot list the folder ({error.strerror}); check dataset_path") from error


def _require_files(folder: Path, names: list[str]) -> None:
    present = _names_in(folder)
    if missing := [name for name in names if name not in present]:
        raise DataError(
            f"{folder}: {len(missing)} of {len(names)} files are missing: {list_some(missing)}; "
            "fetch them, or shorten the split"
        )


class BigEarthNetLayout(Layout):
    """Several labels a patch, in files of their own; the time is in the id, the place in the GeoTIFF."""

    multilabel = True
    has_metadata = True

    def split_names(self, split: Path) -> list[str]:
        return read_split(split)

    def files(self, root: Path, patch_id: str) -> tuple[Path, ...]:
        return image_path(root, patch_id), label_path(root, patch_id)

    def statistics(self, published_behaviour: bool) -> BandStatistics:
        return BigEarthNetInfo.STATISTICS

    def label_indices(self, patch_id: str, files: Sequence[Path], text: bytes | None) -> list[int]:
        return corine_labels(text or b"", files[1])

    def label_tensor(self, indices: Sequence[Sequence[int]]) -> Tensor:
        return multi_hot(indices)

    def time(self, patch_id: str) -> str:
        return parse_patch_id(patch_id).when.isoformat()

    def columns(self, rows: Sequence[TableRow], published_behaviour: bool) -> np.ndarray:
        times = [PatchTime(datetime.fromisoformat(row.time), row.id.split("_")[2].partition("T")[2]) for row in rows]
        lat, lon = [float(row.lat) for row in rows], [float(row.lon) for row in rows]
        return patch_columns(times, lat, lon, published_behaviour)


LAYOUT = BigEarthNetLayout()
