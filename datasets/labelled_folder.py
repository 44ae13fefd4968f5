"""Any third dataset: a folder of labelled images, their bands brought to SR_B1..SR_B7 by name.

The encoder takes z-scores of seven Landsat bands. What an image has of them goes where it belongs; a band that it does
not have is 0 after normalisation, the mean of the dataset, on every pixel. Numbers reach z-scores in one of two ways:

- With `scale` (and `offset`) they are reflectances, which are put into Landsat's digital numbers and normalised as
  those of BigEarthNet-Landsat: what the encoder was trained on.
- Without, as in 8-bit pictures, they have no reflectance: display values, stretched and gamma-corrected, that no
  factor brings back. Each band is then normalised by its own mean and standard deviation over the training split, so
  that the encoder sees numbers as large as it knows. Brightness relative to other datasets is lost.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import rasterio
import torch
from tqdm import tqdm

from datasets.geotiff import GDAL_OPTIONS
from datasets.image_bands import (
    IGNORED,
    LABELLED_FOLDER,
    TRAIN,
    hidden_of,
    read_image,
    stated_scale,
    stored_type,
    usual_bands,
)
from datasets.labelled_table import read_table, say_once, split_rows
from datasets.patches import PatchDataset, RawBatch
from transformation.band_order import order_problem
from transformation.landsat_numbers import COLLECTION2, LARGEST, NO_REFLECTANCE, landsat_numbers, without_number
from transformation.transformer import ZScoreNormalize
from utils.data_config import DATASETS, IMAGE_SIZE, BandStatistics, BigEarthNetInfo
from utils.errors import DataError
from utils.metadata import PUBLISHED_FIELDS
from utils.sensors import OLI, SENSORS, Sensor

NAME = LABELLED_FOLDER

EIGHT_BITS = 257
"""8-bit numbers are stored times this, so that a resized picture keeps what lies between them."""

LOOKED_AT = 64
"""Images, evenly spread, by whose numbers the order of the bands is judged."""

CACHED_STATISTICS = 64
"""Training splits whose statistics are remembered at once."""


class FolderOptions(NamedTuple):
    """What a config says of a labelled folder."""

    bands: tuple[str, ...] | None = None
    """In the order of the files' bands, as `band_names` gives them; None: three are RGB, seven SR_B1..SR_B7."""
    scale: float | None = None
    """Reflectance = number * scale + offset; None: the numbers have no reflectance."""
    offset: float = 0.0
    train_split: str | None = None
    """Whose statistics normalise numbers without reflectance."""
    seed: int = 0
    """Of splits given as ranges; see `split_rows`."""
    sensor: str | None = None
    """What took the images: oli, etm or tm; None: OLI, or what its names of bands mean."""

    @property
    def seen_by(self) -> Sensor:
        return SENSORS[self.sensor or OLI.name]


