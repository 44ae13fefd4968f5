"""Pixels as given to what the model takes: SR_B1..SR_B7, or some of them, as Collection-2 Level-2 numbers, in squares.

What cannot be right is refused with the way to fix it, since the model would return numbers for anything.
"""

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.config import ModelConfig
from models.inference.given_bands import STAND_IN, GivenBands
from models.inference.patch_input import PatchInput
from transformation.band_order import order_problem
from transformation.landsat_numbers import (
    COLLECTION2,
    LARGEST,
    NO_REFLECTANCE,
    hidden_values,
    implausible,
    landsat_numbers,
    without_number,
)
from transformation.transformer import MIN_RESIZED, squared
from utils.errors import ConfigError, DataError
from utils.sensors import OLI, Sensor

CROPS = ("center", "resize")
LARGEST_REFLECTANCE = 2.0
"""Floats whose middle 98 % lie between minus and plus this are reflectance."""
LOOKED_AT = 64
"""Patches, evenly spread, by whose numbers all are judged."""
SCENE_SIDES = 2
"""A patch of so many times the model's side or more is a scene."""

SCALE_FIX = "if you know how they are scaled, say so: scale=(A, B) for reflectance = value * A + B"


class LandsatPatches(NamedTuple):
    """Patches of some input as the model's squares, converted when they are asked for."""

    given: PatchInput
    bands: GivenBands
    scale: tuple[float, float] | None
    """As stated, or as the input itself says; None: digital numbers."""
    nodata: float | None
    """As stated; what the input itself says counts too."""
    crop: str | None
    config: ModelConfig

    @classmethod
    def of(
        cls,
        given: PatchInput,
        config: ModelConfig,
        bands: Sequence[str] | None,
        crop: str | None,
        scale: tuple[float, float] | None,
        nodata: float | None = None,
        sensor: str | None = None,
    ) -> "LandsatPatches":
        """Check everything that can be checked before anything is computed.

        Args:
            given: the patches.
            config: of the model.
            bands: names of the bands given; None: what the input says, else all of the sensor's, in order.
            crop: "center" cuts the middle, as for BigEarthNet-Landsat; "resize" scales, as for EuroSAT-Landsat. None:
                of any size, for `numbers`.
            scale: reflectance = value * scale[0] + scale[1]; None: what the input says, else digital numbers.
            nodata: the number that stands for fill, beside what the input says.
            sensor: "oli", "etm" or "tm"; None: what the input says, else OLI.

        Raises:
            DataError: for bands, sizes or numbers that the model does not know.
            ConfigError: for another crop or sensor, or a model of other bands.
        """
        if crop is not None:
            require_crop(crop)
        if scale is not None:
            require_scale(scale)
        scale = _agreed_scale(scale, given.scale)
        if config.in_channels != len(OLI.bands):
            raise ConfigError(f"this model takes {config.in_channels} bands, not {', '.join(OLI.bands)}: use `encode`")
        shapes = shapes_of(given)
        found = GivenBands.of(shapes[0], bands, given.bands, sensor, given.sensor)
        if crop is not None:
            require_sizes(shapes, config, crop)
        patches = cls(given, found, scale, require_nodata(nodata), crop, config)
        patches._check_numbers()
        return patches

    def __len__(self) -> int:
        return len(self.given.patches)

    @property
    def sensor(self) -> Sensor:
        """Whose numbers the squares hold."""
        return OLI

    @property
    def present(self) -> list[bool] | None:
        """Which of the bands are given; None: all."""
        return self.bands.present if self.bands.missing else None

    def alike(self, given: PatchInput) -> "LandsatPatches":
        """Other patches of the same kind, whose numbers are not judged anew."""
        return LandsatPatches(given, self.bands, self.scale, self.nodata, self.crop, self.config)

    def read(self, part: slice) -> np.ndarray:
        """(n, 7, S, S) uint16 of some patches; missing bands hold a number that means nothing."""
        size, published = self.config.img_size, self.config.published_behaviour
        assert self.crop is not None
        numbers = (self.numbers(patch) for patch in self.given.patches[part])
        return np.stack([squared(patch, size, self.crop, published) for patch in numbers])

    def numbers(self, patch: np.ndarray) -> np.ndarray:
        """(C, H, W) as given to (7, H, W) uint16, 0 where one of the given bands hides a pixel."""
        values = patch[self.bands.places]
        hidden = self._hidden(values, self.scale or COLLECTION2)
        if self.scale is None:
            self._require_numbers(values[:, ~hidden])
        if type(values) is np.ndarray and values.dtype == np.uint16 and self.scale is None:
            numbers = values  # a copy: places choose
        else:
            numbers = landsat_numbers(values, hidden, self.scale or COLLECTION2)
        numbers = self.bands.spread(numbers, STAND_IN)
        numbers[:, hidden] = 0
        return numbers

    def _hidden(self, values: np.ndarray, scale: tuple[float, float] | None) -> np.ndarray:
        """(H, W) bool; see `hidden_values`. Without a scale only what the input declares."""
        said = self.given.nodata
        nodata = [None] * len(values) if said is None else [said[place] for place in self.bands.places]
        if scale == COLLECTION2 and values.dtype.kind != "u":  # as stored, but in a type that holds other numbers too
            declared = self._hidden(values, None)
            if self.scale is not None:  # else refused as no digital number
                declared |= without_number(values, scale=scale).any(axis=0)
            with np.errstate(invalid="ignore"):
                return declared | (np.ma.getdata(values) == 0).any(axis=0)
        hidden = hidden_values(values, scale, nodata=nodata)
        return hidden | hidden_values(values, None, nodata=[self.nodata]) if self.nodata is not None else hidden

    def _require_numbers(self, values: np.ndarray) -> None:
        """Refuse visible numbers that no file of Collection 2 holds."""
        if values.size and not (values.min() >= 0 and values.max() <= LARGEST):
            raise DataError(
                f"pixels: hold {values.min():g} to {values.max():g}, digital numbers are 0 to {LARGEST}: set fill to 0 "
                f"(floats: NaN), or name it: nodata=…; {SCALE_FIX}"
            )

    def _check_numbers(self) -> None:
        """Refuse what is not digital numbers, or bands in another order, by some of the patches."""
        looked_at = [patch[self.bands.places] for patch in some_of(self.given)]
        if self.scale is not None and (found := implausible(self._visible(looked_at, None), self.scale)):
            raise DataError(
                f"pixels: scale={self.scale} gives reflectances of {found[0]:.3g} to {found[1]:.3g}, where 0 to 1 are "
                "expected; correct it"
            )
        values = self._visible(looked_at, self.scale or COLLECTION2)
        if not values.size:
            return
        if self.scale is None:
            self._check_stored(values)
        factor, offset = self.scale or COLLECTION2
        if what := order_problem(self.bands.spread(values.astype(np.float64) * factor + offset, np.nan)):
            raise DataError(f"pixels: {what}; name them in the order given: bands=({OLI.bands[0]!r}, …)")

    def _check_stored(self, values: np.ndarray) -> None:
        """Judge (k, n) numbers of visible pixels by what Collection-2 Level-2 stores."""
        low, high = np.percentile(values, (1, 99))
        if values.dtype.kind == "f" and max(-low, high) <= LARGEST_REFLECTANCE:
            raise DataError(
                f"pixels: hold reflectance or normalised values ({low:.2f} to {high:.2f}), the model takes stored "
                "Collection-2 Level-2 numbers; give those, or scale=(1, 0) for reflectance"
            )
        self._require_numbers(values)
        if np.median(values, axis=1).max() < NO_REFLECTANCE:
            raise DataError(
                f"pixels: most numbers of every band are below {NO_REFLECTANCE:,.0f}, reflectance 0 in Collection-2 "
                f"Level-2: Level-1 or older numbers, or reflectance * 10,000; give Level-2 numbers; {SCALE_FIX}"
            )

    def _visible(self, patches: list[np.ndarray], scale: tuple[float, float] | None) -> np.ndarray:
        """(k, n) values of the pixels of some patches (k, H, W) that are not hidden."""
        parts = [np.ma.getdata(values)[:, ~self._hidden(values, scale)] for values in patches]
        return np.concatenate(parts, axis=1) if parts else np.empty((len(self.bands.names), 0))

    def say_without_number(self, stacklevel: int) -> None:
        """Warn of pixels that hold no number in one of the bands, where nothing says what stands for fill."""
        said = self.given.nodata
        # xarray turns whatever fill value is stated into NaN.
        fills = [np.nan if said and said[place] is not None else self.nodata for place in self.bands.places]
        patches = (patch[self.bands.places] for patch in self.given.patches if patch.dtype.kind == "f")
        if lost := sum(int(without_number(patch, fills, self.scale).any(axis=0).sum()) for patch in patches):
            warnings.warn(
                f"{lost:,} pixels hold NaN or an infinite number, or one beyond all reflectance: taken for hidden (if "
                "NaN is meant, nodata=float('nan') says so)",
                stacklevel=stacklevel + 1,
            )


