"""Labelled ground: pixels with classes, cut into squares that each belong to one part, and crops of it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
import torch
from torch import Tensor

from configs.finetuning import PARTS, GroundSection, MaskedImagesSection
from datasets.table_columns import ENDINGS
from finetuning.sources import ImageReader, Source, image_source, scene_source
from models.config import ModelConfig
from scenes.labels.raster import open_labels, write_label_raster
from scenes.products.labelled import UNKNOWN
from scenes.windows import Frame, make_frame
from utils.data_config import BandStatistics
from utils.errors import ConfigError, DataError
from utils.files import make_folder
from utils.randomness import derive_seed
from utils.reporting import reporter

LEAST_LABELLED = 0.02
"""Share of a crop's pixels that have to be labelled training pixels."""


class Area(NamedTuple):
    """A scene, or an image of a folder, with its labels: arrays in the frame's rows and columns, a whole number of
    windows."""

    source: Source
    frame: Frame
    numbers: np.ndarray
    """(C, H, W) uint16 digital numbers, 0 where nothing is seen."""
    labels: np.ndarray
    """(H, W) uint8 class index; `UNKNOWN` where there is none, or nothing is seen."""
    part: np.ndarray
    """(H, W) uint8 index of `PARTS`."""
    block: np.ndarray
    """(H, W) int32 number of the square, over all areas."""

    @property
    def reader(self) -> ImageReader:
        """Of the pixels, in the scene's rows and columns."""
        frame = self.frame
        rows = slice(frame.above, frame.above + frame.grid.height)
        columns = slice(frame.left, frame.left + frame.grid.width)
        return ImageReader(self.source.name, self.numbers[:, rows, columns])


class Ground(NamedTuple):
    """All areas, and the names of their classes."""

    areas: tuple[Area, ...]
    classes: tuple[str, ...]

    def counts(self, part: str) -> np.ndarray:
        """(K,) labelled pixels of every class in a part."""
        number = PARTS.index(part)
        counts = [np.bincount(a.labels[(a.part == number) & (a.labels != UNKNOWN)], minlength=len(self.classes))
                  for a in self.areas]  # fmt: skip
        return np.sum(counts, axis=0)


def read_ground(
    section: GroundSection, model: ModelConfig, statistics: BandStatistics, scratch: Path, seed: int
) -> Ground:
    """Read pixels and labels, and divide them.

    Args:
        section: of the config.
        model: decides the windows.
        statistics: of bands that are not there.
        scratch: folder for labels on the scene's grid.
        seed: which square is in which part.

    Raises:
        UserError: naming the file or key.
    """
    if section.folder is not None:
        found, names = _of_folder(section.folder, statistics)
        sides = [0] * len(found)
    else:
        found, names = _of_scenes(section, statistics, scratch)
        sides = [section.block] * len(found)
    classes, lookup = _chosen(names, section.classes)
    areas, first = [], 0
    for (source, labels), side in zip(found, sides, strict=True):
        area = _area(source, lookup[labels], model, section.stride, side, first)
        first = int(area.block.max()) + 1
        areas.append(area)
    return _divided(Ground(tuple(areas), classes), section, seed)


def _of_scenes(section: GroundSection, statistics: BandStatistics, scratch: Path) -> tuple[list, list[str]]:
    found, names = [], []
    for number, one in enumerate(section.scenes):
        source = scene_source(one, statistics)
        labels = open_labels(Path(one.labels), one.column, source.grid)
        for note in labels.notes:
            reporter.info(f"note         {note}")
        truth = write_label_raster(labels, source.grid, make_folder(scratch) / f"labels_{number}.tif")
        with rasterio.open(truth.path) as file:
            values = file.read(1)
        truth.path.unlink()
        scratch.rmdir()
        names += [name for name in labels.names if name not in names]
        place = np.full(256, UNKNOWN, np.uint8)
        place[: len(labels.names)] = [names.index(name) for name in labels.names]
        found.append((source, place[values]))
    return found, names


