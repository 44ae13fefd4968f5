"""Pixels of the variant `realistic`: the land of the standard patches, in numbers nearer to those of real windows.

Place, date, land cover, labels, fill and sizes are those of the standard patch of the same seed. What differs, since
real windows differ from standard patches there:

- spectra vary between patches, and within them at a coarse and a fine scale, with the covariances of four surfaces in
  Landsat windows of four places (`surfaces.json`). They are those of log(reflectance + `OFFSET`), so that bright spots
  are more frequent than dark ones, and of full rank: bands are no mixture of four directions;
- detail is blurred by the optics; how strong it is differs between patches, and within them;
- what correction leaves of the air is a path radiance of either sign that falls with the wavelength, and light of the
  neighbourhood (adjacency, Tanré et al. 1981, doi:10.1364/AO.20.003676);
- snow, cloud and glint reach the end of the 16-bit range, where the published patches end.

Class means and seasons are the standard ones: windows of one date each cannot tell better.
"""

import math
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, pad

from datasets.simulator.constants import PLACES_FILE, GeneratorConstants, load_table
from datasets.simulator.landscape import (
    OPENNESS,
    RELIEF,
    Landscape,
    blend,
    cloud_shares,
    draw_spectra,
    light,
    parcel_fields,
    smooth_field,
    snow_shares,
)
from datasets.simulator.overpasses import Places, class_traits, iso_week, scenes
from utils.data_config import REFLECTANCE_OFFSET, REFLECTANCE_SCALE, BigEarthNetInfo
from utils.randomness import generator

SURFACES_FILE = Path(__file__).with_name("surfaces.json")
SURFACES = ("water", "woods", "open", "bare")
SURFACE_OF_KIND = {
    **dict.fromkeys(("water", "river", "sea"), "water"),
    **dict.fromkeys(("broadleaf", "conifer", "mixedwood"), "woods"),
    **dict.fromkeys(("urban", "industry", "road", "bare", "rock", "saltpan"), "bare"),
}
"""Kind of `places.json` to surface; all other kinds are open vegetation."""
OFFSET = 0.02
"""Reflectance added before the logarithm: dark pixels are noisy, and corrected ones may be below 0."""
DARKEST = 0.004
"""Of reflectance + `OFFSET`."""
LAST_NUMBER = 65454
"""The largest number in BigEarthNet-Landsat."""
WAVELENGTHS = (0.443, 0.482, 0.561, 0.655, 0.865, 1.609, 2.201)
"""Centres of OLI's bands, micrometres."""


@dataclass(frozen=True)
class Look:
    """The variant's dials. Reflectance is unitless; `between`, `coarse` and `fine` are factors on measured deviations.

    Those of texture were searched for on windows of four places, by quantiles of autocorrelation, correlation of bands,
    skewness and spread; the others are assumed.
    """

    # -- between patches ------------------------------------------------------------------------------------------
    between: float = 1.0
    scene_share: float = 0.5  # part of that variance which all patches of a scene share
    # -- within patches -------------------------------------------------------------------------------------------
    coarse: float = 1.4
    fine: float = 2.5  # before the blur
    parcel_share: float = 0.49  # part of the coarse variance in parcels with sharp edges
    cells: tuple[tuple[int, float], ...] = ((4, 0.33), (9, 0.39), (18, 0.28))  # cells across a patch, share of the rest
    strength_std: float = 0.3  # std of the log of the texture's strength between patches
    concentration: float = 0.25  # power by which a patch's minor directions are weaker than those of all patches pooled
    unevenness: float = 0.45  # the same within a patch
    unevenness_cells: int = 6
    blur: float = 0.54  # standard deviation of the optics, pixels
    noise: float = 0.09  # factor on the standard sensor noise
    # -- air ------------------------------------------------------------------------------------------------------
    path: float = 0.004  # std of the residual path radiance at 482 nm, reflectance
    path_exponent: float = 2.0  # it falls with this power of the wavelength
    path_scene_share: float = 0.7  # part of its variance which all patches of a scene share
    adjacency: float = 0.065  # mean (exponential) share of light from the neighbourhood at 482 nm
    neighbourhood: int = 15  # side, pixels
    # -- bright ends of the range ---------------------------------------------------------------------------------
    glint_share: float = 0.15  # patches whose water mirrors the sun
    glint: float = 0.03  # mean (exponential) reflectance of that
    waves: float = 0.3  # std of its log within a patch
    snow_scatter: float = 0.25  # std of the log of snow's brightness between patches
    cloud: tuple[float, ...] = (0.75, 0.75, 0.74, 0.76, 0.80, 0.52, 0.38)  # reflectance of thick cloud
    cloud_scatter: float = 0.25  # std of the log of its brightness, between patches and within them


LOOK = Look()


