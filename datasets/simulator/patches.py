"""Simulated Landsat patches in memory: scenes, classes, landscape, labels and fill put together."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from datasets.simulator.constants import (
    CANVAS,
    CENTRE,
    CHUNK,
    CONSTANTS,
    EUROSAT_CANVAS,
    EUROSAT_SIZE_SHARES,
    EUROSAT_SIZES,
    SIZE_SHARES,
    SIZES,
    STANDARD,
    GeneratorConstants,
)
from datasets.simulator.landscape import Landscape, draw_landscape
from datasets.simulator.overpasses import (
    Places,
    draw_classes,
    draw_eurosat_classes,
    draw_places,
    draw_surfaces,
    iso_week,
)
from datasets.simulator.realistic import repainted
from utils.data_config import REFLECTANCE_OFFSET, REFLECTANCE_SCALE, EuroSATInfo
from utils.randomness import generator

LAST_DAY = 364
"""Days after the first one of the simulator's world."""


class SimulatedPatches(NamedTuple):
    """n simulated patches of one kind; C = 7 bands and L = 43 CORINE labels, or 8 and 10 for EuroSAT."""

    images: Tensor  # (n, C, h, h) uint16 Collection-2 numbers; h = 45 (EuroSAT 24); 0 in every band is fill
    sizes: Tensor  # (n, 2) int64, height and width of the file, cut from the centre of the canvas
    labels: Tensor  # (n, L) bool
    places: Places  # scene, tile cell, day, seconds, lat, lon
    five_digit_time: Tensor  # (n,) bool, the id's time has lost its leading zero
    classes: Tensor  # (n, K) int64, the candidate CORINE classes laid out, -1 for none
    shares: Tensor  # (n, 43) share of each mapped CORINE class in the central 40 x 40 pixels (EuroSAT: canvas)
    surfaces: Tensor  # (n, 43) the same for what the ground really is
    ground: Tensor  # (n, h, h) uint8, the CORINE class that covers most of each pixel on the ground

    @property
    def week(self) -> Tensor:
        """(n,) ISO week."""
        return iso_week(self.places.day)

    @property
    def hour(self) -> Tensor:
        """(n,) UTC hour with its fraction."""
        return self.places.seconds / 3600


def simulate(
    n: int,
    seed: int,
    device: str | torch.device = "cpu",
    kind: str = "bigearthnet",
    constants: GeneratorConstants = CONSTANTS,
    later: int = 0,
    variant: str = STANDARD,
) -> SimulatedPatches:
    """Simulate n patches in memory; patch i depends on (seed, kind, device type, variant, i) alone.

    BigEarthNet's can be those of the same land so many days `later`, under the same haze and with the same noise. The
    variants differ in their pixels alone.
    """
    chunks = list(simulate_chunks(n, seed, device, kind, constants, later, variant))
    places = Places(*(torch.cat(parts) for parts in zip(*(chunk.places for chunk in chunks), strict=True)))
    fields = {
        name: torch.cat([getattr(chunk, name) for chunk in chunks])
        for name in SimulatedPatches._fields
        if name not in ("places", "images")
    }
    # The bits travel as int16: CUDA lacks some operations on uint16.
    images = torch.cat([chunk.images.view(torch.int16) for chunk in chunks]).view(torch.uint16)
    return SimulatedPatches(**fields, places=places, images=images)


def simulate_chunks(
    n: int,
    seed: int,
    device: str | torch.device = "cpu",
    kind: str = "bigearthnet",
    constants: GeneratorConstants = CONSTANTS,
    later: int = 0,
    variant: str = STANDARD,
) -> Iterator[SimulatedPatches]:
    """The same in pieces of at most CHUNK patches, so that any n fits in memory."""
    for index, start in enumerate(range(0, n, CHUNK)):
        yield _first(simulate_chunk(index, seed, device, kind, constants, later, variant), min(CHUNK, n - start))


def simulate_chunk(
    index: int,
    seed: int,
    device: str | torch.device = "cpu",
    kind: str = "bigearthnet",
    constants: GeneratorConstants = CONSTANTS,
    later: int = 0,
    variant: str = STANDARD,
) -> SimulatedPatches:
    """The patches from number `index` * CHUNK on, CHUNK of them, without simulating those before."""
    random = generator(seed, f"simulated {kind}", index, device=device)
    # A stream of its own, so that nothing else of a patch depends on the variant.
    repaint = None if variant == STANDARD else generator(seed, f"simulated {kind} {variant}", index, device=device)
    if kind == "bigearthnet":
        return _bigearthnet_chunk(random, constants, later, repaint)
    return _eurosat_chunk(index * CHUNK, random, constants, repaint)


