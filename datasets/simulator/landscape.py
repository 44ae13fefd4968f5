"""What a simulated patch looks like: cover fields, class spectra, season, light, haze, snow and sensor noise.

A pixel is a linear mixture, the usual model of remote sensing (Keshava & Mustard 2002, doi:10.1109/79.974727):
reflectance = Σ_k cover_k · spectrum_k + greenness · G + brightness · S + moisture · M + haze · P, where the four fields
vary within the patch with amplitudes of the classes present. Light and shade multiply it; snow and cloud cover it.
"""

import math
from functools import cache, reduce
from typing import NamedTuple

import torch
from torch import Tensor

from datasets.simulator.constants import CONSTANTS, SPECTRA_FILE, GeneratorConstants, load_table
from datasets.simulator.overpasses import Places, class_traits, iso_week, linear_classes
from utils.data_config import BigEarthNetInfo

SEASON, PARCEL_GREEN, PARCEL_SOIL, GRAIN_GREEN, GRAIN_BRIGHT, MOIST, RELIEF, OPENNESS = range(8)


class Landscape(NamedTuple):
    """n patches of h x h pixels with K candidate classes."""

    reflectance: Tensor  # (n, 7, h, h)
    cover: Tensor  # (n, K, h, h) shares of the candidate classes, summing to 1
    vigour: Tensor  # (n, h, h) greenness plus moisture field, what cools a surface
    snowy: Tensor  # (n,) bool
    cloudy: Tensor  # (n,) bool


def smooth_field(shape: tuple[int, ...], cells: int, side: int, random: torch.Generator) -> Tensor:
    """Gaussian random fields of unit variance, smooth on the scale of side / cells pixels: (*shape, side, side)."""
    device = random.device
    knots = torch.arange(-1, cells + 2, device=device, dtype=torch.float32)
    pixels = (torch.arange(side, device=device) + 0.5) * (cells / side)
    basis = torch.exp(-0.5 * ((pixels[:, None] - knots) / 0.6) ** 2)
    basis = basis / basis.square().sum(1, keepdim=True).sqrt()
    weights = torch.randn(*shape, len(knots), len(knots), generator=random, device=device)
    return basis @ weights @ basis.T


def octave_sum(n: int, octaves: tuple[tuple[int, float], ...], side: int, random: torch.Generator) -> Tensor:
    """Weighted sum of smooth fields, (cells, weight) an octave: (n, side, side)."""
    fields = [weight * smooth_field((n,), cells, side, random) for cells, weight in octaves]
    return reduce(torch.add, fields)


def draw_landscape(
    classes: Tensor,
    places: Places,
    side: int,
    random: torch.Generator,
    constants: GeneratorConstants = CONSTANTS,
    advantage: Tensor | None = None,
    weather: torch.Generator | None = None,
) -> Landscape:
    """Lay out, colour, light and observe n patches.

    Args:
        classes: (n, K) CORINE indices, -1 where there is none.
        places: where and when the patches are.
        side: pixels along a side.
        random: the stream to draw from; its device is the device of everything.
        advantage: (K,) added to the candidates' cover fields, in field standard deviations; none by default.
        weather: what is drawn anew on every date of a place (moisture, haze, sensor noise) comes from here, so that
            `random` can be the same on all of them; by default from `random`.
    """
    weather = random if weather is None else weather
    n, device = len(classes), random.device
    present = classes >= 0
    traits = class_traits().to(device)[classes.clamp(min=0)] * present[..., None]  # (n, K, 8)
    cover = _cover(classes, side, random, constants, advantage)
    flat_cover = cover.flatten(2)
    amplitude = (traits.transpose(1, 2) @ flat_cover).unflatten(2, (side, side))  # (n, 8, h, h)

    week = iso_week(places.day) + constants.landsat_delay_std * torch.randn(n, generator=weather, device=device)
    spectra = draw_spectra(classes, traits, places.lat, week, (random, weather), constants)
    fields = _fields(amplitude, side, (random, weather), constants)  # (n, 4, h, h)
    directions = torch.tensor([constants.greenness, constants.soil, constants.moisture, constants.haze_path])
    mixing = torch.cat([spectra, directions.to(device).expand(n, 4, 7)], dim=1)  # (n, K + 4, 7)
    image = (mixing.transpose(1, 2) @ torch.cat([flat_cover, fields.flatten(2)], dim=1)).unflatten(2, (side, side))
    image *= light(amplitude[:, RELIEF], places, week, side, random, constants)[:, None]

    snowy = _snowy(places.lat, week, random, constants)
    cloudy = torch.rand(n, generator=random, device=device) < constants.cloud_share
    _cover_with_snow(image, amplitude[:, OPENNESS], snowy, random, constants)
    _cover_with_cloud(image, cloudy, random, constants)
    noise = torch.randn(image.shape, generator=weather, device=device)
    image.addcmul_(noise, torch.tensor(constants.noise, device=device)[:, None, None])
    return Landscape(image, cover, fields[:, 0] + fields[:, 2], snowy, cloudy)


