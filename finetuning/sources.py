"""Pixels that a map is made of: a scene as `embed_scene.py` takes it, or one image whose bands are named."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
import torch
from torch import Tensor

from configs.finetuning import LabelledSceneSection, MaskedImagesSection
from datasets.geotiff import GDAL_OPTIONS
from datasets.image_bands import band_names, hidden_of, read_image, stated_scale, usual_bands
from scenes.embed import PixelReader, WindowMetadata
from scenes.input.grids import SceneGrid, open_raster, scene_grid
from scenes.input.product import Scene, SceneOptions, find_scene
from scenes.input.reader import SceneReader, WithoutNumber, padded
from scenes.input.virtual_files import path_of
from transformation.landsat_numbers import COLLECTION2, Scale, landsat_numbers
from transformation.present_bands import PresentBands
from utils.data_config import BandStatistics
from utils.errors import DataError
from utils.sensors import IGNORED, OLI


class ImageReader:
    """An image in memory, read as a scene is.

    Args:
        where: for messages.
        numbers: (C, H, W) uint16 digital numbers, 0 where nothing is seen.
    """

    given = PresentBands.of(OLI)
    """Heads look at pixels themselves, so that those of a missing band hold its mean."""

    def __init__(self, where: str, numbers: np.ndarray) -> None:
        self.where, self.numbers = where, numbers
        self.without_number = WithoutNumber((), numbers.shape[1:], None)

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """(C, height, width) from row `top` and column `left`; 0 outside."""
        numbers = self.numbers
        return padded(lambda rows, columns: numbers[:, rows, columns], numbers.shape, top, left, height, width)


class FilledReader(SceneReader):
    """A scene whose missing bands hold their mean, as those of an `ImageReader` do.

    Args:
        scene: of a sensor that lacks some of the bands.
        statistics: whose mean it is.
    """

    def __init__(self, scene: Scene, statistics: BandStatistics) -> None:
        super().__init__(scene)
        self.places, self.given = list(self.given.places), ImageReader.given
        self.means = np.rint(statistics.mean).astype(np.uint16)

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """(7, height, width) uint16; 0 outside the scene and where nothing is seen."""
        numbers = super().read(top, left, height, width)
        filled = np.where((numbers != 0).all(axis=0), self.means[:, None, None], 0).astype(np.uint16)
        filled[self.places] = numbers
        return filled


class GivenReader:
    """The given bands of a reader that has all: those that the encoder takes.

    Args:
        reader: with the mean in the others, which heads see.
        bands: (C,) bool.
    """

    def __init__(self, reader: PixelReader, bands: Tensor) -> None:
        self.reader, self.given = reader, PresentBands(tuple(bands.tolist()))
        self.where, self.without_number = reader.where, reader.without_number

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """(bands given, height, width) from row `top` and column `left`; 0 outside, and where nothing is seen."""
        return self.reader.read(top, left, height, width)[list(self.given.places)]


class Source(NamedTuple):
    """What is known of some pixels before all of them are read."""

    name: str
    of: Scene | ImageReader
    grid: SceneGrid
    metadata: WindowMetadata
    simulated: bool = False
    missing: tuple[str, ...] = ()
    """Bands that are filled with their mean, and missing to the encoder."""
    statistics: BandStatistics | None = None
    """Whose mean, of a scene that lacks some."""

    @property
    def bands(self) -> Tensor | None:
        """(C,) bool, bands that are given; None: all."""
        return torch.tensor([band not in self.missing for band in OLI.bands]) if self.missing else None

    def open(self) -> AbstractContextManager[PixelReader]:
        """A reader of all of it."""
        if isinstance(self.of, ImageReader):
            return nullcontext(self.of)
        return SceneReader(self.of) if self.statistics is None else FilledReader(self.of, self.statistics)


def scene_source(section: LabelledSceneSection, statistics: BandStatistics) -> Source:
    """The scene, or the image, of a section; the statistics are those of bands that an image lacks.

    Raises:
        UserError: naming the file and what is wrong with it.
    """
    path = path_of(section.scene)
    if section.bands is None:
        scale = None if section.scale is None else (section.scale, section.offset)
        scene = find_scene(path, SceneOptions(scale=scale))
        known = WindowMetadata(scene.time, scene.crs is not None, scene.stated)
        missing = tuple(OLI.bands[OLI.common.index(name)] for name in scene.sensor.missing)
        of_mean = statistics if missing else None
        return Source(scene.name, scene, scene.grid, known, scene.simulated, missing, of_mean)
    if Path(path).is_dir():
        raise DataError(f"{path}: is a folder, and bands are named of one GeoTIFF; leave bands out for a product")
    grid = scene_grid(open_raster(path))
    return image_source(Path(path), section, statistics, grid)


def image_source(
    path: Path,
    section: LabelledSceneSection | MaskedImagesSection,
    statistics: BandStatistics,
    grid: SceneGrid | None = None,
) -> Source:
    """One image; without a grid it lies nowhere. Raises DataError naming the file."""
    with rasterio.Env(**GDAL_OPTIONS):
        bands = band_names(section.bands) if section.bands else usual_bands(path)
        scale = _scale(path, section)
        image = read_image(path, bands, min_side=1)
        hidden = hidden_of(image, bands, scale, path)
    values = landsat_numbers(image.numbers, hidden, scale)
    numbers = np.empty((len(OLI.bands), *hidden.shape), np.uint16)
    numbers[:] = np.rint(statistics.mean).astype(np.uint16)[:, None, None]
    for band, of_band in zip(bands, values, strict=True):
        if band != IGNORED:
            numbers[OLI.bands.index(band)] = of_band
    numbers[:, hidden] = 0
    grid = grid or SceneGrid(None, rasterio.Affine.identity(), *hidden.shape)
    missing = tuple(band for band in OLI.bands if band not in bands)
    return Source(
        path.stem,
        ImageReader(str(path), numbers),
        grid,
        WindowMetadata(place=grid.crs is not None),
        missing=missing,
    )


def _scale(path: Path, section: LabelledSceneSection | MaskedImagesSection) -> Scale:
    if section.scale is not None:
        return section.scale, section.offset
    with rasterio.open(path) as file:
        kind = file.dtypes[0]
    if (stated := stated_scale(path)) is not None:
        return stated
    if kind == "uint16":
        return COLLECTION2
    raise DataError(f"{path}: holds {kind} numbers of unknown scale; give scale and offset (reflectance = number * "
                    "scale + offset)")  # fmt: skip