def _bigearthnet_chunk(
    random: torch.Generator, constants: GeneratorConstants, later: int, repaint: torch.Generator | None
) -> SimulatedPatches:
    """CHUNK BigEarthNet patches."""
    places = draw_places(CHUNK, random, constants)
    places = places._replace(day=(places.day + later).clamp(max=LAST_DAY))
    classes = draw_classes(places, random, constants)
    surfaces = draw_surfaces(classes, places, random, constants)
    land = draw_landscape(surfaces, places, CANVAS, random, constants)
    if repaint is not None:
        land = repainted(land, surfaces, places, repaint, constants)
    shares = _class_shares(classes, land.cover[..., CENTRE, CENTRE])
    images = _numbers(land.reflectance) * ~_fill(CHUNK, CANVAS, random, constants)[:, None]
    lost = torch.rand(CHUNK, generator=random, device=random.device) < constants.five_digit_share
    return SimulatedPatches(
        images=images.to(torch.uint16),
        sizes=_sizes(SIZES, SIZE_SHARES, random),
        labels=shares >= constants.visible_share,
        places=places,
        five_digit_time=lost & (places.seconds < 10 * 3600),
        classes=classes,
        shares=shares,
        surfaces=_class_shares(surfaces, land.cover[..., CENTRE, CENTRE]),
        ground=_ground(surfaces, land.cover),
    )


def _eurosat_chunk(
    start: int, random: torch.Generator, constants: GeneratorConstants, repaint: torch.Generator | None
) -> SimulatedPatches:
    """CHUNK EuroSAT patches from number `start` on, their classes in turn."""
    device = random.device
    target = (start + torch.arange(CHUNK, device=device)) % len(EuroSATInfo.CLASSES)
    places = draw_places(CHUNK, random, constants)
    classes = draw_eurosat_classes(target, random)
    advantage = torch.tensor([constants.eurosat_advantage, 0.0, 0.0], device=device)
    clear = replace(constants, snow_share=0.0, cloud_share=0.0)  # EuroSAT's images were chosen without either
    land = draw_landscape(classes, places, EUROSAT_CANVAS, random, clear, advantage)
    if repaint is not None:
        land = repainted(land, classes, places, repaint, clear)
    images = torch.cat([_numbers(land.reflectance), _thermal(land, places, random, constants)], dim=1)
    return SimulatedPatches(
        images=images.to(torch.uint16),
        sizes=_sizes(EUROSAT_SIZES, EUROSAT_SIZE_SHARES, random),
        labels=torch.nn.functional.one_hot(target, len(EuroSATInfo.CLASSES)).bool(),
        places=places,
        five_digit_time=torch.zeros(CHUNK, dtype=torch.bool, device=device),
        classes=classes,
        shares=_class_shares(classes, land.cover),
        surfaces=_class_shares(classes, land.cover),
        ground=_ground(classes, land.cover),
    )


def _thermal(land: Landscape, places: Places, random: torch.Generator, constants: GeneratorConstants) -> Tensor:
    """ST_B10 numbers (n, 1, h, h), int32: warmer in summer and in the south, cooler where it is green or wet."""
    level, swing, northward = constants.temperature
    season = torch.cos(2 * torch.pi * (iso_week(places.day) - 29) / 52)
    base = level + swing * season + northward * (places.lat - 45)
    noise = torch.randn(land.vigour.shape, generator=random, device=random.device)
    kelvin = base[:, None, None] + constants.temperature_cooling * land.vigour + constants.temperature_noise * noise
    numbers = (kelvin - constants.thermal_offset) / constants.thermal_scale
    return numbers.round().clamp(1, 65535).to(torch.int32)[:, None]


def _class_shares(classes: Tensor, cover: Tensor) -> Tensor:
    """(n, 43) mean cover of each CORINE class."""
    share = cover.mean((2, 3))
    total = torch.zeros(len(classes), 43, device=cover.device)
    return total.scatter_add(1, classes.clamp(min=0), share * (classes >= 0))


def _ground(classes: Tensor, cover: Tensor) -> Tensor:
    """(n, h, h) uint8: of each pixel, the CORINE class with the largest cover; absent candidates have none."""
    best = cover.argmax(1)  # (n, h, h) of the K candidates
    return classes.gather(1, best.flatten(1)).view_as(best).to(torch.uint8)


def _numbers(reflectance: Tensor) -> Tensor:
    """Reflectance to Collection-2 numbers, int32; at least 1, since 0 means fill."""
    return ((reflectance - REFLECTANCE_OFFSET) / REFLECTANCE_SCALE).round_().clamp_(1, 65535).to(torch.int32)


def _fill(n: int, side: int, random: torch.Generator, constants: GeneratorConstants) -> Tensor:
    """(n, side, side) bool: True beyond a random straight edge, in a few patches; the centre is never fill."""
    device = random.device
    axis = (torch.arange(side, device=device) + 0.5) / side * 2 - 1
    angle = 2 * torch.pi * torch.rand(n, 1, 1, generator=random, device=device)
    low, high = constants.fill_range
    distance = low + (high - low) * torch.rand(n, 1, 1, generator=random, device=device)
    some = torch.rand(n, 1, 1, generator=random, device=device) < constants.fill_share
    return some & (torch.cos(angle) * axis[:, None] + torch.sin(angle) * axis > distance)


def _sizes(sizes: tuple[tuple[int, int], ...], shares: tuple[float, ...], random: torch.Generator) -> Tensor:
    """(CHUNK, 2) file sizes."""
    table = torch.tensor(sizes, device=random.device)
    return table[torch.multinomial(torch.tensor(shares, device=random.device), CHUNK, True, generator=random)]


def _first(patches: SimulatedPatches, n: int) -> SimulatedPatches:
    """The first n patches of a chunk."""
    tensors = {name: value[:n] for name, value in patches._asdict().items() if name != "places"}
    return SimulatedPatches(**tensors, places=Places(*(value[:n] for value in patches.places)))
