"""The sensors: which bands, in which order, under which names, in which numbers; one row of `SENSORS` each.

A dataset or a scene has a sensor; names of bands are understood by `Sensor.band` alone, whichever way they come in:
a product's files, descriptions in a GeoTIFF, `data.bands` of a config, `bands=` of `MOEMAE.embed`, xarray.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

IGNORED = "other"
"""In place of a band that a model does not take."""

_NUMBERED = re.compile(r"(?:SR[ _]?)?B(?:AND)?[ _]?0*(?P<number>\d+)", re.IGNORECASE)
"""SR_B5, B5, B05, "Band 5", SR B5."""


class Sensor(NamedTuple):
    """One kind of imagery."""

    name: str
    """As data and records name it."""
    title: str
    """For people."""
    bands: tuple[str, ...]
    """Names of the bands in the product's files, in the order in which a model takes them."""
    common: tuple[str, ...]
    """What catalogues (STAC's eo:common_name) call the same bands."""
    scale: float
    """reflectance = number * scale + offset."""
    offset: float
    fill: int
    """The number that stands for no data."""
    products: tuple[str, ...]
    """How the ids of its products begin."""
    rgb: tuple[str, str, str] = ("red", "green", "blue")
    """Common names of a true-colour picture's bands."""
    spacing: float = 30.0
    """Side of a pixel, metres."""
    hiding_bits: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Bits of its quality band that hide the ground. Of QA_PIXEL: fill, dilated cloud, cirrus, cloud, cloud shadow
    (USGS Science Product Guide); those above (snow, clear, water, confidences) hide nothing."""

    def band(self, name: str) -> str | None:
        """The band that a name means, in any case and usual spelling; None for any other."""
        text = name.strip()
        if match := _NUMBERED.fullmatch(text):
            text = next((band for band in self.bands if _number(band) == int(match["number"])), "")
        else:
            text = _COMMON.get(text.lower(), text.lower())
            text = self.bands[self.common.index(text)] if text in self.common else name.strip().upper()
        return text if text in self.bands else None

    def index(self, name: str) -> int | None:
        """Place of the band that a name means, from 0; None for any other."""
        band = self.band(name)
        return None if band is None else self.bands.index(band)

    def common_name(self, band: str) -> str:
        """What catalogues call a band."""
        return self.common[self.bands.index(band)]

    @property
    def rgb_bands(self) -> tuple[str, ...]:
        """Names of the bands of a true-colour picture."""
        return tuple(self.bands[self.common.index(name)] for name in self.rgb)

    @property
    def listed(self) -> str:
        """The bands in short, for messages: "SR_B1..SR_B7", or all names where they are not one after another."""
        numbers = [_number(band) for band in self.bands]
        whole = numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        return f"{self.bands[0]}..{self.bands[-1]}" if whole else ", ".join(self.bands)


_SENTINEL2_ONLY = ("B8A", "B08A", "B11", "B12")


def _number(band: str) -> int:
    return int(re.sub(r"\D", "", band))


_COMMON = {
    "nir": "nir08", "swir1": "swir16", "swir2": "swir22", "coastal_aerosol": "coastal", "coastal aerosol": "coastal",
    "ultra blue": "coastal", "near infrared": "nir08", "b": "blue", "g": "green", "r": "red",
}  # fmt: skip
"""Other names of the bands, in lower case, to those of catalogues. Red edge is none of them."""

_OLI_COMMON = ("coastal", "blue", "green", "red", "nir08", "swir16", "swir22")

OLI = Sensor(
    "oli", "OLI of Landsat 8 and 9, Collection-2 Level-2", tuple(f"SR_B{number}" for number in range(1, 8)),
    _OLI_COMMON, 0.0000275, -0.2, 0, ("LC08", "LC09", "LO08", "LO09"),
)  # fmt: skip
"""USGS Landsat 8-9 Collection 2 Level 2 Science Product Guide: what the published datasets hold, and models take."""

_SIX = tuple(f"SR_B{number}" for number in (1, 2, 3, 4, 5, 7))

ETM = OLI._replace(
    name="etm", title="ETM+ of Landsat 7, Collection-2 Level-2", bands=_SIX, common=_OLI_COMMON[1:], products=("LE07",)
)
"""USGS Landsat 4-7 Collection 2 Level 2 Science Product Guide: no coastal band, and band 6 is thermal."""

TM = ETM._replace(name="tm", title="TM of Landsat 4 and 5, Collection-2 Level-2", products=("LT04", "LT05"))

HLS_L30 = Sensor(
    "hls_l30", "OLI in NASA's Harmonized Landsat Sentinel-2, L30", tuple(f"B{number:02d}" for number in range(1, 8)),
    _OLI_COMMON, 0.0001, 0.0, -9999, ("HLS.L30",), hiding_bits=(0, 1, 2, 3),
)  # fmt: skip
"""NASA HLS Product User Guide 2.0: bands 1 to 7 are OLI's own, not adjusted to Sentinel-2's. Bits of Fmask: cirrus
(reserved), cloud, beside cloud or shadow, cloud shadow; fill has all bits."""

SENSORS = {sensor.name: sensor for sensor in (OLI, ETM, TM, HLS_L30)}
"""Every sensor by name. Models take OLI, and scenes of HLS L30 turned into its numbers; why else, says `refusal`."""


def refusal(sensor: Sensor) -> str:
    """Why a model of OLI's bands does not take a sensor's, as the end of a sentence."""
    if lacking := [name for name in OLI.common if name not in sensor.common]:
        return (
            f"{sensor.title} has {len(sensor.bands)} bands (no {', '.join(lacking)}), the model takes the "
            f"{len(OLI.bands)} of {OLI.title}"
        )
    return (
        f"{sensor.title} is scaled otherwise (reflectance = number * {sensor.scale:g} + {sensor.offset:g}, fill "
        f"{sensor.fill}) than {OLI.title}, which the model takes"
    )


def sensor_of_product(text: str) -> Sensor | None:
    """The sensor of a product id, or of a file's name that begins with one."""
    return next((sensor for sensor in SENSORS.values() if text.upper().startswith(sensor.products)), None)


def other_than_landsat(names: Sequence[str]) -> bool:
    """Whether bands of Sentinel-2 are among these names, so that the numbers of the others mean other bands too."""
    return any(name.strip().upper() in _SENTINEL2_ONLY for name in names)


def sensor_with_bands(names: Sequence[str]) -> Sensor | None:
    """The sensor whose bands are among these names, where OLI's are not; None for any other names.

    Args:
        names: as catalogues name bands, so that a number is not taken for another sensor's.
    """
    present = {_COMMON.get(name.strip().lower(), name.strip().lower()) for name in names}
    if set(OLI.common) <= present:
        return None
    return next((sensor for sensor in SENSORS.values() if set(sensor.common) <= present), None)