def require_crop(crop: str) -> None:
    """Raise ConfigError for a crop that there is none of."""
    if crop not in CROPS:
        raise ConfigError(f"crop: unknown {crop!r}; use {' or '.join(CROPS)}")


def shapes_of(given: PatchInput) -> list[tuple[int, ...]]:
    """The shapes (C, H, W) among the patches."""
    if isinstance(given.patches, np.ndarray):
        return [given.patches.shape[1:]]
    return sorted({patch.shape for patch in given.patches})


def some_of(given: PatchInput) -> list[np.ndarray]:
    """Patches, evenly spread, by whose numbers all are judged."""
    count = len(given.patches)
    chosen = np.unique(np.linspace(0, count - 1, min(count, LOOKED_AT)).astype(int)) if count else []
    return [given.patches[index] for index in chosen]


def _agreed_scale(stated: tuple[float, float] | None, said: tuple[float, float] | None) -> tuple[float, float] | None:
    """The scale that counts. Raises DataError where `scale` and the input itself differ."""
    if said is None:
        return stated
    if stated is not None and not np.allclose(stated, said, rtol=1e-4, atol=1e-9):
        raise DataError(f"scale: {stated}, but the pixels say {said}; leave scale out, or correct their attributes")
    return None if stated is None and np.allclose(said, COLLECTION2, rtol=1e-4) else said


