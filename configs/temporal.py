"""Every key of a configuration of `python -m temporal.pretrain`: simulated places, the module, its training."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from configs.schema import Chance, Count, Pool, Positive, Text, Weight
from models.pooling import MAP_POOLINGS
from utils.config import Problem, Section, load_config


class EncoderSection(Section):
    """What turns every date into vectors."""

    checkpoint: Text = "xxs"
    """A name, a file or a folder, as `MOEMAE.from_pretrained` takes them."""
    pool: Pool = "patch_mean"


class PlacesSection(Section):
    """Simulated places, each on several dates."""

    folder: Text = "outputs/temporal_places"
    """Where their vectors are kept; those that are there are not made again."""
    train: Positive = 64
    val: Positive = 8
    dates: Annotated[int, Field(ge=2)] = 12
    """Of every place, on random days."""
    windows: Positive = 5
    """Along a side of a place."""
    crops_and_woods: Chance = 0.75
    """Share of the places that hold nothing else; the others are like any simulated scene."""
    first_year: int = 2014
    last_year: int = 2020
    most_years: Positive = 3
    """Over which the dates of a place are spread; half of the places have one."""
    seed: Count = 0


class ModuleSection(Section):
    """The module; see `models.temporal.TemporalConfig`."""

    dim: Positive = 96
    depth: Positive = 2
    heads: Positive = 6
    groups: Positive = 3
    experts: Positive = 3
    k: Positive = 2
    expert_width: Positive = 80
    slots: Positive = 12
    foretold: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 0.1


class TemporalTrainingSection(Section):
    """How it is trained."""

    weight_path: Text = "outputs/temporal_weights"
    epochs: Positive = 40
    batch_size: Positive = 64
    learning_rate: Annotated[float, Field(gt=0.0)] = 1e-3
    weight_decay: Weight = 0.05
    warmup_fraction: Chance = 0.05
    grad_clip: Annotated[float, Field(gt=0.0)] = 1.0
    save_every_n_epochs: Positive = 1
    seed: Count = 0


class TemporalConfigFile(Section):
    """A whole configuration file."""

    encoder: EncoderSection = EncoderSection()
    places: PlacesSection = PlacesSection()
    model: ModuleSection = ModuleSection()
    training: TemporalTrainingSection = TemporalTrainingSection()


def read_temporal_config(path: str, overrides: list[str]) -> TemporalConfigFile:
    """A validated config.

    Args:
        path: a YAML file.
        overrides: `key.sub=value` texts.

    Raises:
        ConfigError: listing every problem.
    """
    return load_config(TemporalConfigFile, path, overrides, _problems)


def _problems(config: TemporalConfigFile, wrong: set[str]) -> Iterator[Problem]:
    model, places = config.model, config.places
    if config.encoder.pool not in MAP_POOLINGS:
        yield "encoder.pool", f"is not for cells of a map; use one of {', '.join(MAP_POOLINGS)}"
    if model.dim % model.heads or model.heads % model.groups:
        yield "model.heads", f"{model.heads} must divide model.dim and be a multiple of model.groups"
    if model.experts > 1 and not model.k < model.experts:
        yield "model.k", f"{model.k} must be below model.experts"
    if places.last_year - places.first_year + 1 < places.most_years:
        yield "places.most_years", "is more than there are from places.first_year to places.last_year"