def repainted(
    land: Landscape,
    classes: Tensor,
    places: Places,
    random: torch.Generator,
    constants: GeneratorConstants,
    look: Look = LOOK,
) -> Landscape:
    """The same landscape with other reflectances.

    Args:
        land: a standard landscape; its cover, snow and cloud are kept.
        classes: (n, K) CORINE indices of its surfaces, -1 where there is none.
        places: where and when it is.
        random: a stream of its own.
        constants: the standard dials.
        look: those of this variant.
    """
    n, side, device = len(classes), land.cover.shape[-1], random.device
    known = classes.clamp(min=0)
    traits = class_traits().to(device)[known] * (classes >= 0)[..., None]  # (n, K, 8)
    amplitude = (traits.transpose(1, 2) @ land.cover.flatten(2)).unflatten(2, (side, side))
    week = iso_week(places.day) + constants.landsat_delay_std * torch.randn(n, generator=random, device=device)
    surface = surface_of_class().to(device)[known]  # (n, K)
    surfaces = land.cover.new_zeros(n, len(SURFACES), side, side)
    surfaces.scatter_add_(1, surface[..., None, None].expand_as(land.cover), land.cover)

    # The standard spectra without their own spread between patches.
    calm = replace(constants, spectral_spread=0.0, patch_soil_std=0.0, patch_moisture_std=0.0)
    spectra = draw_spectra(classes, traits, places.lat, week, (random, random), calm)
    spectra = _scaled(spectra, _between(surface, places, random, constants, look))
    image = (spectra.transpose(1, 2) @ land.cover.flatten(2)).unflatten(2, (side, side))
    image = _scaled(image, _texture(surfaces, random, constants, look))
    image *= light(amplitude[:, RELIEF], places, week, side, random, constants)[:, None]
    _add_glint(image, surfaces[:, 0], random, look)
    _cover_with_snow(image, amplitude[:, OPENNESS], land.snowy, random, constants, look)
    _cover_with_cloud(image, land.cloudy, random, constants, look)
    image = _through_air(_blurred(image, look.blur), places, random, constants, look)
    noise = torch.randn(image.shape, generator=random, device=device)
    image.addcmul_(noise, look.noise * torch.tensor(constants.noise, device=device)[:, None, None])
    return land._replace(reflectance=image.clamp_(max=LAST_NUMBER * REFLECTANCE_SCALE + REFLECTANCE_OFFSET))


@cache
def surface_of_class() -> Tensor:
    """(43,) index in `SURFACES` of every CORINE class."""
    kinds = load_table(PLACES_FILE)["kind_of_class"]
    return torch.tensor([SURFACES.index(SURFACE_OF_KIND.get(kinds[name], "open")) for name in BigEarthNetInfo.CORINE])


@cache
def surface_factors(scale: str, concentration: float = 0.0) -> Tensor:
    """(4, 7, 7) principal directions of the surfaces' covariances, in columns, each as long as its standard deviation.

    Args:
        scale: "between" patches, "coarse" or "fine" within them.
        concentration: minor variances times so high a power of their ratio to the largest.
    """
    table = load_table(SURFACES_FILE)["surfaces"]
    covariance = torch.tensor([table[name][scale] for name in SURFACES], dtype=torch.float64)
    variance, directions = torch.linalg.eigh(covariance)
    # LAPACKs differ in the sign of a direction.
    sign = directions.gather(1, directions.abs().argmax(1, keepdim=True)).sign()
    variance = variance.clamp(min=0)
    variance = variance * (variance / variance[:, -1:]) ** concentration
    return (sign * directions * variance.sqrt()[:, None]).float()


def _scaled(reflectance: Tensor, deviation: Tensor) -> Tensor:
    """Reflectance that deviates by so much of log(reflectance + `OFFSET`)."""
    return (reflectance + OFFSET).clamp(min=DARKEST) * torch.exp(deviation) - OFFSET


def _between(
    surface: Tensor, places: Places, random: torch.Generator, constants: GeneratorConstants, look: Look
) -> Tensor:
    """Deviations of the candidates' spectra at this place: (n, K, 7)."""
    n, k = surface.shape
    common, own = (torch.randn(n, count, 7, generator=random, device=random.device) for count in (1, k))
    here = math.sqrt(constants.region_spread) * common + math.sqrt(1 - constants.region_spread) * own
    draw = _shared(_of_scene(places, "spectra", constants, 7)[:, None], here, look.scene_share)
    factor = look.between * surface_factors("between").to(random.device)[surface]  # (n, K, 7, 7)
    return (factor @ draw[..., None])[..., 0] - factor.square().sum(-1) / 2  # the exponential's mean is 1


def _of_scene(places: Places, purpose: str, constants: GeneratorConstants, count: int) -> Tensor:
    """(n, count) standard normal numbers, the same for all patches of a scene and for every seed."""
    world = generator(constants.scene_seed, f"realistic {purpose}")
    drawn = torch.randn(len(scenes(constants).lat), count, generator=world)
    return drawn.to(places.scene.device)[places.scene]


