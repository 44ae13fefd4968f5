"""Every constant of the patch simulator, with its unit: one dataclass and two tables of numbers (JSON)."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

SPECTRA_FILE = Path(__file__).with_name("spectra.json")
PLACES_FILE = Path(__file__).with_name("places.json")

CANVAS = 45
"""Side of a simulated BigEarthNet patch in memory, in pixels; files hold its centre."""
CENTRE = slice(2, 42)
"""Rows and columns of the canvas that a centre crop to 40 x 40 takes, whatever the file's size."""
EUROSAT_CANVAS = 24
"""The same for EuroSAT."""
CHUNK = 256
"""Patches drawn from one random stream: patch i depends on the seed and i alone, not on how many are asked for."""
SIZES = ((41, 41), (43, 43), (45, 45), (45, 44), (44, 44))
SIZE_SHARES = (0.41, 0.36, 0.15, 0.05, 0.03)
"""File sizes (height, width) and their shares, as among 120 real patches."""
STANDARD, REALISTIC = VARIANTS = ("standard", "realistic")
"""Of the pixels: those of the benches, which stay as they are, and ones nearer to real windows."""
EUROSAT_SIZES = ((22, 22), (21, 22), (22, 21), (21, 21))
EUROSAT_SIZE_SHARES = (0.7, 0.1, 0.1, 0.1)


