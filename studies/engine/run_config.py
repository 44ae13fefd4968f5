"""From a reproduction's config to that of one pretraining run, and to what decides its outcome."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from configs.reproduction import ReproductionConfig
from configs.schema import YOUNGER, Config, DataSection, model_problems, without_silent
from datasets.labelled_folder import NAME as LABELLED_FOLDER
from studies.engine.data import Source
from utils.errors import ConfigError

# Where things are, and how often they are saved: no inputs of a run.
_PLACES = ("dataset_path", "dataset_csv", "val_csv", "weight_path", "num_workers", "save_every_n_epochs",
           "save_every_n_steps")  # fmt: skip

_PLACES_OF_DATA = {"dataset_path", "num_workers", "batch_size", "resident", "missing_labels"}


def run_config(
    ours: ReproductionConfig, overrides: Mapping[str, Any], source: Source, fold: int, seed: int, folder: Path
) -> Config:
    """The config of one pretraining run, as `pretrain_mae.py` would read it.

    Args:
        ours: the reproduction's.
        overrides: keys of `configs.schema.Config` ("model.experts") to values, in place of those of `ours`.
        source: the dataset.
        fold: index of its fold.
        seed: of all randomness.
        folder: where the run writes.

    Raises:
        ConfigError: when the overrides ask for what no run can be.
    """
    section = source.section
    left_out = _PLACES_OF_DATA | ({"splits"} if section.dataset != LABELLED_FOLDER else set())
    values: dict[str, Any] = {
        "published_behaviour": ours.published_behaviour,
        "model": ours.model.model_dump(exclude_unset=True),
        "training": {
            **ours.training.model_dump(exclude_unset=True),
            "dataset_path": source.path,
            "dataset_csv": source.split_file("train", fold),
            "val_csv": source.split_file("val", fold),
            "weight_path": str(folder),
            "seed": seed,
        },
        "data": section.model_dump(include=set(DataSection.model_fields) - left_out, exclude_unset=True),
    }
    for key, value in overrides.items():
        *parents, last = key.split(".")
        inner = values
        for parent in parents:
            inner = inner[parent]
        inner[last] = value
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise ConfigError(f"a study asks for an impossible run: {found}") from error
    if problems := list(model_problems(config.model, set(), fresh_model=True)):
        found = "; ".join(f"{key}: {text}" for key, text in problems)
        raise ConfigError(f"a study asks for an impossible model: {found}")
    return config


def recipe_of(config: Config) -> dict[str, Any]:
    """What decides a run's outcome besides the patches: an input of its stage."""
    values = config.model_dump(mode="json", include={"published_behaviour", "model", "training", "data"})
    del values["model"]["checkpoint_path"]
    values |= {section: without_silent(section, values[section]) for section in YOUNGER}
    for key in _PLACES:
        del values["training"][key]
    for key in _PLACES_OF_DATA:
        del values["data"][key]
    return values
