"""A simulated Landsat scene: land cover, pixels and sky of any size, stripe by stripe.

The land is that of the simulated patches: overlapping tiles, each one `draw_landscape` with the patches' constants
scaled to its size, so that textures and parcels have the same sizes on the ground. A pixel belongs to one tile; borders
between tiles are bent by a random field. All of it lies in one satellite scene of the simulator's world (one place, one
date), has no snow, and the truth is what covers the ground. Sky and footprint are known: thick and thin cloud, shadow,
and the fill around the tilted footprint, coded in QA_PIXEL. Another sensor, or another year, sees the same land on the
same day of the year (`datasets.simulator.instruments`); another year has another sky.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import expit

from datasets.simulator.constants import CANVAS, CONSTANTS, GeneratorConstants
from datasets.simulator.instruments import USUAL, Observation, as_seen_by, quality_of, scan_gaps
from datasets.simulator.landscape import draw_landscape
from datasets.simulator.overpasses import FIRST_DAY, Places, draw_classes, scenes
from utils.data_config import REFLECTANCE_OFFSET, REFLECTANCE_SCALE, BigEarthNetInfo
from utils.randomness import generator

STRIPE = 256
"""Rows simulated and written at a time: the height of a tile of the GeoTIFFs."""
NO_CLASS = 255
"""In the truth: fill, and land cover that is none of the 19 classes."""


@dataclass(frozen=True)
class SkyConstants:
    """Dials of a scene's tiles and sky; lengths in pixels of 30 m."""

    tile: int = 128  # side of the part of a tile that is kept where nothing bends
    margin: int = 24  # how far its border may be bent
    tile_batch: int = 4  # tiles drawn at once
    bend: tuple[tuple[int, float], ...] = ((96, 9.0), (24, 4.0))  # (knot spacing, standard deviation) of the bending
    cloud_octaves: tuple[tuple[int, float], ...] = ((256, 0.9), (64, 0.4), (16, 0.2))  # (knot spacing, weight)
    cloud_level: float = 1.15  # of that field, from which on there is cloud
    cloud_edge: float = 0.25  # field difference over which cloud thickens
    dilation: float = 0.15  # field difference below the level still flagged as "dilated cloud"
    cirrus_octaves: tuple[tuple[int, float], ...] = ((384, 1.0), (96, 0.3))
    cirrus_level: float = 1.6
    cirrus_opacity: float = 0.15  # share of the light that thin cloud adds
    shadow_shift: tuple[int, int] = (-22, -14)  # rows and columns from a cloud to its shadow: the sun is in the SE
    shadow_light: float = 0.45  # share of the light left in shadow
    tilt: float = 11.0  # degrees between the footprint and the grid's axes


SKY = SkyConstants()

QA_FILL, QA_CLEAR, QA_WATER, QA_CLOUD, QA_DILATED, QA_SHADOW, QA_CIRRUS = 1, 21824, 21952, 22280, 21826, 23888, 54596
"""QA_PIXEL values with their confidence bits, as in the Landsat 8-9 Collection 2 Level 2 Science Product Guide."""

CLASS_OF = np.full(len(BigEarthNetInfo.CORINE), NO_CLASS, np.uint8)
for _member, _index in BigEarthNetInfo.CORINE_TO_CLASS.items():
    CLASS_OF[_member] = _index
_WATER = [BigEarthNetInfo.CLASSES.index(name) for name in ("Inland waters", "Marine waters")]


class SceneStripe(NamedTuple):
    """Some whole rows of a scene of width w."""

    numbers: np.ndarray  # (bands of the sensor, h, w) uint16 Collection-2 numbers, 0 on fill
    qa: np.ndarray  # (h, w) uint16 QA_PIXEL
    truth: np.ndarray  # (h, w) uint8 index of the 19 classes; NO_CLASS elsewhere


