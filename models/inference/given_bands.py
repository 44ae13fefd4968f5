"""Which of the model's bands patches hold, and where: by the names that they or the user give, and by their sensor."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.config import ModelConfig
from utils.errors import ConfigError, DataError
from utils.sensors import (
    ETM,
    OLI,
    SENSORS,
    TAKEN,
    Sensor,
    misnamed,
    other_than_landsat,
    refusal,
    refusal_of_said,
    sensor_said,
)

STAND_IN = 10_000
"""In the pixels of a missing band, which influence nothing: any number but 0, which would hide them."""


class GivenBands(NamedTuple):
    """Those of SR_B1..SR_B7 of Landsat 8 and 9 that patches hold, in this order."""

    names: tuple[str, ...]
    places: list[int]
    """Of each among the bands of the patches."""

    @classmethod
    def of(
        cls,
        shape: tuple[int, ...],
        names: Sequence[str] | None,
        said: Sequence[str] | None,
        sensor: str | None,
        sensor_in_pixels: str | None,
    ) -> "GivenBands":
        """The bands of (C, H, W) patches.

        Args:
            shape: of a patch.
            names: of its bands in the user's words; None: those that the patches say.
            said: names that the patches say; None where they say nothing.
            sensor: as the user names it.
            sensor_in_pixels: as the patches name it.

        Raises:
            DataError: for bands without names that are not all of the sensor's, for names of none of its bands or of
                one twice, and where the user and the patches differ.
            ConfigError: for a sensor that the model does not take.
        """
        of_sensor = _agreed_sensor(sensor, sensor_in_pixels)
        stated = names if names is not None else said
        if stated is None:
            return cls._unnamed(shape, of_sensor or OLI)
        found = cls._named(shape[0], stated, of_sensor)
        if names is not None and said is not None:
            found._require_agreement(said, of_sensor or OLI)
        return found

    @classmethod
    def _unnamed(cls, shape: tuple[int, ...], sensor: Sensor) -> "GivenBands":
        count = shape[0]
        if count == len(sensor.bands):
            return cls._among(tuple(OLI.bands[OLI.common.index(name)] for name in sensor.common))
        if shape[-1] == len(sensor.bands):
            raise DataError(f"pixels: patches of shape {shape} have their bands last; use np.moveaxis(pixels, -1, -3)")
        six = f"; those of {ETM.title}: sensor={ETM.name!r}" if count == len(ETM.bands) else ""
        raise DataError(
            f"pixels: {count} bands, the model takes {sensor.listed} of {sensor.title}, or some of them by name; name "
            f"all: bands=({OLI.bands[0]!r}, …) or ({OLI.common[0]!r}, …){six}"
        )

    @classmethod
    def _named(cls, count: int, names: Sequence[str], sensor: Sensor | None) -> "GivenBands":
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise DataError(
                f"bands: {names!r} are no names; give one a band, such as {OLI.bands[0]!r} or {OLI.common[0]!r}"
            )
        if len(names) != count:
            raise DataError(f"bands: {len(names)} names for {count} bands; name every band, in the order given")
        listed = ", ".join(names)
        if other_than_landsat(names):
            raise DataError(
                f"bands: {listed} are Sentinel-2's, and other sensors' bands differ from Landsat's; if you know which "
                "they stand for, name them: bands=…"
            )
        if sensor is None and _of_either(names):
            raise DataError(
                f"bands: {listed} may be all of Landsat 7's or some of Landsat 8's; say which: sensor='etm' or "
                "sensor='oli'"
            )
        found = [(sensor or OLI).oli_band(name) for name in names]
        if twice := [band for band in OLI.bands if found.count(band) > 1]:
            raise DataError(f"bands: {twice[0]} is named twice among {listed}; correct the names")
        if not any(found):
            raise DataError(
                f"bands: none of {listed} is one of Landsat's; name one at least of {', '.join(OLI.bands)}, or "
                f"{', '.join(OLI.common)}"
            )
        return cls._among(found)

    @classmethod
    def _among(cls, found: Sequence[str | None]) -> "GivenBands":
        names = tuple(band for band in OLI.bands if band in found)
        return cls(names, [found.index(band) for band in names])

    def _require_agreement(self, said: Sequence[str], sensor: Sensor) -> None:
        """Refuse bands that are taken for another one than the patches themselves say."""
        for place, band in zip(self.places, self.names, strict=True):
            if misnamed(said, band, said[place], sensor):
                raise DataError(
                    f"bands: band {place + 1} is taken for {band} ({OLI.common[OLI.bands.index(band)]}), the pixels "
                    f"call it {said[place]}; leave bands out, or correct the names"
                )

    @property
    def present(self) -> list[bool]:
        """Of each of the model's bands, whether it is given."""
        return [band in self.names for band in OLI.bands]

    @property
    def missing(self) -> tuple[str, ...]:
        """The model's bands that are not given."""
        return tuple(band for band in OLI.bands if band not in self.names)

    def spread(self, values: np.ndarray, stand_in: float) -> np.ndarray:
        """(k, …) values of the given bands as those of all seven, with `stand_in` in the others."""
        if not self.missing:
            return values
        whole = np.full((len(OLI.bands), *values.shape[1:]), stand_in, values.dtype)
        whole[self.present] = values
        return whole

    def notice(self, config: ModelConfig) -> str | None:
        """What to say of weights that have not learned what to do without the missing bands."""
        if not self.missing or config.missing_bands != "mean":
            return None
        return (
            f"bands: {', '.join(self.missing)} missing: these weights were not trained with missing bands, those of "
            "the name xxs_bands were; what it costs is in docs/guide/sensors.md"
        )


def _agreed_sensor(asked: str | None, said: str | None) -> Sensor | None:
    """The sensor that counts; None where nobody names one."""
    if said and (why := refusal_of_said(said)) and sensor_said(said) not in TAKEN:
        raise DataError(f"pixels: say that they are of {said}: {why}")
    in_pixels = sensor_said(said) if said else None
    if asked is None:
        return in_pixels if isinstance(in_pixels, Sensor) else None
    found = SENSORS.get(asked.lower()) or sensor_said(asked)
    if not isinstance(found, Sensor) or found not in TAKEN:
        why = f": {refusal(found)}" if isinstance(found, Sensor) else ""
        raise ConfigError(f"sensor: {asked!r} is none that is taken{why}; use {', '.join(row.name for row in TAKEN)}")
    if isinstance(in_pixels, Sensor) and in_pixels.bands != found.bands:
        raise DataError(f"sensor: {asked}, but the pixels say {said}; leave sensor out, or correct what they say")
    return found


def _of_either(names: Sequence[str]) -> bool:
    """Whether numbers name the six bands of ETM+ and TM, which OLI has as well, at other wavelengths."""
    found = {OLI.band(name) for name in names if OLI.common_of(name) is None} - {None}
    return found == set(ETM.bands)