class LabelledFolderDataset(PatchDataset):
    """Images of a labelled folder; metadata are what its table says of time and place, none without a table.

    Args:
        root: a folder with one folder per class, or a CSV of file,label; see `read_table`.
        split: see `split_rows`.
        options: bands, reflectance, seed.
        image_size: side of the patches returned, pixels.
        crop: "resize" scales an image to it; "center" cuts its middle at full resolution.
        statistics: "auto" (the training split's for numbers without reflectance, else BigEarthNet-Landsat's),
            "train", or a key of `DATASETS`.
        published_behaviour, meta_fields: as for the other datasets.

    Raises:
        DataError: naming the file and what is wrong with the table, the split or an image.
    """

    name = NAME

    def __init__(
        self,
        root: str | Path,
        split: str | Path,
        *,
        options: FolderOptions = FolderOptions(),  # noqa: B008 - immutable
        image_size: int = IMAGE_SIZE,
        crop: Literal["center", "resize"] = "resize",
        statistics: str = "auto",
        published_behaviour: bool = False,
        meta_fields: Sequence[str] = PUBLISHED_FIELDS,
    ) -> None:
        self.table = read_table(root)
        self._rows = split_rows(self.table, split, options.seed)
        self.classes, self.multilabel = self.table.classes, self.table.multilabel
        with rasterio.Env(**GDAL_OPTIONS):
            first = self.table.root / self.table.files[self._rows[0]]
            bands = options.bands or usual_bands(first, options.seen_by)
            options = _with_stated_scale(options, first)
        self.options, self.bands = options._replace(bands=bands), bands
        ids = [self.table.files[row] for row in self._rows]
        own = BigEarthNetInfo.STATISTICS
        super().__init__(self.table.root, ids, image_size, crop, own, published_behaviour, meta_fields)
        self._labels = self.table.label_array(self._rows)
        self.labels = torch.from_numpy(self._labels)
        self._metadata = None if self.table.metadata is None else self.table.metadata[self._rows]
        if statistics == "auto":
            statistics = TRAIN if options.scale is None else BigEarthNetInfo.NAME
        self._statistics_name = statistics
        found = self._train_statistics() if statistics == TRAIN else self._named_statistics(statistics)
        self.statistics = _flat_where_missing(found, self.missing)
        self.normalize = ZScoreNormalize(self.statistics, fill_is_data=published_behaviour)
        _say_once(self.remarks())
        self._check_order()

    @property
    def statistics_name(self) -> str:
        """What the numbers are normalised with: "train", or the name of a dataset."""
        return self._statistics_name

    @property
    def missing(self) -> tuple[str, ...]:
        """The bands that the files do not have."""
        return tuple(band for band in self.sensor.bands if band not in self.bands)

    def bands_of(self, indices: Sequence[int]) -> torch.Tensor | None:
        """See `PatchDataset.bands_of`; what stands in the others is the mean."""
        given = torch.tensor([band not in self.missing for band in self.sensor.bands])
        return given.expand(len(indices), -1) if self.missing else None

    def path_of(self, index: int) -> Path:
        return self.root / self.ids[index]

    def read(self, indices: Sequence[int]) -> RawBatch:
        """Pixels and metadata of some images; see `PatchDataset.read`. Bands that are not there hold their mean."""
        with rasterio.Env(**GDAL_OPTIONS):
            read = [self._stored(self.path_of(index)) for index in indices]
        lost = np.array([without_number for _, without_number in read], np.int64)
        columns = None if self._metadata is None else self._metadata[list(indices)]
        return RawBatch(np.stack([self.square(pixels) for pixels, _ in read]), columns, lost)

    def fingerprint(self) -> str:
        """As for every dataset, and of what the numbers are taken for."""
        options = self.options if self.options.sensor else self.options[:-1]  # as before there was a choice
        said = [super().fingerprint(), options, self.statistics, self.classes, self._labels.tolist()]
        if self._metadata is not None:
            said.append(np.nan_to_num(self._metadata, nan=np.inf).tolist())
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def remarks(self) -> str:
        """One line that a report has to carry: which bands are made up, and what the numbers are taken for."""
        given = ", ".join(band for band in self.bands if band != IGNORED)
        filled = f"{', '.join(self.missing)} not in the images and filled with the mean (z-score 0)"
        if self.statistics_name == TRAIN:
            taken = "numbers without reflectance, normalised by the training split's mean and standard deviation"
        else:
            taken = f"reflectances, normalised as {self.statistics_name}"
        metadata = self.table.metadata
        known = "" if metadata is None else f"; time or place known of {_stated(metadata):,} of {len(metadata):,}"
        return f"{self.root}: bands {given}; {filled if self.missing else 'none missing'}; {taken}{known}"

    def description(self) -> dict[str, object]:
        """The same for provenance: JSON-ready."""
        return {
            "bands": list(self.bands),
            "missing_bands": list(self.missing),
            **({"sensor": self.options.sensor} if self.options.sensor else {}),
            **({"with_metadata": _stated(self._metadata)} if self._metadata is not None else {}),
            "scale": self.options.scale,
            "offset": self.options.offset,
            "split_seed": self.options.seed,
            "statistics": self.statistics_name,
            "mean": self._of_given(self.statistics.mean),
            "std": self._of_given(self.statistics.std),
            "remarks": self.remarks(),
        }

    def _of_given(self, values: Sequence[float]) -> dict[str, float]:
        return {band: value for band, value in zip(self.sensor.bands, values, strict=True) if band not in self.missing}

    def _stored(self, path: Path) -> tuple[np.ndarray, int]:
        """An image as (7, H, W) uint16 digital numbers; 0 in every band where the file says that there is nothing.

        The second value counts pixels that hold no number (see `without_number`) although nothing says so.
        """
        image = read_image(path, self.bands, self.min_side, self.options.seen_by)
        numbers, options = image.numbers, self.options
        scale = None if options.scale is None else (options.scale, options.offset)
        hidden = hidden_of(image, self.bands, scale, path)
        if scale is not None:
            values = landsat_numbers(numbers, hidden, scale)
        elif numbers.dtype in (np.uint8, np.uint16):
            values = numbers.astype(np.float32) * (EIGHT_BITS if numbers.dtype == np.uint8 else 1)
        else:
            raise DataError(
                f"{path}: holds {numbers.dtype} numbers; give data.scale and data.offset (reflectance = number * "
                "scale + offset)"
            )
        pixels = np.empty((len(self.sensor.bands), *hidden.shape), np.uint16)
        # Of missing bands the mean is stored, so that normalisation gives 0; see `_flat_where_missing`.
        pixels[:] = np.array(_whole(self.statistics.mean), np.uint16)[:, None, None]
        for band, of_band in zip(self.bands, values, strict=True):
            if band != IGNORED:
                pixels[self.sensor.bands.index(band)] = np.clip(np.rint(of_band), 1, LARGEST)
        pixels[:, hidden] = 0
        taken = [at for at, band in enumerate(self.bands) if band != IGNORED]
        lost = without_number(numbers[taken], [image.nodata[at] for at in taken], scale)
        return pixels, int(lost.any(axis=0).sum())

    def _check_order(self) -> None:
        """Notice bands in another order than SR_B1..SR_B7, by what some of the images show.

        Raises:
            DataError: where the numbers are known to be reflectances; else it is a doubt, which is said.
        """
        known = self.options.scale is not None
        if self.missing or (self.root, self.options) in _JUDGED:
            return
        chosen = np.unique(np.linspace(0, len(self) - 1, min(len(self), LOOKED_AT)).astype(int))
        with rasterio.Env(**GDAL_OPTIONS):
            if not known and stored_type(self.path_of(0)) != "uint16":
                return
            parts = [self._stored(self.path_of(index))[0].reshape(len(self.sensor.bands), -1) for index in chosen]
        values = np.concatenate(parts, axis=1)
        values = values[:, values.any(axis=0)]
        judged = values.size and (known or np.median(values, axis=1).max() >= NO_REFLECTANCE)
        what = order_problem(values * np.float32(COLLECTION2[0]) + np.float32(COLLECTION2[1])) if judged else None
        problem = f"{self.root}: {what}; name them in data.bands, in the order in which the images have them"
        if what and known:
            raise DataError(problem)
        _JUDGED.add((self.root, self.options))
        if what:
            _say_once(f"if these are Landsat's digital numbers: {problem}")

    def _named_statistics(self, name: str) -> BandStatistics:
        if self.options.scale is None:
            raise DataError(
                f"{self.root}: data.statistics: {name} needs reflectances; give data.scale and data.offset, "
                "or leave data.statistics at auto"
            )
        return DATASETS[name].STATISTICS

    def _train_statistics(self) -> BandStatistics:
        """Mean and standard deviation of every band over the valid pixels of the training split."""
        if self.options.train_split is None:
            raise DataError(
                f"{self.root}: numbers without reflectance are normalised by the training split; name it `train` in "
                "data.splits, or give data.scale and data.offset"
            )
        rows = split_rows(self.table, self.options.train_split, self.options.seed)
        key = (str(self.root), self.options, self.image_size, self.crop, self.published_behaviour, tuple(rows))
        if key not in _KNOWN_STATISTICS:
            if len(_KNOWN_STATISTICS) >= CACHED_STATISTICS:
                _KNOWN_STATISTICS.clear()
            _KNOWN_STATISTICS[key] = self._measure([self.root / self.table.files[row] for row in rows])
        return _KNOWN_STATISTICS[key]

    def _measure(self, paths: list[Path]) -> BandStatistics:
        sums, squares, count = np.zeros(len(self.sensor.bands)), np.zeros(len(self.sensor.bands)), 0
        with rasterio.Env(**GDAL_OPTIONS):
            for path in tqdm(paths, desc="statistics of training", leave=False, disable=None):
                pixels = self.square(self._stored(path)[0]).reshape(len(self.sensor.bands), -1).astype(np.float64)
                pixels = pixels[:, pixels.any(axis=0)]
                sums, squares = sums + pixels.sum(axis=1), squares + np.square(pixels).sum(axis=1)
                count += pixels.shape[1]
        mean = sums / max(count, 1)
        std = np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 0.0))
        flat = [
            band
            for band, spread in zip(self.sensor.bands, std, strict=True)
            if spread == 0 and band not in self.missing
        ]
        if flat:
            raise DataError(
                f"{self.root}: {', '.join(flat)} never changes in the training split, so that nothing can be "
                f"normalised by it; put {IGNORED} in its place in data.bands"
            )
        return BandStatistics(tuple(mean.tolist()), tuple(std.tolist()))