class SmoothNoise:
    """A Gaussian random field on the plane of a scene, read off in rectangles.

    Args:
        shape: height and width of the scene.
        octaves: (knot spacing in pixels, weight); the field's standard deviation is about that of the weights.
        reach: how far outside the scene it is read, in pixels.
        random: drawn from once.
    """

    def __init__(
        self, shape: tuple[int, int], octaves: tuple[tuple[int, float], ...], reach: int, random: torch.Generator
    ) -> None:
        self.reach, self.knots = reach, []
        for spacing, weight in octaves:
            counts = [(side + 2 * reach) // spacing + 3 for side in shape]
            self.knots.append((spacing, weight * torch.randn(counts, generator=random).numpy()))

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """(height, width) float32."""
        field = np.zeros((height, width), np.float32)
        for spacing, knots in self.knots:
            rows, row_share = self._between(top, height, spacing)
            columns, column_share = self._between(left, width, spacing)
            upper, lower = knots[rows], knots[rows + 1]
            lines = upper + (lower - upper) * row_share[:, None]
            field += lines[:, columns] * (1 - column_share) + lines[:, columns + 1] * column_share
        return field

    def _between(self, first: int, count: int, spacing: int) -> tuple[np.ndarray, np.ndarray]:
        at = (np.arange(first, first + count) + self.reach) / spacing
        index = at.astype(int)
        share = (at - index).astype(np.float32)
        return index, share * share * (3 - 2 * share)


class SimulatedScene:
    """A scene as a function of its size and seed.

    Args:
        size: height and width in pixels.
        seed: same seed, same scene.
        device: where the land is drawn.
        constants, sky: the simulator's dials.
        observation: by which sensor it is seen, in which year.
    """

    land_role = "simulated scene land"
    """Of the random numbers that the land is drawn from."""

    def __init__(
        self,
        size: int,
        seed: int,
        device: torch.device | str = "cpu",
        constants: GeneratorConstants = CONSTANTS,
        sky: SkyConstants = SKY,
        observation: Observation = USUAL,
    ) -> None:
        self.size, self.seed, self.device, self.sky, self.observation = size, seed, device, sky, observation
        self.constants = scaled_constants(constants, sky.tile + 2 * sky.margin)
        random = generator(seed, "simulated scene")
        world = scenes(constants)
        self.scene = int(torch.randint(len(world.lat), (), generator=random))
        self.lat, self.lon = float(world.lat[self.scene]), float(world.lon[self.scene])
        self._day = int(world.day[self.scene])
        passed = timedelta(days=self._day, seconds=int(world.seconds[self.scene]))
        self.when = datetime(FIRST_DAY.year, FIRST_DAY.month, FIRST_DAY.day) + passed
        reach = 2 * max(map(abs, sky.shadow_shift)) + sky.tile
        fields = (sky.bend, sky.bend, sky.cloud_octaves, sky.cirrus_octaves)
        self._bends = [SmoothNoise((size, size), octaves, reach, random) for octaves in fields[:2]]
        if observation.year is not None:  # the year of the world itself has the sky that it has without being named
            self.when = self.when.replace(year=observation.year)
            random = generator(seed, "simulated scene sky", observation.year)
        self._cloud, self._cirrus = (SmoothNoise((size, size), octaves, reach, random) for octaves in fields[2:])
        self._rows: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def stripes(self) -> Iterator[SceneStripe]:
        """The scene from top to bottom, STRIPE rows at a time."""
        for top in range(0, self.size, STRIPE):
            height = min(STRIPE, self.size - top)
            reflectance, truth = self._land(top, height)
            yield self._observed(top, reflectance, truth)

    def _land(self, top: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        """Reflectance (7, height, size) float32 and class (height, size) without a sky."""
        tile, margin = self.sky.tile, self.sky.margin
        rows, columns = np.mgrid[top : top + height, 0 : self.size]
        # Bends are cut at the margin, beyond which a tile has no pixels.
        bends = [np.rint(b.read(top, 0, height, self.size)).astype(int).clip(-margin, margin) for b in self._bends]
        tile_row, tile_column = (rows + bends[0]) // tile, (columns + bends[1]) // tile
        last = -(-self.size // tile)
        tile_row, tile_column = tile_row.clip(0, last), tile_column.clip(0, last)
        inner_row, inner_column = rows - tile_row * tile + margin, columns - tile_column * tile + margin
        reflectance = np.empty((7, height, self.size), np.float32)
        truth = np.empty((height, self.size), np.uint8)
        needed = range(int(tile_row.min()), int(tile_row.max()) + 1)
        self._rows = {row: self._rows[row] if row in self._rows else self._tile_row(row, last) for row in needed}
        for row in needed:
            here = tile_row == row
            at = (tile_column[here], inner_row[here], inner_column[here])
            numbers, classes = self._rows[row]
            reflectance[:, here] = numbers[at[0], :, at[1], at[2]].T
            truth[here] = classes[at]
        return reflectance, truth

    def _tile_row(self, row: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """All tiles of a row: reflectance (t, 7, s, s) and class (t, s, s)."""
        reflectance, classes = [], []
        side = self.sky.tile + 2 * self.sky.margin
        for first in range(0, last + 1, self.sky.tile_batch):
            random = generator(self.seed, self.land_role, row, first, device=self.device)
            places = self._places(row, torch.arange(first, min(first + self.sky.tile_batch, last + 1)))
            candidates = self._candidates(places, random)
            land = draw_landscape(candidates, places, side, random, self.constants, weather=self._weather(row, first))
            best = land.cover.argmax(dim=1).cpu()
            corine = candidates.cpu().gather(1, best.flatten(1)).unflatten(1, (side, side))
            reflectance.append(land.reflectance.cpu().numpy())
            classes.append(CLASS_OF[corine.numpy()])
        return np.concatenate(reflectance), np.concatenate(classes)

    def _candidates(self, places: Places, random: torch.Generator) -> torch.Tensor:
        """(t, K) CORINE indices of the classes of some tiles."""
        return draw_classes(places, random, self.constants)

    def _weather(self, row: int, first: int) -> torch.Generator | None:
        """What a date brings to a batch of tiles; here it is drawn with the land."""
        return None

    def _places(self, row: int, columns: torch.Tensor) -> Places:
        """The middle of the tiles of a row, all at the same date and time."""
        n, tile = len(columns), self.sky.tile
        metres = 30.0 * ((columns + 0.5) * tile - self.size / 2)
        lat = self.lat - 30.0 * ((row + 0.5) * tile - self.size / 2) / 111_320.0
        lon = self.lon + metres / (111_320.0 * math.cos(math.radians(lat)))
        seconds = self.when.hour * 3600 + self.when.minute * 60 + self.when.second

        def same(value: float) -> torch.Tensor:
            return torch.full((n,), value, device=self.device)

        longitude = lon.float().to(self.device)
        return Places(same(self.scene), same(0), same(row), same(self._day), same(seconds), same(lat), longitude)

    def _observed(self, top: int, reflectance: np.ndarray, truth: np.ndarray) -> SceneStripe:
        """Sky, footprint and numbers, in place of `reflectance`."""
        sky, (height, width) = self.sky, truth.shape
        down, right = sky.shadow_shift
        cloud = self._cloud.read(top, 0, height, width) - sky.cloud_level
        shadow = self._cloud.read(top - down, -right, height, width) > sky.cloud_level
        cirrus = self._cirrus.read(top, 0, height, width) > sky.cirrus_level
        reflectance[:, shadow] *= sky.shadow_light
        bright = np.array(self.constants.cloud, np.float32)[:, None]
        reflectance[:, cirrus] += sky.cirrus_opacity * (bright - reflectance[:, cirrus])
        thickness = expit((cloud + sky.dilation / 2) * 8 / sky.cloud_edge)
        seen = thickness > 0.01
        reflectance[:, seen] += thickness[seen] * (bright - reflectance[:, seen])
        numbers = np.rint((reflectance - REFLECTANCE_OFFSET) / REFLECTANCE_SCALE).clip(1, 65535).astype(np.uint16)

        qa = np.where(np.isin(truth, _WATER), QA_WATER, QA_CLEAR).astype(np.uint16)
        for where, value in (
            (cirrus, QA_CIRRUS),
            (shadow, QA_SHADOW),
            (cloud > -sky.dilation, QA_DILATED),
            (cloud > 0, QA_CLOUD),
        ):
            qa[where] = value
        outside, unscanned = self._beyond(top, height)
        fill = outside | unscanned
        numbers[:, fill], qa[fill], truth[outside] = 0, QA_FILL, NO_CLASS
        sensor = self.observation.sensor
        return SceneStripe(as_seen_by(numbers, sensor), quality_of(qa, sensor), truth)

    def _beyond(self, top: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        """(height, size) bool: outside the tilted square that touches all four sides, and in a gap between scans."""
        angle = math.radians(self.sky.tilt)
        half = self.size / 2 / (math.cos(angle) + math.sin(angle))
        y = np.arange(top, top + height)[:, None] + 0.5 - self.size / 2
        x = np.arange(self.size)[None] + 0.5 - self.size / 2
        along = math.cos(angle) * x + math.sin(angle) * y
        across = math.cos(angle) * y - math.sin(angle) * x
        outside = (np.abs(along) > half) | (np.abs(across) > half)
        gaps = scan_gaps(along / half, across) if self.observation.slc_off else np.zeros_like(outside)
        return outside, gaps


def scaled_constants(constants: GeneratorConstants, side: int) -> GeneratorConstants:
    """The constants of a 45-pixel patch for a tile of `side` pixels: the same sizes on the ground, no snow or cloud."""
    factor = side / CANVAS
    return replace(
        constants,
        cover_grids=tuple(round(cells * factor) for cells in constants.cover_grids),
        parcels=round(constants.parcels * factor**2),
        relief_octaves=tuple((round(cells * factor), weight) for cells, weight in constants.relief_octaves),
        moisture_cells=round(constants.moisture_cells * factor),
        haze_cells=round(constants.haze_cells * factor),
        landsat_delay_std=0.0,
        snow_share=0.0,
        cloud_share=0.0,
    )