def _cover(
    classes: Tensor, side: int, random: torch.Generator, constants: GeneratorConstants, advantage: Tensor | None
) -> Tensor:
    """Shares of the candidate classes: a softmax over biased smooth fields; (n, K, side, side)."""
    n, k = classes.shape
    device = random.device
    octave = torch.rand(n, len(constants.cover_grids), generator=random, device=device) ** 2
    octave = octave / octave.square().sum(1, keepdim=True).sqrt()
    field = torch.zeros(n, k, side, side, device=device)
    for index, cells in enumerate(constants.cover_grids):
        field.addcmul_(octave[:, index, None, None, None], smooth_field((n, k), cells, side, random))
    bias = constants.cover_bias_std * torch.randn(n, k, generator=random, device=device)
    if advantage is not None:
        bias = bias + advantage
    linear = torch.isin(classes, linear_classes().to(device))
    # A line is a level set of a smooth field, the level taken at a pixel near the centre so that it crosses the patch.
    spot = torch.randint(side // 3, side - side // 3, (2,), generator=random, device=device)
    course = smooth_field((n,), constants.cover_grids[0], side, random)
    distance = (course - course[:, spot[0], spot[1], None, None]).abs()[:, None]
    line = constants.line_level - constants.line_slope * distance
    score = torch.where(linear[..., None, None], line, field + bias[..., None, None])
    score = score.masked_fill(classes[..., None, None] < 0, -math.inf)
    return torch.softmax(score / constants.boundary_softness, dim=1)


def draw_spectra(
    classes: Tensor,
    traits: Tensor,
    lat: Tensor,
    week: Tensor,
    streams: tuple[torch.Generator, torch.Generator],
    constants: GeneratorConstants,
) -> Tensor:
    """Spectra of the candidate classes on this day at this place: (n, K, 7) reflectance; streams: land, weather."""
    n, k = classes.shape
    random, weather = streams
    device = random.device
    mean, factor = (table.to(device)[classes.clamp(min=0)] for table in class_spectra())
    own = torch.randn(n, k, 7, generator=random, device=device)
    shared = torch.randn(n, 1, 7, generator=random, device=device)
    common = constants.region_spread
    draw = math.sqrt(common) * shared + math.sqrt(1 - common) * own
    spread = (factor @ draw[..., None])[..., 0]
    season = traits[..., SEASON] * season_state(lat, week, traits[..., OPENNESS], constants)
    spectra = mean + constants.spectral_spread * spread
    spectra += season[..., None] * torch.tensor(constants.greenness, device=device)
    dryness = torch.sigmoid((constants.dry_latitude - lat) / 1.5)[:, None]
    ground = traits[..., OPENNESS] * (traits[..., MOIST] > 0.05)  # water has an open surface but no soil
    soil = constants.patch_soil_std * torch.randn(n, 1, generator=random, device=device)
    moisture = constants.patch_moisture_std * torch.randn(n, 1, generator=weather, device=device)
    soil = (soil + constants.dry_soil * dryness) * ground
    moisture = (moisture - constants.dry_moisture * dryness) * ground
    spectra += soil[..., None] * torch.tensor(constants.soil, device=device)
    spectra += moisture[..., None] * torch.tensor(constants.moisture, device=device)
    return torch.maximum(spectra, constants.min_reflectance * mean)


def season_state(lat: Tensor, week: Tensor, openness: Tensor, constants: GeneratorConstants = CONSTANTS) -> Tensor:
    """Greenness of vegetation through the year, -1 (dormant) to 1 (full leaf); (n, K).

    A double logistic in the week (Beck et al. 2006, doi:10.1016/j.rse.2005.10.021), later and shorter northward; south
    of `dry_latitude` open vegetation follows the winter rain instead.
    """
    width = constants.season_width
    up = constants.green_up[0] + constants.green_up[1] * (lat - 45)
    down = constants.senescence[0] + constants.senescence[1] * (lat - 45)
    week = week % 52
    temperate = 2 * torch.sigmoid((week - up) / width) * torch.sigmoid((down - week) / width) - 1
    dry = torch.cos(2 * math.pi * (week - 10) / 52)
    share = torch.sigmoid((constants.dry_latitude - lat) / 0.7)[:, None] * openness
    return (1 - share) * temperate[:, None] + share * dry[:, None]


def _fields(
    amplitude: Tensor, side: int, streams: tuple[torch.Generator, torch.Generator], constants: GeneratorConstants
) -> Tensor:
    """Greenness, brightness, moisture and haze fields: (n, 4, side, side); streams: land, weather."""
    random, weather = streams
    n, device = len(amplitude), random.device
    green, bright = parcel_fields(n, 2, side, random, constants).unbind(1)
    grain = torch.randn(n, 2, side, side, generator=random, device=device)
    own, neighbour = constants.grain_blur  # the optics blur the grain
    grain = own * grain + neighbour * (grain.roll(1, dims=-1) + grain.roll(1, dims=-2))
    moist = smooth_field((n,), constants.moisture_cells, side, random)
    haze = -constants.haze_mean * torch.log(torch.rand(n, 1, 1, generator=weather, device=device).clamp(min=1e-6))
    haze = haze * (1 + constants.haze_field_std * smooth_field((n,), constants.haze_cells, side, weather)).clamp(min=0)
    scale = constants.texture_scale
    return torch.stack(
        [
            scale * (amplitude[:, PARCEL_GREEN] * green + amplitude[:, GRAIN_GREEN] * grain[:, 0]),
            scale * (amplitude[:, PARCEL_SOIL] * bright + amplitude[:, GRAIN_BRIGHT] * grain[:, 1]),
            scale * amplitude[:, MOIST] * moist,
            haze,
        ],
        dim=1,
    )


def parcel_fields(n: int, values: int, side: int, random: torch.Generator, constants: GeneratorConstants) -> Tensor:
    """Standard normal values of field parcels, such as greenness and soil brightness: (n, values, side, side).

    Parcels are the Voronoi cells of random seeds in a stretched, rotated plane: long fields with a common direction.
    """
    device = random.device
    axis = torch.arange(side, device=device, dtype=torch.float32) / side - 0.5
    pixels = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1).reshape(-1, 2)
    angle = math.pi * torch.rand(n, generator=random, device=device)
    stretch = 1 + (constants.parcel_stretch - 1) * 2 * torch.rand(n, generator=random, device=device)
    along = torch.stack([torch.cos(angle), torch.sin(angle)], dim=-1) / stretch[:, None]
    across = torch.stack([-torch.sin(angle), torch.cos(angle)], dim=-1)
    frame = torch.stack([along, across], dim=-1)  # (n, 2, 2)
    seeds = (torch.rand(n, constants.parcels, 2, generator=random, device=device) - 0.5) @ frame
    # The nearest seed s of a pixel x has the largest x·s - |s|²/2: one product with a column of ones appended to x.
    pixels = torch.cat([pixels @ frame, torch.ones(n, len(pixels), 1, device=device)], dim=-1)
    seeds = torch.cat([seeds, -0.5 * seeds.square().sum(-1, keepdim=True)], dim=-1)
    cell = (pixels @ seeds.transpose(1, 2)).argmax(-1)  # (n, side²)
    value = torch.randn(n, values, constants.parcels, generator=random, device=device)
    return value.gather(2, cell[:, None].expand(n, values, -1)).unflatten(2, (side, side))


