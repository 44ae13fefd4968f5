"""Patches of Sentinel-2 as given to what a model that has it takes: twelve bands as Level-2A numbers, in squares.

Landsat's are `models.inference.digital_numbers`, whose rules on sizes, scales and hidden pixels hold here as well.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.config import ModelConfig
from models.inference.digital_numbers import (
    LARGEST_REFLECTANCE,
    require_crop,
    require_nodata,
    require_scale,
    require_sizes,
    shapes_of,
    some_of,
)
from models.inference.patch_input import PatchInput
from transformation.landsat_numbers import LARGEST, hidden_values, implausible
from transformation.transformer import squared
from utils.errors import ConfigError, DataError
from utils.sensors import MSI, Sensor, other_than_landsat, sensor_said

STORED = (MSI.scale, MSI.offset)
NO_REFLECTANCE = -MSI.offset / MSI.scale
"""The number of reflectance 0: 1,000."""


def of_sentinel2(given: PatchInput, config: ModelConfig, bands: Sequence[str] | None, sensor: str | None) -> bool:
    """Whether patches are of Sentinel-2: by the sensor named, else by what they or the bands' names say.

    Without a second sensor in the weights only `sensor` asks for it; all else is refused as for Landsat.

    Raises:
        ConfigError: where it is asked for and the weights have no projection of its bands.
    """
    asked = sensor is not None and sensor.lower() == MSI.name
    if asked and MSI.name not in config.sensors:
        raise ConfigError(
            f"sensor: {sensor} needs weights with a projection of {MSI.title} (model.sensors: [oli, msi]); "
            "configs/continue_msi.yaml trains some"
        )
    if sensor is not None or MSI.name not in config.sensors:
        return asked
    names = bands if bands is not None else given.bands
    named = names is not None and not isinstance(names, str) and other_than_landsat(list(map(str, names)))
    return named or (given.sensor is not None and sensor_said(given.sensor) == "Sentinel-2")


class Sentinel2Patches(NamedTuple):
    """Patches of some input as the model's squares, converted when they are asked for; as `LandsatPatches`."""

    given: PatchInput
    order: list[int]
    """Where MSI's bands are among those given."""
    scale: tuple[float, float] | None
    nodata: float | None
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
        nodata: float | None,
    ) -> "Sentinel2Patches":
        """Check everything that can be checked before anything is computed; arguments as `LandsatPatches.of`.

        Raises:
            DataError: for bands, sizes or numbers that the model does not know.
            ConfigError: for another crop or scale.
        """
        require_crop(crop)
        if scale is not None:
            require_scale(scale)
        shapes = shapes_of(given)
        order = _order(shapes[0][0], bands if bands is not None else given.bands)
        require_sizes(shapes, config, crop)
        patches = cls(given, order, scale or given.scale, require_nodata(nodata), crop, config)
        patches._check_numbers()
        return patches

    def __len__(self) -> int:
        return len(self.given.patches)

    @property
    def sensor(self) -> Sensor:
        return MSI

    @property
    def present(self) -> None:
        """All bands are given."""

    def read(self, part: slice) -> np.ndarray:
        """(n, 12, S, S) uint16 of some patches, 0 where hidden."""
        size, published = self.config.img_size, self.config.published_behaviour
        return np.stack(
            [squared(self._numbers(patch), size, self.crop, published) for patch in self.given.patches[part]]
        )

    def _numbers(self, patch: np.ndarray) -> np.ndarray:
        """(C, H, W) as given to (12, H, W) uint16, 0 where hidden."""
        values = patch[self.order]
        hidden, factor = self._hidden(values), self.scale or STORED
        reflectance = np.where(hidden, 0.0, np.ma.getdata(values)).astype(np.float64) * factor[0] + factor[1]
        numbers = np.rint((reflectance - MSI.offset) / MSI.scale).clip(1, LARGEST).astype(np.uint16)
        numbers[:, hidden] = 0
        return numbers

    def _hidden(self, values: np.ndarray) -> np.ndarray:
        """(H, W) bool: masked, declared as nodata, no number, or the fill 0 of stored numbers, in any band."""
        said = self.given.nodata
        nodata = [None] * len(values) if said is None else [said[place] for place in self.order]
        hidden = hidden_values(values, None, nodata=nodata) | hidden_values(values, None, nodata=[self.nodata])
        return hidden if self.scale is not None else hidden | (np.ma.getdata(values) == MSI.fill).any(axis=0)

    def _check_numbers(self) -> None:
        """Refuse what is no reflectance of any ground, by some of the patches."""
        looked_at = (patch[self.order] for patch in some_of(self.given))
        parts = [np.ma.getdata(values)[:, ~self._hidden(values)] for values in looked_at]
        values = np.concatenate(parts, axis=1) if parts else np.empty((len(MSI.bands), 0))
        if not values.size:
            return
        if self.scale is None and values.dtype.kind == "f" and np.percentile(values, 99) <= LARGEST_REFLECTANCE:
            raise DataError(
                f"pixels: hold reflectance or normalised values up to {values.max():.2f}, the model takes stored "
                "Level-2A numbers of Sentinel-2; give those, or scale=(1, 0) for reflectance"
            )
        if found := implausible(values, self.scale or STORED):
            raise DataError(
                f"pixels: as numbers of Sentinel-2 they give reflectances of {found[0]:.3g} to {found[1]:.3g}, where 0 "
                "to 1 are expected; say how they are scaled: scale=(A, B) for reflectance = value * A + B"
            )
        if self.scale is None and np.median(values, axis=1).max() < NO_REFLECTANCE:
            raise DataError(
                f"pixels: most numbers of every band are below {NO_REFLECTANCE:,.0f}, reflectance 0 since processing "
                "baseline 04.00; for older numbers, or those without the offset, give scale=(0.0001, 0)"
            )


def _order(count: int, names: Sequence[str] | None) -> list[int]:
    """Where MSI's bands are among `count` bands, by names, or as they stand."""
    if names is None:
        if count != len(MSI.bands):
            raise DataError(
                f"pixels: {count} bands, {MSI.title} has {len(MSI.bands)}: {MSI.listed}; name yours: bands=…"
            )
        return list(range(count))
    if isinstance(names, str) or len(names) != count:
        raise DataError(f"bands: {names!r} are not {count} names; name every band, in the order given")
    found = [MSI.band(name) for name in names]
    if wrong := [band for band in MSI.bands if found.count(band) != 1]:
        problem = "named twice" if wrong[0] in found else "missing"
        raise DataError(
            f"bands: {wrong[0]} is {problem} among {', '.join(names)}; the model takes all twelve of {MSI.title}"
        )
    return [found.index(band) for band in MSI.bands]