_KNOWN_STATISTICS: dict[tuple, BandStatistics] = {}
_JUDGED: set[tuple[Path, FolderOptions]] = set()
"""Folders whose order of bands has been judged: once for all splits."""


def _say_once(text: str) -> None:
    """One line for all splits of a dataset, and all processes of a run."""
    if os.environ.get("RANK", "0") == "0":
        say_once(f"note: {text}")


def _with_stated_scale(options: FolderOptions, path: Path) -> FolderOptions:
    """The same with the scale that the images' tags state, where the config states none.

    Raises:
        DataError: where both do and differ.
    """
    said = stated_scale(path)
    if said is None:
        return options
    if options.scale is None:
        return options._replace(scale=said[0], offset=said[1])
    if not np.allclose(said, (options.scale, options.offset), rtol=1e-4, atol=1e-9):
        raise DataError(
            f"{path}: its tags say reflectance = number * {said[0]:g} + {said[1]:g}, the config says data.scale "
            f"{options.scale:g} and data.offset {options.offset:g}; leave them out, or correct the tags"
        )
    return options


def _stated(metadata: np.ndarray) -> int:
    """Images of which anything of time or place is known, of (N, fields)."""
    return int((~np.isnan(metadata)).any(axis=1).sum())


def _flat_where_missing(statistics: BandStatistics, missing: Sequence[str]) -> BandStatistics:
    """The same with a whole mean, which a digital number can be, for the bands that are not there."""
    by_band = zip(OLI.bands, statistics.mean, _whole(statistics.mean), strict=True)
    mean = [whole if band in missing else value for band, value, whole in by_band]
    std = [1.0 if band in missing else value for band, value in zip(OLI.bands, statistics.std, strict=True)]
    return BandStatistics(tuple(mean), tuple(std))


def _whole(values: Sequence[float]) -> list[float]:
    return [float(min(max(round(value), 1), LARGEST)) for value in values]