def _of_folder(section: MaskedImagesSection, statistics: BandStatistics) -> tuple[list, list[str]]:
    folder, masks = Path(section.images), Path(section.masks)
    for place in (folder, masks):
        if not place.is_dir():
            raise DataError(f"{place}: no such folder; set ground.folder.images and ground.folder.masks")
    images = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
    if not images:
        raise DataError(f"{folder}: holds no images ({', '.join(ENDINGS)})")
    found, largest = [], 0
    for path in images:
        source = image_source(path, section, statistics)
        mask = _mask(masks / path.name, path, source)
        largest = max(largest, int(mask[mask != UNKNOWN].max(initial=0)))
        found.append((source, mask))
    return found, [f"class {index}" for index in range(largest + 1)]


def _mask(path: Path, image: Path, source: Source) -> np.ndarray:
    if not path.is_file():
        raise DataError(f"{image}: has no mask {path}; give each image one of its name, or leave the image out")
    with rasterio.open(path) as file:
        values, seen = file.read(1), file.read_masks(1) > 0
    if values.shape != (source.grid.height, source.grid.width) or values.dtype != np.uint8:
        size = " x ".join(map(str, values.shape))
        raise DataError(f"{path}: is {size} of {values.dtype}; a mask has its image's size, and class numbers as uint8")
    return np.where(seen, values, UNKNOWN)