def _shared(common: Tensor, own: Tensor, share: float) -> Tensor:
    """A sum of unit variance in which `common` has a share of it."""
    return math.sqrt(share) * common + math.sqrt(1 - share) * own


def _texture(surfaces: Tensor, random: torch.Generator, constants: GeneratorConstants, look: Look) -> Tensor:
    """Deviations of the pixels: (n, 7, h, h), from the shares of the surfaces, (n, 4, h, h)."""
    n, _, side, _ = surfaces.shape
    parcels = parcel_fields(n, 7, side, random, constants)
    smooth = sum(math.sqrt(share) * smooth_field((n, 7), cells, side, random) for cells, share in look.cells)
    coarse = _shared(parcels, torch.as_tensor(smooth), look.parcel_share)
    fine = torch.randn(n, 7, side, side, generator=random, device=random.device)
    found, variance = torch.zeros_like(fine), torch.zeros_like(fine)
    for index in range(len(SURFACES)):
        share = surfaces[:, index : index + 1]
        for scale, fields, amount in (("coarse", coarse, look.coarse), ("fine", fine, look.fine)):
            factor = amount * surface_factors(scale, look.concentration)[index].to(random.device)
            found += share * (factor @ fields.flatten(2)).view_as(fields)
            variance += share * factor.square().sum(1)[:, None, None]
    strength = look.strength_std * torch.randn(n, 1, 1, 1, generator=random, device=random.device)
    strength = strength + look.unevenness * smooth_field((n, 1), look.unevenness_cells, side, random)
    strength = torch.exp(strength)
    return found * strength - variance * strength.square() / 2  # about as bright as without texture


def _add_glint(image: Tensor, water: Tensor, random: torch.Generator, look: Look) -> None:
    """The sun mirrored in the water of some patches, in place: alike in all bands."""
    n, side, device = len(image), image.shape[-1], image.device
    chance, level = torch.rand(2, n, 1, 1, generator=random, device=device).clamp(min=1e-6)
    waves = torch.exp(look.waves * smooth_field((n,), 12, side, random))
    image += ((chance < look.glint_share) * -look.glint * level.log() * waves * water.square())[:, None]


def _cover_with_snow(
    image: Tensor,
    openness: Tensor,
    snowy: Tensor,
    random: torch.Generator,
    constants: GeneratorConstants,
    look: Look,
) -> None:
    """Blend snow into the patches that have it, in place."""
    rows = snowy.nonzero()[:, 0]
    share = snow_shares(openness[rows], image.shape[-1], random, constants)
    bright = torch.randn(len(rows), 1, 1, 1, generator=random, device=image.device)
    snow = torch.tensor(constants.snow, device=image.device)[:, None, None]
    blend(image, rows, torch.exp(look.snow_scatter * bright) * snow, share)


def _cover_with_cloud(
    image: Tensor, cloudy: Tensor, random: torch.Generator, constants: GeneratorConstants, look: Look
) -> None:
    """Blend cloud into the patches that have it, in place; thick parts differ in brightness."""
    rows = cloudy.nonzero()[:, 0]
    n, side, device = len(rows), image.shape[-1], image.device
    share = cloud_shares(n, side, random, constants)
    bright = torch.randn(n, 1, 1, 1, generator=random, device=device) + smooth_field((n, 1), 8, side, random)
    cloud = torch.tensor(look.cloud, device=device)[:, None, None]
    blend(image, rows, torch.exp(look.cloud_scatter * bright) * cloud, share)


def _blurred(image: Tensor, std: float) -> Tensor:
    """By a Gaussian, cut off at 2 pixels."""
    line = torch.exp(-0.5 * (torch.arange(-2, 3, device=image.device) / std) ** 2)
    line = line / line.sum()
    rows = pad(image.flatten(0, 1)[:, None], (2, 2, 2, 2), mode="replicate")
    return conv2d(conv2d(rows, line.view(1, 1, 1, 5)), line.view(1, 1, 5, 1)).view_as(image)


def _through_air(
    image: Tensor, places: Places, random: torch.Generator, constants: GeneratorConstants, look: Look
) -> Tensor:
    """Light from the neighbourhood, and what the correction has left of the path radiance or taken too much of it."""
    n, device = len(image), image.device
    falling = (torch.tensor(WAVELENGTHS, device=device) / WAVELENGTHS[1]) ** -look.path_exponent  # (7,)
    haze = -look.adjacency * torch.rand(n, 1, generator=random, device=device).clamp(min=1e-6).log()
    margin = look.neighbourhood // 2
    around = avg_pool2d(pad(image, [margin] * 4, mode="replicate"), look.neighbourhood, stride=1)
    image = torch.lerp(image, around, (haze * falling.sqrt()).clamp(max=0.5)[..., None, None])
    own = torch.randn(n, 1, generator=random, device=device)
    level = look.path * _shared(_of_scene(places, "air", constants, 1), own, look.path_scene_share)
    return image + (level * falling)[..., None, None]
