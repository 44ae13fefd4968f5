"""The sensors: which bands, in which order, under which names, in which numbers; one row of `SENSORS` each.

A dataset or a scene has a sensor; names of bands are understood by `Sensor.band` alone, whichever way they come in:
a product's files, descriptions in a GeoTIFF, `data.bands` of a config, `bands=` of `MOEMAE.embed`, xarray.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

IGNORED = "other"
"""In place of a band that a model does not take."""

_NUMBERED = re.compile(r"(?:.*_(?=SR))?(?:SR[ _]?)?B(?:AND)?[ _]?0*(?P<number>\d+)", re.IGNORECASE)
"""SR_B5, B5, B05, "Band 5", SR B5, sr_band5; SR_B5 also after a product's id or an image's number."""
_REDUCED = re.compile(r"_(?:mean|median|min|max|mode|first|last|mosaic|geomean|medoid|p\d{1,2})", re.IGNORECASE)
"""What a composite appends to the names of its bands (Earth Engine's reducers): still reflectance of the same band."""
_ENDING = re.compile(r"\.tiff?$|\(.*?\)", re.IGNORECASE)
"""Of a description that is a file's name, and what stands in brackets beside a name."""


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
        text = plain_name(name)
        if text.upper() in self.bands:  # B8A has no number of its own
            return text.upper()
        if text.lower() in self.common:
            return self.bands[self.common.index(text.lower())]
        if match := _NUMBERED.fullmatch(text):
            return next((band for band in self.bands if _number(band) == int(match["number"])), None)
        text = common_name(text)
        return self.bands[self.common.index(text)] if text in self.common else None

    def common_of(self, name: str) -> str | None:
        """The name of catalogues where a name is one of theirs, for one of this sensor's bands."""
        text = common_name(name)
        return text if text in self.common else None

    def oli_band(self, name: str) -> str | None:
        """OLI's band, as models take it, of the wavelengths that a name means here; None for any other."""
        index = self.index(name)
        return None if index is None else OLI.bands[OLI.common.index(self.common[index])]

    def index(self, name: str) -> int | None:
        """Place of the band that a name means, from 0; None for any other."""
        band = self.band(name)
        return None if band is None else self.bands.index(band)

    def only(self, common: Sequence[str]) -> "Sensor":
        """The same with some of its bands, by their common names."""
        kept = [(band, name) for band, name in zip(self.bands, self.common, strict=True) if name in common]
        return self._replace(bands=tuple(band for band, _ in kept), common=tuple(name for _, name in kept))

    @property
    def missing(self) -> tuple[str, ...]:
        """Common names of the bands that models take and the sensor does not have."""
        return tuple(name for name in _OLI_COMMON if name not in self.common)

    @property
    def shown(self) -> tuple[str, str, str]:
        """Common names of the bands that a picture shows as red, green and blue: those of true colour, or others."""
        if set(self.rgb) <= set(self.common):
            return self.rgb
        last = [*self.common[::-1][:3], *self.common[:1] * 2]
        return (last[0], last[1], last[2])

    @property
    def rgb_bands(self) -> tuple[str, ...]:
        """Names of the bands of a picture."""
        return tuple(self.bands[self.common.index(name)] for name in self.shown)

    @property
    def listed(self) -> str:
        """The bands in short, for messages: "SR_B1..SR_B7", or all names where they are not one after another."""
        numbers = [_number(band) for band in self.bands]
        whole = numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        return f"{self.bands[0]}..{self.bands[-1]}" if whole else ", ".join(self.bands)


def plain_name(name: str) -> str:
    """A band's name without what a composite, a file name or a remark in brackets adds to it."""
    text = _ENDING.sub("", name.strip()).strip()
    while match := re.search(rf"{_REDUCED.pattern}$", text, re.IGNORECASE):
        text = text[: match.start()]
    return text


def common_name(name: str) -> str:
    """A name as catalogues write it where it is another way to say one of theirs, else in lower case."""
    text = re.sub(r"[ _-]+", "", plain_name(name).lower())
    return _COMMON.get(text, text)


def _number(band: str) -> int:
    return int(re.sub(r"\D", "", band))


_COMMON = {
    "nir": "nir08", "nearinfrared": "nir08", "swir1": "swir16", "swir2": "swir22", "shortwaveinfrared1": "swir16",
    "shortwaveinfrared2": "swir22", "coastalaerosol": "coastal", "coastalblue": "coastal", "ultrablue": "coastal",
    "b": "blue", "g": "green", "r": "red",
}  # fmt: skip
"""Other names of the bands, in lower case and in one word, to those of catalogues. Red edge is none of them."""

_OLI_COMMON = ("coastal", "blue", "green", "red", "nir08", "swir16", "swir22")

OLI = Sensor(
    "oli", "OLI of Landsat 8 and 9, Collection-2 Level-2", tuple(f"SR_B{number}" for number in range(1, 8)),
    _OLI_COMMON, 0.0000275, -0.2, 0, ("LC08", "LC09", "LO08", "LO09"),
)  # fmt: skip
"""USGS Landsat 8-9 Collection 2 Level 2 Science Product Guide: what the published datasets hold, and models take."""

OLI_GROUPS = (4, 1, 2)
"""So many of its bands, in their order, are visible light, near infrared and shortwave infrared."""

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

MSI = Sensor(
    "msi", "MSI of Sentinel-2, Level-2A", (*(f"B{number:02d}" for number in range(1, 9)), "B8A", "B09", "B11", "B12"),
    ("coastal", "blue", "green", "red", "rededge071", "rededge075", "rededge078", "nir", "nir08", "nir09", "swir16",
     "swir22"),
    0.0001, -0.1, 0, (), hiding_bits=(),
)  # fmt: skip
"""ESA, Sentinel-2 Products Specification Document (S2-PDGS-TAS-DI-PSD): BOA_QUANTIFICATION_VALUE 10,000 and, since
processing baseline 04.00 (January 2022), BOA_ADD_OFFSET -1,000; earlier numbers have no offset. Bands of 10, 20 and
60 m are brought to 30 m. Only patches: no product of it is recognised as a scene."""

UNSTATED = OLI._replace(name="unstated", title="Landsat (which one is not stated)", products=())
"""Bands by their names, where nothing says which sensor has seen them."""

TAKEN = (OLI, ETM, TM)
"""Those whose numbers models take as they are; the coastal band of the others is missing to them."""

SENSORS = {sensor.name: sensor for sensor in (OLI, ETM, TM, HLS_L30, MSI)}
"""Every sensor by name. Models take OLI, some of them MSI's patches as well (`model.sensors`), and scenes of HLS L30
turned into OLI's numbers; why else, says `refusal`."""

LIKE_OLI = tuple(MSI.common.index(name) for name in OLI.common)
"""Places of those of MSI's bands that see about what OLI's seven see, in their order."""


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


_SENTINEL2_ONLY = {"b8a": "nir08", "b08a": "nir08", "b11": "swir16", "b12": "swir22"}
_SENTINEL2 = {f"b{zero}{number}": name for number, name in enumerate(OLI.common[:4], 1) for zero in ("", "0")}
_SENTINEL2 |= {**_SENTINEL2_ONLY, "b8": "nir", "b08": "nir"}
"""Bands of Sentinel-2 to what catalogues call those nearest to them. B5 to B7 are red edge, like no band of Landsat."""
_SENTINEL_WORD = re.compile(r"sentinel[-_ ]?2|(?<![a-z0-9])s2[abc](?![a-z0-9])|hls[._]?s30|\bmsi\b", re.IGNORECASE)
_LANDSAT_WORD = re.compile(r"landsat[-_ ]?(?P<number>\d)", re.IGNORECASE)


def other_than_landsat(names: Sequence[str]) -> bool:
    """Whether bands of Sentinel-2 are among these names, so that the numbers of the others mean other bands too."""
    return any(plain_name(name).lower() in _SENTINEL2_ONLY or "rededge" in common_name(name) for name in names)


def nearest_sentinel2(names: Sequence[str]) -> list[int] | None:
    """Which of Sentinel-2's bands lie nearest to OLI's seven, in their order, from 0; None where one is not there."""
    common = [_SENTINEL2.get(plain_name(name).lower(), common_name(name)) for name in names]
    return [common.index(band) for band in OLI.common] if set(OLI.common) <= set(common) else None


def misnamed(names: Sequence[str], band: str, name: str, sensor: Sensor = OLI) -> bool:
    """Whether a name says that it is another band than the one it is to be taken for.

    Args:
        names: of all bands beside it, which tell Sentinel-2's from Landsat's.
        band: one of OLI's.
        name: what is said of it; a name of no known band contradicts nothing.
        sensor: whose bands the names are, where they are not Sentinel-2's.
    """
    if other_than_landsat(names):
        known = common_name(_SENTINEL2.get(plain_name(name).lower(), name))
        numbered = _NUMBERED.fullmatch(plain_name(name)) is not None
        return known != OLI.common[OLI.bands.index(band)] if known in OLI.common else numbered or "rededge" in known
    return sensor.oli_band(name) not in (None, band)


def sensor_said(text: str) -> Sensor | str | None:
    """The sensor that a text such as landsat-8, LANDSAT_7 or Sentinel-2A names; the name of one that is not known here.

    None where it names none.
    """
    if _SENTINEL_WORD.search(text):
        return "Sentinel-2"
    if match := _LANDSAT_WORD.search(text):
        return {"4": TM, "5": TM, "7": ETM, "8": OLI, "9": OLI}.get(match["number"], f"Landsat {match['number']}")
    return None


def refusal_of_said(text: str) -> str | None:
    """Why a model of OLI's bands does not take the sensor that a text names; None where it names none or OLI."""
    said = sensor_said(text)
    if said is None or said is OLI:
        return None
    if isinstance(said, Sensor):
        return refusal(said)
    return f"{said} has bands at other wavelengths than {OLI.title}, which the model takes"


def sensor_with_bands(names: Sequence[str]) -> Sensor | None:
    """The sensor whose bands are among these names, where OLI's are not; None for any other names.

    Args:
        names: as catalogues name bands, so that a number is not taken for another sensor's.
    """
    present = {common_name(name) for name in names}
    if set(OLI.common) <= present:
        return None
    return next((sensor for sensor in SENSORS.values() if set(sensor.common) <= present), None)