def _chosen(names: Sequence[str], wanted: dict[str, str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the classes, and a table from numbers of the labels to theirs."""
    if unknown := [name for name in wanted if name not in names]:
        raise ConfigError(f"ground.classes: the labels have no {unknown[0]!r}; they have {', '.join(names)}")
    shown = wanted or {name: name for name in names}
    classes = tuple(dict.fromkeys(shown.values()))
    if len(classes) < 2:
        raise ConfigError("ground.classes: names one class; a map needs two or more")
    table = np.full(256, UNKNOWN, np.uint8)
    for number, name in enumerate(names):
        if name in shown:
            table[number] = classes.index(shown[name])
    return classes, table


def _area(source: Source, labels: np.ndarray, model: ModelConfig, stride: int, side: int, first: int) -> Area:
    frame = make_frame(source.grid, model.img_size, model.patch_size, stride, model.patch_size)
    height, width = frame.blocks_down * frame.window, frame.blocks_across * frame.window
    with source.open() as reader:
        numbers = reader.read(-frame.above, -frame.left, height, width)
    framed = np.full((height, width), UNKNOWN, np.uint8)
    framed[frame.above : frame.above + labels.shape[0], frame.left : frame.left + labels.shape[1]] = labels
    framed[(numbers == 0).any(axis=0)] = UNKNOWN
    rows, columns = (np.arange(size) // (side or max(height, width)) for size in (height, width))
    block = first + rows[:, None] * (int(columns[-1]) + 1) + columns[None]
    return Area(source, frame, numbers, framed, np.zeros((height, width), np.uint8), block.astype(np.int32))


def _divided(ground: Ground, section: GroundSection, seed: int) -> Ground:
    """Squares with labels, shuffled, to parts by their shares."""
    labelled = np.unique(np.concatenate([area.block[area.labels != UNKNOWN] for area in ground.areas]))
    if len(labelled) < len(PARTS):
        raise DataError(
            f"{ground.areas[0].source.name}: its labels lie in {len(labelled)} squares, too few for {len(PARTS)} "
            "parts; set a smaller ground.block"
        )
    order = np.random.default_rng(derive_seed(seed, "squares")).permutation(labelled)
    shares = np.array([section.shares[part] for part in PARTS])
    ends = np.rint(np.cumsum(shares) / shares.sum() * len(order)).astype(int)
    ends[0] = min(max(1, ends[0]), len(order) - 2)
    ends[1] = min(max(ends[0] + 1, ends[1]), len(order) - 1)
    part_of = np.zeros(max(int(area.block.max()) for area in ground.areas) + 1, np.uint8)
    part_of[order[ends[0] : ends[1]]], part_of[order[ends[1] :]] = 1, 2
    return ground._replace(areas=tuple(area._replace(part=part_of[area.block]) for area in ground.areas))


class Crops:
    """Where crops of training pixels can be cut, and those of a step.

    Args:
        ground: divided.
        side: of a crop, pixels; a multiple of the patch.
        seed: of all crops.
        rare_share: of crops around a pixel of a class that is drawn from all classes alike.
    """

    def __init__(self, ground: Ground, side: int, seed: int, rare_share: float) -> None:
        self.ground, self.side, self.seed, self.rare_share = ground, side, seed, rare_share
        self.step = ground.areas[0].frame.patch
        self.places = np.array([place for number in range(len(ground.areas)) for place in self._places(number)], int)
        if not len(self.places):
            raise DataError(
                f"{ground.areas[0].source.name}: no visible pixel of a training square is labelled "
                "(fill, clouds and shadow hide them); give another scene, or more labels"
            )
        self.of_class = [self._of_class(label) for label in range(len(ground.classes))]
        self.of_class = [places for places in self.of_class if len(places)]

    def draw(self, count: int, *position: int | str) -> np.ndarray:
        """(count, 4) area, top, left and symmetry, a function of the seed and the position."""
        random = np.random.default_rng(derive_seed(self.seed, "crops", *position))
        chosen = self.places[random.integers(len(self.places), size=count)]
        for row in np.flatnonzero(random.random(count) < self.rare_share):
            places = self.of_class[random.integers(len(self.of_class))]
            chosen[row] = self._around(places[random.integers(len(places))], random)
        return np.column_stack([chosen, random.integers(8, size=count)])

    def cut(self, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(C, side, side) numbers and (side, side) labels, `UNKNOWN` outside the training part."""
        area, rows, columns = self.slices(place)
        labels = np.where(area.part[rows, columns] == 0, area.labels[rows, columns], UNKNOWN)
        return area.numbers[:, rows, columns], labels

    def slices(self, place: np.ndarray, step: int = 1) -> tuple[Area, slice, slice]:
        """The area, rows and columns of a place, in units of `step` pixels."""
        number, top, left = (int(value) for value in place[:3])
        area = self.ground.areas[number]
        return area, slice(top // step, (top + self.side) // step), slice(left // step, (left + self.side) // step)

    def _places(self, number: int) -> Iterator[tuple[int, int, int]]:
        area = self.ground.areas[number]
        known = ((area.labels != UNKNOWN) & (area.part == 0)).astype(np.int64)
        sums = np.pad(known.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        height, width = known.shape
        tops, lefts = (np.arange(0, size - self.side + 1, self.step) for size in (height, width))
        a, b = tops[:, None], lefts[None]
        within = sums[a + self.side, b + self.side] - sums[a, b + self.side] - sums[a + self.side, b] + sums[a, b]
        for row, column in np.argwhere(within >= max(1, LEAST_LABELLED * self.side**2)):
            yield number, int(tops[row]), int(lefts[column])

    def _of_class(self, label: int) -> np.ndarray:
        found = []
        for number, area in enumerate(self.ground.areas):
            at = np.argwhere((area.labels == label) & (area.part == 0))
            found.append(np.column_stack([np.full(len(at), number), at]))
        return np.concatenate(found)

    def _around(self, place: np.ndarray, random: np.random.Generator) -> list[int]:
        number, *at = (int(value) for value in place)
        shape = self.ground.areas[number].labels.shape
        start = [value - int(random.integers(self.side)) for value in at]
        start = [min(max(0, value), size - self.side) for value, size in zip(start, shape, strict=True)]
        return [number, *(value // self.step * self.step for value in start)]


def turned(x: Tensor, symmetry: int) -> Tensor:
    """One of the 8 symmetries of the square, of the last two dimensions."""
    return torch.rot90(x.flip(-1) if symmetry >= 4 else x, symmetry % 4, (-2, -1))


def turned_back(x: Tensor, symmetry: int) -> Tensor:
    """The inverse of `turned`."""
    x = torch.rot90(x, -(symmetry % 4), (-2, -1))
    return x.flip(-1) if symmetry >= 4 else x
