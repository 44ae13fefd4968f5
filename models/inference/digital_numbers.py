"""Pixels as given to what the model was trained on: SR_B1..SR_B7 as Collection-2 Level-2 digital numbers, in squares.

What cannot be right is refused with the way to fix it, since the model would return numbers for anything.
"""

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.config import ModelConfig
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
from utils.sensors import ETM, OLI, misnamed, other_than_landsat, refusal, refusal_of_said, sensor_with_bands

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
    order: list[int]
    """Where SR_B1..SR_B7 are among the bands given."""
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
    ) -> "LandsatPatches":
        """Check everything that can be checked before anything is computed.

        Args:
            given: the patches.
            config: of the model.
            bands: names of the bands given; None: what the input says, else SR_B1..SR_B7.
            crop: "center" cuts the middle, as for BigEarthNet-Landsat; "resize" scales, as for EuroSAT-Landsat. None:
                of any size, for `numbers`.
            scale: reflectance = value * scale[0] + scale[1]; None: what the input says, else digital numbers.
            nodata: the number that stands for fill, beside what the input says.

        Raises:
            DataError: for bands, sizes or numbers that the model does not know.
            ConfigError: for another crop, or a model of other bands.
        """
        if crop not in (None, *CROPS):
            raise ConfigError(f"crop: unknown {crop!r}; use {' or '.join(CROPS)}")
        if scale is not None:
            _require_scale(scale)
        if given.sensor and (why := refusal_of_said(given.sensor)):
            raise DataError(f"pixels: say that they are of {given.sensor}: {why}")
        scale = _agreed_scale(scale, given.scale)
        if config.in_channels != len(OLI.bands):
            raise ConfigError(f"this model takes {config.in_channels} bands, not {', '.join(OLI.bands)}: use `encode`")
        if isinstance(given.patches, np.ndarray):
            shapes = [given.patches.shape[1:]]
        else:
            shapes = sorted({patch.shape for patch in given.patches})
        order = band_order(shapes[0], bands if bands is not None else given.bands)
        if bands is not None and given.bands is not None:
            _require_agreement(order, given.bands)
        if crop is not None:
            for shape in shapes:
                _require_size(shape, config.img_size, crop)
        patches = cls(given, order, scale, _require_nodata(nodata), crop, config)
        patches._check_numbers()
        return patches

    def __len__(self) -> int:
        return len(self.given.patches)

    def alike(self, given: PatchInput) -> "LandsatPatches":
        """Other patches of the same kind, whose numbers are not judged anew."""
        return LandsatPatches(given, self.order, self.scale, self.nodata, self.crop, self.config)

    def read(self, part: slice) -> np.ndarray:
        """(n, 7, S, S) uint16 of some patches."""
        size, published = self.config.img_size, self.config.published_behaviour
        assert self.crop is not None
        numbers = (self.numbers(patch) for patch in self.given.patches[part])
        return np.stack([squared(patch, size, self.crop, published) for patch in numbers])

    def numbers(self, patch: np.ndarray) -> np.ndarray:
        """(C, H, W) as given to (7, H, W) uint16, 0 where hidden."""
        values = patch[self.order]
        hidden = self._hidden(values, self.scale or COLLECTION2)
        if self.scale is None:
            self._require_numbers(values[:, ~hidden])
        if type(values) is np.ndarray and values.dtype == np.uint16 and self.scale is None:
            values[:, hidden] = 0  # a copy: `order` chooses
            return values
        return landsat_numbers(values, hidden, self.scale or COLLECTION2)

    def _hidden(self, values: np.ndarray, scale: tuple[float, float] | None) -> np.ndarray:
        """(H, W) bool; see `hidden_values`. Without a scale only what the input declares."""
        said = self.given.nodata
        nodata = [None] * len(values) if said is None else [said[place] for place in self.order]
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
        chosen = np.unique(np.linspace(0, len(self) - 1, min(len(self), LOOKED_AT)).astype(int)) if len(self) else []
        looked_at = [self.given.patches[index][self.order] for index in chosen]
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
        if what := order_problem(values.astype(np.float64) * factor + offset):
            raise DataError(f"pixels: {what}; name them in the order given: bands=({OLI.bands[0]!r}, …)")

    def _check_stored(self, values: np.ndarray) -> None:
        """Judge (7, n) numbers of visible pixels by what Collection-2 Level-2 stores."""
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
        """(7, n) values of the pixels of some patches (7, H, W) that are not hidden."""
        parts = [np.ma.getdata(values)[:, ~self._hidden(values, scale)] for values in patches]
        return np.concatenate(parts, axis=1) if parts else np.empty((len(OLI.bands), 0))

    def say_without_number(self, stacklevel: int) -> None:
        """Warn of pixels that hold no number in one of the seven bands, where nothing says what stands for fill."""
        said = self.given.nodata
        # xarray turns whatever fill value is stated into NaN.
        fills = [np.nan if said and said[place] is not None else self.nodata for place in self.order]
        patches = (patch[self.order] for patch in self.given.patches if patch.dtype.kind == "f")
        if lost := sum(int(without_number(patch, fills, self.scale).any(axis=0).sum()) for patch in patches):
            warnings.warn(
                f"{lost:,} pixels hold NaN or an infinite number, or one beyond all reflectance: taken for hidden (if "
                "NaN is meant, nodata=float('nan') says so)",
                stacklevel=stacklevel + 1,
            )


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


def _require_agreement(order: list[int], said: Sequence[str]) -> None:
    """Refuse `bands` that take a band for another one than the input itself says."""
    for place, band in zip(order, OLI.bands, strict=True):
        if misnamed(said, band, said[place]):
            raise DataError(
                f"bands: band {place + 1} is taken for {band} ({OLI.common[OLI.bands.index(band)]}), the pixels "
                f"call it {said[place]}; leave bands out, or correct the names"
            )


def _agreed_scale(stated: tuple[float, float] | None, said: tuple[float, float] | None) -> tuple[float, float] | None:
    """The scale that counts. Raises DataError where `scale` and the input itself differ."""
    if said is None:
        return stated
    if stated is not None and not np.allclose(stated, said, rtol=1e-4, atol=1e-9):
        raise DataError(f"scale: {stated}, but the pixels say {said}; leave scale out, or correct their attributes")
    return None if stated is None and np.allclose(said, COLLECTION2, rtol=1e-4) else said


def _require_nodata(nodata: float | None) -> float | None:
    try:
        return None if nodata is None else float(nodata)
    except (TypeError, ValueError):
        raise ConfigError(f"nodata: {nodata!r} is no number") from None


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