def sun_cosine(places: Places, week: Tensor) -> Tensor:
    """Cosine of the solar zenith angle at the hour of the id; (n,).

    Declination and hour angle after Spencer (1971) to first order: δ = -23.44° cos(2π (day + 10) / 365),
    cos θ = sin φ sin δ + cos φ cos δ cos h, h = 15° (UTC + longitude / 15 - 12).
    """
    day = 7 * (week - 0.5)
    declination = math.radians(-23.44) * torch.cos(2 * math.pi * (day + 10) / 365)
    lat = torch.deg2rad(places.lat)
    hour_angle = torch.deg2rad(15 * (places.seconds / 3600 - 12) + places.lon)
    return torch.sin(lat) * torch.sin(declination) + torch.cos(lat) * torch.cos(declination) * torch.cos(hour_angle)


def light(
    relief: Tensor, places: Places, week: Tensor, side: int, random: torch.Generator, constants: GeneratorConstants
) -> Tensor:
    """Factor on reflectance: what correction leaves of the sun's height, and slopes facing it or not; (n, h, h)."""
    cosine = sun_cosine(places, week).clamp(0.08, 1.0)[:, None, None]
    tangent = torch.sqrt(1 - cosine**2) / cosine
    slope = octave_sum(len(relief), constants.relief_octaves, side, random)
    shade = (constants.relief_shade * tangent.clamp(max=4) * relief * slope).clamp(-0.6, 0.6)
    return (cosine / 0.75) ** constants.illumination_power * (1 + shade)


