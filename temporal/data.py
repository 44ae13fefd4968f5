"""The series that a configuration asks for."""

from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import NamedTuple

from configs.temporal import PlacesSection, TemporalConfigFile
from models.moe_mae import MOEMAE
from models.pretrained import weights_path
from temporal.series import PRETRAINING, PlaceRequest, Series, make_series, place_seeds, random_days
from utils.files import sha256


class PretrainingSeries(NamedTuple):
    """What a run trains on."""

    train: Series
    val: Series
    encoder: str
    """SHA-256 of the weights that the vectors are of."""


def series_of(config: TemporalConfigFile) -> PretrainingSeries:
    """Simulate places and embed them, but for those that are there already."""
    places, path = config.places, weights_path(config.encoder.checkpoint)
    model, encoder = MOEMAE.from_pretrained(path), sha256(path)
    requests, folder = place_requests(places), Path(places.folder)
    train, val = (
        make_series(model, encoder, config.encoder.pool, places.windows, part, folder)
        for part in (requests[: places.train], requests[places.train :])
    )
    return PretrainingSeries(train, val, encoder)


def place_requests(places: PlacesSection) -> list[PlaceRequest]:
    """The places of pretraining and of its validation."""
    seeds = place_seeds(places.train + places.val, places.seed, PRETRAINING)
    green = [ceil((index + 1) * places.crops_and_woods) for index in range(-1, len(seeds))]  # so many up to here
    span = (places.dates, places.first_year, places.last_year, places.most_years)
    return [
        PlaceRequest(seed, random_days(*span, seed), after > before)
        for seed, (before, after) in zip(seeds, pairwise(green), strict=True)
    ]