def require_nodata(nodata: float | None) -> float | None:
    """The stated fill as a number. Raises ConfigError for anything else."""
    try:
        return None if nodata is None else float(nodata)
    except (TypeError, ValueError):
        raise ConfigError(f"nodata: {nodata!r} is no number") from None


def require_scale(scale: tuple[float, float]) -> None:
    """Raise ConfigError for what is no scale."""
    try:
        factor, offset = map(float, scale)
        usable = factor > 0 and math.isfinite(factor) and math.isfinite(offset)
    except (TypeError, ValueError):
        usable = False
    if not usable:
        raise ConfigError(f"scale: {scale!r} is no pair (A, B) of finite numbers with A above 0")


def require_sizes(shapes: list[tuple[int, ...]], config: ModelConfig, crop: str) -> None:
    """Raise DataError for patches too small for the model, or as large as scenes."""
    for shape in shapes:
        _require_size(shape, config.img_size, crop)


def _require_size(shape: tuple[int, ...], size: int, crop: str) -> None:
    height, width = shape[-2:]
    least = size if crop == "center" else MIN_RESIZED
    if min(height, width) < least:
        fix = 'use crop="resize"' if crop == "center" and min(height, width) >= MIN_RESIZED else "give larger ones"
        raise DataError(f"pixels: patches of {height} x {width} pixels, at least {least} are needed; {fix}")
    if max(height, width) >= SCENE_SIDES * size:
        raise DataError(
            f"pixels: {height} x {width} pixels are a scene, the model takes patches of about {size}: cut it into "
            "squares, or use embed_scene.py"
        )
