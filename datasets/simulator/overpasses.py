"""Where and when: the satellite scenes of the simulator, and which land cover each is likely to hold.

A scene is one overpass over one tile: a date, a time, a place, and weights for every land-cover class. The scenes come
from `places.json` and the constant `scene_seed`; they do not depend on the user's seed, so patches simulated
with different seeds live in the same world.
"""

import math
from datetime import date, timedelta
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from datasets.simulator.constants import CONSTANTS, PLACES_FILE, GeneratorConstants, load_table
from utils.data_config import BigEarthNetInfo
from utils.randomness import generator

FIRST_DAY = date(2017, 6, 1)
"""Days are counted from here; the scenes lie between June 2017 and May 2018, as BigEarthNet's."""
_SEA = BigEarthNetInfo.CORINE.index("Sea and ocean")
_TILE_HALF = 45
_LAST_WEEK_OF_2018 = 21  # ISO weeks up to this one are taken from 2018, later ones from 2017
_HOURS = (9.36, 11.9)  # UTC hours between which BigEarthNet's overpasses lie
_METRES_PER_DEGREE = 111_320.0


class Scenes(NamedTuple):
    """S scenes, in float32 unless noted."""

    lat: Tensor  # (S,) degrees, centre of the tile
    lon: Tensor  # (S,)
    day: Tensor  # (S,) int64, days after FIRST_DAY
    seconds: Tensor  # (S,) int64, UTC seconds of the day
    sea: Tensor  # (S,) chance that a patch is open sea
    coast: Tensor  # (S,) chance that a patch is land with sea
    log_weight: Tensor  # (S, 43) log weights of the classes on land
    chance: Tensor  # (S,) share of the patches


class Places(NamedTuple):
    """Where and when n patches are."""

    scene: Tensor  # (n,) int64
    column: Tensor  # (n,) int64, 0-89, eastward in the tile
    row: Tensor  # (n,) int64, 0-89, southward
    day: Tensor  # (n,) int64, days after FIRST_DAY
    seconds: Tensor  # (n,) int64
    lat: Tensor  # (n,) degrees
    lon: Tensor  # (n,) degrees


def iso_week(days: Tensor) -> Tensor:
    """ISO week (1-53, float32) of days after FIRST_DAY."""
    table = [float((FIRST_DAY + timedelta(days=i)).isocalendar().week) for i in range(366)]
    return torch.tensor(table, device=days.device)[days]


def day_of_the_simulated_year(day: date) -> date:
    """The same day of the year between FIRST_DAY and a year later, for which the simulator knows the season."""
    calendar = day.replace(day=28) if (day.month, day.day) == (2, 29) else day
    same = calendar.replace(year=FIRST_DAY.year)
    return same if same >= FIRST_DAY else calendar.replace(year=FIRST_DAY.year + 1)


@cache
def scenes(constants: GeneratorConstants = CONSTANTS) -> Scenes:
    """The world: all scenes of all regions."""
    random = generator(constants.scene_seed, "scenes")
    season = _season_preference()
    rows = []
    for region in load_table(PLACES_FILE)["regions"].values():
        prior = torch.full((43,), -math.inf)
        for name, weight in region["cover"].items():
            sharp = weight**constants.cover_sharpness + constants.rare_cover * weight
            prior[BigEarthNetInfo.CORINE.index(name)] = math.log(sharp)
        for _ in range(region["scenes"]):
            shift = torch.randn(2, generator=random)
            lat = region["lat"] + region["spread"][0] * shift[0].item()
            lon = region["lon"] + region["spread"][1] * shift[1].item()
            day = _draw_day(region["weeks"], random)
            a, b, c = constants.hour
            hour = a + b * lat + c * lon + constants.hour_std * torch.randn((), generator=random).item()
            hour = min(max(hour, _HOURS[0]), _HOURS[1])
            week = (FIRST_DAY + timedelta(days=day)).isocalendar().week
            summer = math.cos(2 * math.pi * (week - 28) / 52)
            own = constants.scene_contrast * torch.randn(43, generator=random)
            weight = prior + own + constants.season_contrast * summer * season
            sea = region["sea"] * (1 + 0.6 * torch.rand((), generator=random).item() - 0.3)
            rows.append((lat, lon, day, round(hour * 3600), sea, region["coast"], weight))
    lat, lon, day, seconds, sea, coast, weight = zip(*rows, strict=True)
    return Scenes(
        torch.tensor(lat),
        torch.tensor(lon),
        torch.tensor(day),
        torch.tensor(seconds),
        torch.tensor(sea),
        torch.tensor(coast),
        torch.stack(weight),
        torch.full((len(rows),), 1 / len(rows)),
    )


def draw_places(n: int, random: torch.Generator, constants: GeneratorConstants = CONSTANTS) -> Places:
    """Scene, cell in its tile, date, time and position of n patches."""
    device = random.device
    world = scenes(constants)
    scene = torch.multinomial(world.chance.to(device), n, replacement=True, generator=random)
    column, row = torch.randint(constants.tile_count, (2, n), generator=random, device=device)
    lat = world.lat.to(device)[scene] - (row - _TILE_HALF) * (constants.tile_side / _METRES_PER_DEGREE)
    metres_per_degree = _METRES_PER_DEGREE * torch.cos(torch.deg2rad(lat))
    lon = world.lon.to(device)[scene] + (column - _TILE_HALF) * constants.tile_side / metres_per_degree
    # The datatakes of one overpass differ by seconds.
    seconds = world.seconds.to(device)[scene] + torch.randint(3, (n,), generator=random, device=device)
    return Places(scene, column, row, world.day.to(device)[scene], seconds, lat, lon)