def _snowy(lat: Tensor, week: Tensor, random: torch.Generator, constants: GeneratorConstants) -> Tensor:
    """Which patches lie under snow or ice: the north, less so in high summer."""
    north = torch.sigmoid((lat - constants.snow_latitude) / constants.snow_latitude_width)
    winter = 0.65 - 0.35 * torch.cos(2 * math.pi * (week - 28) / 52)
    return torch.rand(len(lat), generator=random, device=lat.device) < constants.snow_share * north * winter


def snow_shares(openness: Tensor, side: int, random: torch.Generator, constants: GeneratorConstants) -> Tensor:
    """Of the pixels of n patches with snow, (n, h, h): open ground has more than woods."""
    n, device = len(openness), random.device
    level = constants.snow_level_std * torch.randn(n, 1, 1, generator=random, device=device)
    share = torch.sigmoid(level + octave_sum(n, constants.snow_octaves, side, random))
    return share * (constants.snow_in_woods + (1 - constants.snow_in_woods) * openness)


def cloud_shares(n: int, side: int, random: torch.Generator, constants: GeneratorConstants) -> Tensor:
    """Of the pixels of n patches with thick cloud, (n, h, h)."""
    return torch.sigmoid(octave_sum(n, constants.cloud_octaves, side, random))


def blend(image: Tensor, rows: Tensor, colour: Tensor, share: Tensor) -> None:
    """Cover a share of the pixels, (n, h, h), of some patches with a colour, in place."""
    image[rows] = torch.lerp(image[rows], colour.expand_as(image[rows]), share[:, None])


def _cover_with_snow(
    image: Tensor, openness: Tensor, snowy: Tensor, random: torch.Generator, constants: GeneratorConstants
) -> None:
    """Blend snow into the patches that have it, in place."""
    rows = snowy.nonzero()[:, 0]
    low, high = constants.snow_brightness
    share = snow_shares(openness[rows], image.shape[-1], random, constants)
    bright = low + (high - low) * torch.rand(len(rows), 1, 1, 1, generator=random, device=image.device)
    blend(image, rows, bright * torch.tensor(constants.snow, device=image.device)[:, None, None], share)


def _cover_with_cloud(image: Tensor, cloudy: Tensor, random: torch.Generator, constants: GeneratorConstants) -> None:
    """Blend thick cloud into the patches that have it, in place."""
    rows = cloudy.nonzero()[:, 0]
    share = cloud_shares(len(rows), image.shape[-1], random, constants)
    blend(image, rows, torch.tensor(constants.cloud, device=image.device)[:, None, None], share)


@cache
def class_spectra() -> tuple[Tensor, Tensor]:
    """Mean spectra (43, 7) and Cholesky factors (43, 7, 7) of their between-patch covariances, in reflectance."""
    table = load_table(SPECTRA_FILE)["classes"]
    mean = torch.tensor([table[name]["mean"] for name in BigEarthNetInfo.CORINE])
    covariance = torch.tensor([table[name]["covariance"] for name in BigEarthNetInfo.CORINE], dtype=torch.float64)
    # The numbers are rounded: a hair on the diagonal keeps every matrix positive definite.
    return mean, torch.linalg.cholesky(covariance + 1e-8 * torch.eye(7, dtype=torch.float64)).float()
