"""Simulated places seen on several dates, as the cells of `embed_series.py`: what the temporal module learns from.

A place is small, of one tile of land, without clouds, and lies in whole windows: which dates are missing is drawn where
the vectors are used.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from typing import NamedTuple

import numpy as np
import rasterio
import torch

from datasets.simulator.overpasses import Places
from datasets.simulator.phenology import NO_TYPE, TYPES
from datasets.simulator.scene import SKY
from datasets.simulator.scene_writer import PIXEL, grid_of
from datasets.simulator.series import DatedScene, History
from models.inference.embedder import Embedder
from models.moe_mae import MOEMAE
from scenes.embed import SceneEmbedder, WindowMetadata, tokens_for
from scenes.input.arrays import LoadedRows
from scenes.input.grids import SceneGrid
from scenes.input.reader import WithoutNumber
from scenes.windows import Frame, make_frame
from transformation.present_bands import PresentBands
from transformation.transformer import ZScoreNormalize
from utils.data_config import BigEarthNetInfo
from utils.metadata import AcquisitionTime
from utils.sensors import OLI

CELL = 20
"""Pixels along the side of a cell: half a parcel's."""
MIN_CLEAR = 0.5
BATCH = 64
GROWING = ("Non-irrigated arable land", "Permanently irrigated land", "Broad-leaved forest", "Coniferous forest",
           "Mixed forest")  # fmt: skip
"""CORINE classes of land that holds crops and woods only."""


class Place(NamedTuple):
    """The cells of one simulated place on T dates."""

    vectors: np.ndarray  # (cells, T, D) float32
    days: tuple[date, ...]
    growth: np.ndarray  # (cells,) uint8 growth type of most of the pixels that have one; NO_TYPE: none has
    share: np.ndarray  # (cells,) float32 share of all pixels that have it


class GreenScene(DatedScene):
    """A place with crops and woods only."""

    land_role = "simulated scene of crops and woods"

    def _candidates(self, places: Places, random: torch.Generator) -> torch.Tensor:
        classes = torch.tensor([BigEarthNetInfo.CORINE.index(name) for name in GROWING], device=self.device)
        return classes.expand(len(places.lat), -1)


def simulate_place(
    model: MOEMAE, seed: int, days: Sequence[date], windows: int, pool: str, crops_and_woods: bool
) -> Place:
    """Simulate a place and embed its cells.

    Args:
        model: the encoder.
        seed: of the place.
        days: any.
        windows: along a side of the place.
        pool: a key of `models.pooling.MAP_POOLINGS`.
        crops_and_woods: whether there is nothing else.
    """
    kind = GreenScene if crops_and_woods else DatedScene
    window = model.config.img_size
    size = windows * window
    sky = replace(SKY, tile=size, margin=0, bend=(), cloud_level=99.0, cirrus_level=99.0, tilt=0.0)
    vectors, types = [], np.empty(0)
    for day in days:
        scene = kind(size, seed, day, History(phenology=True), sky=sky)
        stripes = list(scene.stripes())
        numbers = np.concatenate([stripe.numbers for stripe in stripes], axis=1)
        frame = make_frame(_grid(scene, window), window, model.config.patch_size, window, CELL)
        vectors.append(_cells(model, numbers, frame, AcquisitionTime.at(scene.when), pool))
        if not len(types):
            assert scene.phenology is not None
            types = scene.phenology.types(0, np.concatenate([stripe.truth for stripe in stripes]))
    return Place(np.stack(vectors, axis=1), tuple(days), *most_frequent(types, CELL))


def _grid(scene: DatedScene, window: int) -> SceneGrid:
    """The scene's grid, moved by less than a window so that it begins with one."""
    crs, corner = grid_of(scene)
    side = PIXEL * window
    left, top = (np.floor(value / side) * side for value in (corner.c, corner.f))
    return SceneGrid(crs, rasterio.Affine(PIXEL, 0.0, left, 0.0, -PIXEL, top), scene.size, scene.size)


def _cells(model: MOEMAE, numbers: np.ndarray, frame: Frame, time: AcquisitionTime, pool: str) -> np.ndarray:
    """(cells, D) of a scene's (7, h, w) numbers."""
    reader = LoadedRows(numbers, 0, WithoutNumber((), numbers.shape[1:], None), PresentBands.of(OLI))
    normalize, known = ZScoreNormalize(BigEarthNetInfo.STATISTICS), WindowMetadata(time, place=True)
    embedder = SceneEmbedder(reader, frame, Embedder(model, tokens_for(pool)), normalize, known, pool, BATCH, MIN_CLEAR)
    cells = np.concatenate(list(embedder.rows(0, frame.blocks_down)))
    return cells.reshape(-1, cells.shape[-1])


def most_frequent(types: np.ndarray, cell: int) -> tuple[np.ndarray, np.ndarray]:
    """The most frequent growth type of every cell of a (h, w) raster, row by row, and its share of the pixels."""
    down, across = (side // cell for side in types.shape)
    cells = types.reshape(down, cell, across, cell).swapaxes(1, 2).reshape(down * across, -1)
    counts = np.stack([(cells == kind).mean(axis=1) for kind in range(len(TYPES))], axis=1)
    growth = np.where(counts.any(axis=1), counts.argmax(axis=1), NO_TYPE).astype(np.uint8)
    return growth, counts.max(axis=1).astype(np.float32)