def draw_classes(places: Places, random: torch.Generator, constants: GeneratorConstants = CONSTANTS) -> Tensor:
    """Candidate classes of each patch, best first: (n, K) CORINE indices, -1 where there are fewer.

    Classes are drawn without replacement with the scene's weights (Gumbel top-k, Kool et al. 2019, arXiv:1903.06059).
    """
    n, device = len(places.lat), random.device
    world = scenes(constants)
    gumbel = -torch.log(-torch.log(torch.rand(n, 43, generator=random, device=device).clamp(1e-7, 1 - 1e-7)))
    score = world.log_weight.to(device)[places.scene] + gumbel
    chosen_score, chosen = score.topk(constants.candidates, dim=1)
    shares = torch.tensor(constants.candidate_shares, device=device)
    count = 1 + torch.multinomial(shares, n, replacement=True, generator=random)
    setting = torch.rand(n, generator=random, device=device)
    sea, coast = world.sea.to(device)[places.scene], world.coast.to(device)[places.scene]
    at_sea = setting < sea
    on_coast = (setting >= sea) & (setting < sea + coast)
    chosen = torch.where((at_sea | on_coast)[:, None] & (torch.arange(constants.candidates, device=device) == 0),
                         _SEA, chosen)  # fmt: skip
    count = torch.where(at_sea, 1, torch.where(on_coast, count.clamp(min=2), count))
    absent = torch.arange(constants.candidates, device=device) >= count[:, None]
    return chosen.masked_fill(absent | ~(chosen_score > -math.inf), -1)


def draw_surfaces(
    classes: Tensor, places: Places, random: torch.Generator, constants: GeneratorConstants = CONSTANTS
) -> Tensor:
    """What the ground really is where the map says `classes`: (n, K) CORINE indices, -1 where there is no class.

    CORINE maps areas of 25 ha and more and is drawn in another year than the image, so a mapped area often shows the
    surface of a neighbouring class: here, with the chance `mapping_error`, another class of the same scene. Sea and
    linear classes are always what the map says.
    """
    n, k = classes.shape
    chance = scenes(constants).log_weight.exp().to(random.device)[places.scene]
    other = torch.multinomial(chance, k, replacement=True, generator=random)
    wrong = torch.rand(n, k, generator=random, device=random.device) < constants.mapping_error
    certain = torch.isin(classes, torch.cat([linear_classes(), torch.tensor([_SEA, -1])]).to(random.device))
    # A line must not appear as an area.
    return torch.where(wrong & ~certain & ~torch.isin(other, linear_classes().to(random.device)), other, classes)


def draw_eurosat_classes(target: Tensor, random: torch.Generator) -> Tensor:
    """The same for EuroSAT classes: (n, 3), the class's own cover first, then up to two companions."""
    device = random.device
    table = list(load_table(PLACES_FILE)["eurosat"].values())
    main = _padded([entry["main"] for entry in table]).to(device)
    companions = _padded([entry["companions"] for entry in table]).to(device)

    def pick(choices: Tensor) -> Tensor:
        column = torch.randint(12, (len(target),), generator=random, device=device)
        return choices[target].gather(1, column[:, None])[:, 0]

    first, second, third = pick(main), pick(companions), pick(companions)
    alone = torch.rand(len(target), generator=random, device=device)
    linear = torch.isin(first, linear_classes().to(device))
    second = torch.where((alone < 0.4) & ~linear, -1, second)
    third = torch.where((alone < 0.8) | (third == second), -1, third)
    return torch.stack([first, second, third], dim=1)


@cache
def linear_classes() -> Tensor:
    """CORINE indices of the classes laid out as lines."""
    return torch.tensor([BigEarthNetInfo.CORINE.index(name) for name in load_table(PLACES_FILE)["linear_classes"]])


@cache
def class_traits() -> Tensor:
    """(43, 8) texture and season amplitudes; columns as in `places.json`, "traits"."""
    table = load_table(PLACES_FILE)
    kinds = table["traits"]["kinds"]
    return torch.tensor([kinds[table["kind_of_class"][name]] for name in BigEarthNetInfo.CORINE])


def _padded(lists: list[list[str]]) -> Tensor:
    """Class names as indices, every list repeated to 12 entries (all lengths here divide 12)."""
    return torch.tensor([[BigEarthNetInfo.CORINE.index(name) for name in (names * 12)[:12]] for names in lists])


def _season_preference() -> Tensor:
    """+1 for open land (crops, grass, wetland, urban), -1 for woods, 0 for water: what cloud-free scenes favour."""
    openness = class_traits()[:, -1]
    woody = openness <= 0.5
    return torch.where(woody, -1.0, torch.where(openness >= 0.9, 1.0, 0.0))


def _draw_day(weeks: list[list[int]], random: torch.Generator) -> int:
    """Days after FIRST_DAY: a random day of the region's ISO weeks, given as [first, last] ranges."""
    choices = [week for first, last in weeks for week in range(first, last + 1)]
    week = choices[int(torch.randint(len(choices), (), generator=random))]
    year = 2017 if week > _LAST_WEEK_OF_2018 else 2018
    weekday = 1 + int(torch.randint(7, (), generator=random))
    return (date.fromisocalendar(year, week, weekday) - FIRST_DAY).days
