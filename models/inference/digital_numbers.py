"""Pixels as given to what the model was trained on: SR_B1..SR_B7 as Collection-2 Level-2 digital numbers, in squares.

What cannot be right is refused with the way to fix it, since the model would return numbers for anything.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.config import ModelConfig
from models.inference.patch_input import PatchInput
from transformation.transformer import MIN_RESIZED, squared
from utils.data_config import REFLECTANCE_OFFSET, REFLECTANCE_SCALE
from utils.errors import ConfigError, DataError
from utils.sensors import ETM, OLI, other_than_landsat, refusal, sensor_with_bands

CROPS = ("center", "resize")
LARGEST_NUMBER = 65535
NO_REFLECTANCE = -REFLECTANCE_OFFSET / REFLECTANCE_SCALE
"""The number of reflectance 0, about 7,273. Some band is brighter in the middle of any ground (7,492 or more in each of
119 real patches)."""
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
    order: list[int]
    """Where SR_B1..SR_B7 are among the bands given."""
    scale: tuple[float, float] | None
    crop: str
    config: ModelConfig

    @classmethod
    def of(
        cls,
        given: PatchInput,
        config: ModelConfig,
        bands: Sequence[str] | None,
        crop: str,
        scale: tuple[float, float] | None,
    ) -> "LandsatPatches":
        """Check everything that can be checked before anything is computed.

        Args:
            given: the patches.
            config: of the model.
            bands: names of the bands given; None: what the input says, else SR_B1..SR_B7.
            crop: "center" cuts the middle, as for BigEarthNet-Landsat; "resize" scales, as for EuroSAT-Landsat.
            scale: reflectance = value * scale[0] + scale[1]; None: digital numbers.

        Raises:
            DataError: for bands, sizes or numbers that the model does not know.
            ConfigError: for another crop, or a model of other bands.
        """
        if crop not in CROPS:
            raise ConfigError(f"crop: unknown {crop!r}; use {' or '.join(CROPS)}")
        if scale is not None:
            _require_scale(scale)
        if config.in_channels != len(OLI.bands):
            raise ConfigError(f"this model takes {config.in_channels} bands, not {', '.join(OLI.bands)}: use `encode`")
        if isinstance(given.patches, np.ndarray):
            shapes = [given.patches.shape[1:]]
        else:
            shapes = sorted({patch.shape for patch in given.patches})
        order = band_order(shapes[0], bands if bands is not None else given.bands)
        for shape in shapes:
            _require_size(shape, config.img_size, crop)
        patches = cls(given, order, scale, crop, config)
        if scale is None:
            patches._check_numbers()
        return patches

    def __len__(self) -> int:
        return len(self.given.patches)

    def read(self, part: slice) -> np.ndarray:
        """(n, 7, S, S) uint16 of some patches."""
        size, published = self.config.img_size, self.config.published_behaviour
        numbers = (self._numbers(patch) for patch in self.given.patches[part])
        return np.stack([squared(patch, size, self.crop, published) for patch in numbers])

    def _numbers(self, patch: np.ndarray) -> np.ndarray:
        """(C, H, W) as given to (7, H, W) uint16."""
        values = patch[self.order]
        nodata = self.given.nodata or None
        if values.dtype == np.uint16 and self.scale is None and nodata is None:
            return values
        hidden = np.isnan(values).any(axis=0) if values.dtype.kind == "f" else np.zeros(values.shape[1:], bool)
        if nodata is not None:
            hidden |= (values == nodata).any(axis=0)
        values = np.where(hidden, 0, values.astype(np.float64))
        if np.isinf(values).any():
            raise DataError("pixels: hold infinite values; set them to NaN where there is no number")
        if self.scale is not None:
            hidden |= (values == 0).all(axis=0)
            reflectance = values * self.scale[0] + self.scale[1]
            values = np.rint((reflectance - REFLECTANCE_OFFSET) / REFLECTANCE_SCALE).clip(1, LARGEST_NUMBER)
        if not (values.min() >= 0 and values.max() <= LARGEST_NUMBER):
            raise DataError(
                f"pixels: hold {values.min():g} to {values.max():g}, digital numbers are 0 to {LARGEST_NUMBER}: set "
                f"fill to 0 (floats: NaN); {SCALE_FIX}"
            )
        return np.where(hidden, 0, np.rint(values)).astype(np.uint16)

    def _check_numbers(self) -> None:
        """Refuse what is not digital numbers, by the type and by the darkest that ground can be."""
        chosen = np.unique(np.linspace(0, len(self) - 1, min(len(self), LOOKED_AT)).astype(int)) if len(self) else []
        visible = [values[:, self._visible(values)] for index in chosen for values in [self._band_values(index)]]
        values = np.concatenate(visible, axis=1) if visible else np.empty((len(OLI.bands), 0))
        if not values.size:
            return
        low, high = np.percentile(values, (1, 99))
        if values.dtype.kind == "f" and max(-low, high) <= LARGEST_REFLECTANCE:
            raise DataError(
                f"pixels: hold reflectance or normalised values ({low:.2f} to {high:.2f}), the model takes stored "
                "Collection-2 Level-2 numbers; give those, or scale=(1, 0) for reflectance"
            )
        if np.median(values, axis=1).max() < NO_REFLECTANCE:
            raise DataError(
                f"pixels: most numbers of every band are below {NO_REFLECTANCE:,.0f}, reflectance 0 in Collection-2 "
                f"Level-2: Level-1 or older numbers, or reflectance * 10,000; give Level-2 numbers; {SCALE_FIX}"
            )

    def _band_values(self, index: int) -> np.ndarray:
        """(7, h * w) as given."""
        return self.given.patches[index][self.order].reshape(len(OLI.bands), -1)

    def _visible(self, values: np.ndarray) -> np.ndarray:
        """(h * w,) bool of (7, h * w): neither fill nor without a number."""
        visible = (values != 0).any(axis=0)
        if values.dtype.kind == "f":
            visible &= np.isfinite(values).all(axis=0)
        if self.given.nodata is not None:
            visible &= (values != self.given.nodata).all(axis=0)
        return visible


def band_order(shape: tuple[int, ...], names: Sequence[str] | None) -> list[int]:
    """Where SR_B1..SR_B7 are among the bands of (C, H, W) patches.

    Args:
        shape: of a patch.
        names: of its bands, as Landsat 8 and 9 (SR_B1, B1) or STAC catalogues (coastal) name them; None where nothing
            is said, which is only right for the seven in their order.

    Raises:
        DataError: when one is missing or named twice, or their number is another.
    """
    count = shape[0]
    if names is None:
        if count == len(OLI.bands):
            return list(range(count))
        if shape[-1] == len(OLI.bands):
            raise DataError(f"pixels: patches of shape {shape} have their bands last; use np.moveaxis(pixels, -1, -3)")
        known = f" ({refusal(ETM)})" if count == len(ETM.bands) else ""
        raise DataError(
            f"pixels: {count} bands, the model takes {OLI.listed} of Landsat 8 or 9{known}; if they are among them, "
            f"name all: bands=({OLI.bands[0]!r}, …)"
        )
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise DataError(
            f"bands: {names!r} are no names; give one a band, such as {OLI.bands[0]!r} or {OLI.common[0]!r}"
        )
    if len(names) != count:
        raise DataError(f"bands: {len(names)} names for {count} bands; name every band, in the order given")
    found = [None if other_than_landsat(names) else OLI.band(name) for name in names]
    if missing := [band for band in OLI.bands if found.count(band) != 1]:
        problem = "named twice" if missing[0] in found else "missing"
        other = sensor_with_bands(names)
        differ = "other sensors' bands differ" if other is None else refusal(other)
        raise DataError(
            f"bands: {missing[0]} is {problem} among {', '.join(names)}; the model takes {OLI.listed} of Landsat 8 or "
            f"9 ({differ}); if you know which they are, name them: bands=…"
        )
    return [found.index(band) for band in OLI.bands]


def _require_scale(scale: tuple[float, float]) -> None:
    try:
        factor, offset = map(float, scale)
        usable = factor > 0 and math.isfinite(factor) and math.isfinite(offset)
    except (TypeError, ValueError):
        usable = False
    if not usable:
        raise ConfigError(f"scale: {scale!r} is no pair (A, B) of finite numbers with A above 0")


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