@dataclass(frozen=True)
class GeneratorConstants:
    """The simulator's dials. Reflectance is unitless (0-1), time in weeks or hours, angles in degrees."""

    # -- where and when -------------------------------------------------------------------------------------------
    scene_seed: int = 20170613  # the satellite scenes are the same for every user seed: the world does not change
    cover_sharpness: float = 2.6  # exponent on a region's land-cover weights
    rare_cover: float = 0.3  # part of the plain weight that is added back, so that rare classes do not vanish
    scene_contrast: float = 0.1  # std of a scene's own log weights around its region's
    season_contrast: float = 0.6  # log-weight swing of herbaceous against woody cover between summer and winter scenes
    hour: tuple[float, float, float] = (9.505, 0.0329, -0.0679)  # UTC hour = a + b·lat + c·lon (fit on 119 real ids)
    hour_std: float = 0.075  # hours
    landsat_delay_std: float = 3.0  # weeks between the id's Sentinel-2 date and the Landsat pixels
    tile_side: float = 1200.0  # metres between neighbouring patches of a scene
    tile_count: int = 90  # patches along a scene's side
    five_digit_share: float = 0.24  # of the times 09:xx:xx, how many lose their leading zero
    # -- land cover -----------------------------------------------------------------------------------------------
    candidates: int = 6  # most classes laid out in one patch
    candidate_shares: tuple[float, ...] = (0.13, 0.15, 0.20, 0.30, 0.15, 0.07)  # of 1, 2, … candidates
    mapping_error: float = 0.3  # chance that an area's surface is not its mapped class but another of the scene's
    cover_grids: tuple[int, ...] = (3, 6, 12)  # grid cells across a patch, per octave of the cover fields
    cover_bias_std: float = 0.45  # std of a class's advantage over the others, in field standard deviations
    boundary_softness: float = 0.08  # softmax temperature between classes, in field standard deviations
    line_level: float = 1.4  # height of a linear class (road, river) on its centre line
    line_slope: float = 9.0  # its fall with the field's distance from zero
    eurosat_advantage: float = 1.5  # head start of a EuroSAT patch's own class, in field standard deviations
    visible_share: float = 0.03  # smaller shares of the central 40 x 40 pixels give no label
    parcels: int = 14  # field parcels laid over a patch
    parcel_stretch: float = 2.0  # typical length to width of a parcel
    # -- spectra --------------------------------------------------------------------------------------------------
    spectral_spread: float = 1.2  # scale on the calibrated between-patch standard deviations
    region_spread: float = 0.6  # part of that spread common to all classes of a patch (a variance share)
    greenness: tuple[float, ...] = (-0.008, -0.010, -0.004, -0.030, 0.090, -0.040, -0.045)  # reflectance per unit
    soil: tuple[float, ...] = (0.012, 0.017, 0.027, 0.038, 0.045, 0.055, 0.048)  # brightness of soil and structure
    moisture: tuple[float, ...] = (-0.002, -0.003, -0.005, -0.008, -0.012, -0.045, -0.040)
    patch_soil_std: float = 0.4  # units of `soil` shared by a patch, weighted by its openness
    patch_moisture_std: float = 0.6  # units of `moisture` shared by a patch, weighted by its openness
    dry_soil: float = 0.5  # units of `soil` that open land gains far south of `dry_latitude`
    dry_moisture: float = 0.6  # units of `moisture` that it loses there
    moisture_cells: int = 5  # grid cells across a patch of the moisture field
    grain_blur: tuple[float, float] = (0.8, 0.4)  # weight of a pixel's own grain and of its left and upper neighbours'
    texture_scale: float = 1.0  # on all grain, parcel and moisture amplitudes
    # -- season and light -----------------------------------------------------------------------------------------
    green_up: tuple[float, float] = (15.0, 0.25)  # week at 45° N, weeks later per degree north
    senescence: tuple[float, float] = (42.0, -0.20)  # the same for autumn
    season_width: float = 2.5  # weeks, width of both transitions
    dry_latitude: float = 41.0  # south of it, open vegetation is green in winter and dry in summer
    illumination_power: float = 0.20  # residual of (cos zenith / 0.75) left after atmospheric correction
    relief_octaves: tuple[tuple[int, float], ...] = ((4, 0.7), (9, 0.7))  # (cells, weight) of the slope field
    relief_shade: float = 0.10  # relative shading per unit of slope field, relief and tan(zenith)
    # -- atmosphere, snow, sensor ---------------------------------------------------------------------------------
    haze_path: tuple[float, ...] = (0.050, 0.045, 0.032, 0.024, 0.015, 0.006, 0.003)  # reflectance per unit
    haze_mean: float = 0.12  # mean (exponential) haze units of a patch
    haze_cells: int = 2  # grid cells across a patch of the haze field
    haze_field_std: float = 0.25  # its relative variation within a patch
    cloud_share: float = 0.03
    cloud_octaves: tuple[tuple[int, float], ...] = ((3, 2.5), (12, 0.7))  # (cells, weight); logit of the cloud's share
    cloud: tuple[float, ...] = (0.85, 0.87, 0.88, 0.90, 0.93, 0.80, 0.70)  # reflectance of thick cloud
    snow_share: float = 0.55  # of the scenes' patches north of `snow_latitude`
    snow_latitude: float = 55.0
    snow_latitude_width: float = 1.5  # degrees
    snow_level_std: float = 1.5  # std between patches of the logit of snow's share
    snow_octaves: tuple[tuple[int, float], ...] = ((4, 1.6), (16, 1.3))  # the same logit within a patch
    snow_in_woods: float = 0.25  # part of the snow that closed canopy (openness 0) shows
    snow: tuple[float, ...] = (0.98, 0.99, 0.94, 0.95, 0.85, 0.07, 0.07)  # reflectance of snow and ice
    snow_brightness: tuple[float, float] = (0.7, 1.3)  # range of the factor on `snow`
    noise: tuple[float, ...] = (0.0012, 0.0012, 0.0015, 0.0017, 0.0030, 0.0026, 0.0022)  # std, reflectance
    min_reflectance: float = 0.3  # floor of a class spectrum, as a share of its mean
    fill_share: float = 0.06  # patches with a wedge of fill
    fill_range: tuple[float, float] = (0.1, 0.9)  # distance of the wedge from the centre, in half sides
    # -- thermal band of EuroSAT ----------------------------------------------------------------------------------
    temperature: tuple[float, float, float] = (288.0, 11.0, -0.5)  # K: mean at 45° N, seasonal swing, per degree north
    temperature_cooling: float = -8.0  # K per unit of greenness and moisture field, roughly
    temperature_noise: float = 0.4  # K
    thermal_scale: float = 0.00341802  # ST_B10: K = DN · scale + offset (USGS Collection-2 product guide)
    thermal_offset: float = 149.0


CONSTANTS = GeneratorConstants()


@cache
def load_table(path: Path) -> dict[str, Any]:
    """A table of numbers beside this module, read once."""
    return json.loads(path.read_text(encoding="utf-8"))
