"""What a run is asked for, and what follows from its probe and weights where nothing is said."""

from pathlib import Path
from typing import NamedTuple

from models.config import ModelConfig
from models.pooling import DEFAULT_POOL, MAP_POOLINGS, WINDOW_POOLINGS, vector_width
from models.pretrained import made_from
from scenes.products.land_cover import Probe, fitting_widths
from scenes.settings import SceneSettings
from utils.data_config import BigEarthNetInfo, EuroSATInfo
from utils.errors import ConfigError
from utils.reporting import reporter

MAP_POOL = "patch_mean"
"""What a cell holds where nobody says, the weights included."""
DETAILED_MAP_POOL = "summary"
"""The same of weights whose own pooling leaves out the tokens of patches: all cells of a window would be alike."""


def map_pool(config: ModelConfig) -> str:
    """What a cell holds where nobody asks: the weights' own pooling, where they name one that cells can hold."""
    if config.pool == DEFAULT_POOL or config.pool not in MAP_POOLINGS:
        return MAP_POOL
    return DETAILED_MAP_POOL if config.pool in WINDOW_POOLINGS else config.pool


class Choices(NamedTuple):
    """How cells are made."""

    pool: str
    statistics: str
    """The dataset whose statistics normalise the pixels."""
    conditioned: bool
    """Whether the model is given time and place."""


def choose(settings: SceneSettings, probe: Probe | None, config: ModelConfig, weights: Path) -> Choices:
    """Pooling, statistics and metadata: as asked, else as the probe's embeddings were made.

    Args:
        settings: what is asked for.
        probe: the one that makes the map, if any.
        config: of the model.
        weights: its file.

    Raises:
        ConfigError: when the probe was fitted on embeddings that these weights or settings do not give.
    """
    if probe and probe.checkpoint_sha256 not in (None, *made_from(weights)):
        raise ConfigError(
            f"{probe.path}: was fitted on embeddings of another checkpoint than {settings.checkpoint}; give the "
            "one named in the JSON beside it"
        )
    if probe and probe.pool is None:
        reporter.info(
            f"note         nothing beside {probe.path.name} says how its embeddings were pooled: --pool decides"
        )
    elif probe and settings.pool not in (None, probe.pool):
        raise ConfigError(f"--pool {settings.pool}: {probe.path} was fitted on pool {probe.pool}; leave --pool out")
    pool = settings.pool or (probe.pool if probe else None) or map_pool(config)
    if probe and vector_width(config, pool) != probe.width:
        fitting = fitting_widths(config)[probe.width]
        raise ConfigError(f"{probe.path}: takes {probe.width:,} features, which --pool {fitting} gives; use that")
    statistics = settings.statistics or (probe.statistics if probe else None) or BigEarthNetInfo.NAME
    conditioned = settings.metadata == "auto"
    if probe and probe.dataset == EuroSATInfo.NAME and conditioned:
        conditioned = False
        reporter.info(
            "note         a EuroSAT probe: time and place are given to the model as missing, as they were for it, "
            "and its patches were magnified from 22 to 40 pixels, so it sees this scene at another scale"
        )
    return Choices(pool, statistics, conditioned)
