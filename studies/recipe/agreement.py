"""How alike embeddings of one place are: seen by ETM+ and OLI on one day, and by OLI on two.

The simulator shows the same land to both sensors: ETM+ has six bands, and sees them by published lines
(`transformation.cross_sensor`). The second date has another season's light and plants, and the same haze and noise: two
real dates differ by more.
"""

import warnings
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.simulator.instruments import as_seen_by
from datasets.simulator.overpasses import FIRST_DAY
from datasets.simulator.patches import SimulatedPatches, simulate
from eval.statistics.bootstrap import SHARE, resample
from eval.statistics.spatial_blocks import neighbour_blocks
from eval.statistics.weighted_metrics import mean_of
from studies.engine.stages import StageCache
from studies.recipe.band_scores import Case
from studies.recipe.sensors import COSINE, PERCENT, plain
from utils.files import write_npz
from utils.sensors import ETM

BLOCKS = "blocks"
LATER = 16
"""Days between two overpasses of one satellite."""
OTHERS = {"etm": "ETM+ and OLI, the same day", "later": f"OLI and OLI {LATER} days later"}


class Views(NamedTuple):
    """The places as each sees them: (N, bands, 45, 45) uint16."""

    oli: np.ndarray
    etm: np.ndarray
    later: np.ndarray
    known: dict[str, Any]
    """Time and place of `oli` and `etm`."""
    blocks: np.ndarray
    """(N,) of neighbouring places, for the bootstrap."""


def agreements(cache: StageCache, weights: Sequence[str], patches: int, seed: int) -> dict[str, Any]:
    """Cosine similarity and share of places that are nearest to themselves, by what is known, pair and weights."""
    views: list[Views] = []
    found: dict[str, dict[str, dict[str, Any]]] = {"withheld": {}, "given": {}}
    for name in weights:
        case = Case.of(name)

        def work(folder: Path, case: Case = case) -> None:
            if not views:
                views.append(_views(patches, seed))
            write_npz(folder / "agreement.npz", {BLOCKS: views[0].blocks, **_agreement(case, views[0])})

        stage = cache.stage(
            f"agreement/{case.place}", {**case.inputs, "patches": patches, "seed": seed, "later": LATER}, work
        )
        with np.load(stage.folder / "agreement.npz") as arrays:
            for key in sorted(set(arrays) - {BLOCKS}):
                metadata, other, what = key.split("/")
                scale = PERCENT if what == "nearest" else 1.0
                interval = resample(mean_of(arrays[key]), arrays[BLOCKS], seed, limits=SHARE).interval()
                title = f"{OTHERS[other]}: " + ("nearest to itself, %" if what == "nearest" else COSINE)
                found[metadata].setdefault(title, {})[name] = plain(interval, scale)
    return found


def _views(patches: int, seed: int) -> Views:
    """The same places, of another stream than the patches that probes are fitted on."""
    now, then = (simulate(patches, seed + 1, later=days) for days in (0, LATER))
    numbers = now.images.numpy()
    etm = as_seen_by(numbers.swapaxes(0, 1), ETM).swapaxes(0, 1)
    known = _known(now)
    places = np.stack([known["lat"], known["lon"]], axis=1)
    blocks = neighbour_blocks([str(number) for number in range(patches)], places)
    return Views(numbers, etm, then.images.numpy(), known, blocks)


def _known(patches: SimulatedPatches) -> dict[str, Any]:
    start = datetime(FIRST_DAY.year, FIRST_DAY.month, FIRST_DAY.day)
    places = patches.places
    pairs = zip(places.day.tolist(), places.seconds.tolist(), strict=True)
    when = [start + timedelta(days=day, seconds=seconds) for day, seconds in pairs]
    return {"when": when, "lat": places.lat.numpy(), "lon": places.lon.numpy()}


def _agreement(case: Case, views: Views) -> dict[str, np.ndarray]:
    """Of every place its cosine similarity to itself and whether it is nearest to itself."""
    found = {}
    later = [when + timedelta(days=LATER) for when in views.known["when"]]
    for metadata, known, then in (
        ("withheld", {}, {}),
        ("given", views.known, {**views.known, "when": later}),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that bands are missing is what is measured
            here = case.model.embed(views.oli, **known)
            others = {
                "etm": case.model.embed(views.etm, sensor=ETM.name, **known),
                "later": case.model.embed(views.later, **then),
            }
        for other, vectors in others.items():
            key = f"{metadata}/{other}"
            found[f"{key}/cosine"], found[f"{key}/nearest"] = alike(here, vectors)
    return found


def alike(here: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of every place its cosine similarity to itself, and 1 where it is nearest to itself among all places, else 0.

    Args:
        here: (N, D) vectors, by whose mean and spread all are standardised.
        there: (N, D) others of the same places.
    """
    mean, std = here.mean(axis=0), here.std(axis=0) + 1e-6
    similar = _directions((there - mean) / std) @ _directions((here - mean) / std).T
    return np.diag(similar), (similar.argmax(axis=1) == np.arange(len(here))).astype(np.float64)


def _directions(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
