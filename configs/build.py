"""From a validated config to the things it describes: the model in a checkpoint, the dataset of a split."""

from pathlib import Path
from typing import Any

import torch

from configs.schema import Config, DataSection, TrainingSection
from datasets.image_bands import TRAIN, band_names
from datasets.labelled_folder import NAME, FolderOptions, LabelledFolderDataset
from datasets.loader import build_dataset
from datasets.mixture import MixedDataset, SensorMixture
from datasets.patches import Labels, PatchDataset
from models.checkpoint import Checkpoint, as_asked
from models.config import ModelConfig, to_record
from models.losses import LossWeights
from models.moe_mae import MOEMAE
from models.pretrained import read_weights, weights_path
from utils.data_config import DATASETS, OTHER_SENSORS
from utils.errors import ConfigError
from utils.files import sha256
from utils.provenance import provenance
from utils.sensors import OLI, SENSORS


def load_configured_model(config: Config, device: torch.device) -> MOEMAE:
    """The model in `model.checkpoint_path`, in evaluation mode; see `models.checkpoint.load_model`."""
    section = config.model
    asked = {"size": section.size, **section.numbers(), **section.masking_numbers()}
    return as_asked(configured_weights(config), asked, config.published_behaviour).build(device)


def configured_weights(config: Config) -> Checkpoint:
    """What `model.checkpoint_path` holds."""
    return read_weights(configured_checkpoint(config))


def configured_checkpoint(config: Config) -> Path:
    """The file of weights under `model.checkpoint_path`, which takes what `MOEMAE.from_pretrained` takes.

    Raises:
        ConfigError: where the key is not set.
        CheckpointError: where it names nothing that holds weights.
    """
    if config.model.checkpoint_path is None:
        raise ConfigError("model.checkpoint_path: is required by this script")
    return weights_path(config.model.checkpoint_path)


def loss_weights(training: TrainingSection, model: ModelConfig) -> LossWeights:
    """The weights of the loss's terms."""
    reconstruction = {"sum": 1.0, "mean": 1.0 / model.patch_values}[training.reconstruction]
    return LossWeights(training.visible_weight, training.balance_weight, reconstruction)


def build_configured_dataset(
    config: Config, model: ModelConfig, dataset_path: str, split_file: str, labels: Labels = "none"
) -> PatchDataset:
    """A split of the configured dataset as this model takes it."""
    data = config.data
    _require_sensor(model, data.dataset, "data.dataset")
    return build_dataset(
        data.dataset,
        dataset_path,
        split_file,
        labels=labels,
        image_size=model.img_size,
        crop=data.crop,
        statistics=data.statistics,
        published_behaviour=model.published_behaviour,
        meta_fields=model.meta_fields,
        folder=_folder_options(data),
    )


def build_training_dataset(config: Config, model: ModelConfig, dataset_path: str, split_file: str) -> PatchDataset:
    """The training split, mixed with a second dataset where the config says so.

    Raises:
        ConfigError: for a dataset of a sensor that the model does not have.
    """
    first = build_configured_dataset(config, model, dataset_path, split_file)
    mixture = config.training.mixture
    if mixture is None:
        return first
    _require_sensor(model, mixture.dataset, "training.mixture.dataset")
    shared = mixture.dataset in DATASETS and first.statistics_name in DATASETS
    second = build_dataset(
        mixture.dataset,
        mixture.dataset_path,
        mixture.dataset_csv,
        image_size=model.img_size,
        crop=mixture.crop,
        statistics=first.statistics_name if shared else "auto",
        published_behaviour=model.published_behaviour,
        meta_fields=model.meta_fields,
        folder=FolderOptions(
            None if mixture.bands is None else band_names(mixture.bands), mixture.scale, mixture.offset
        ),
    )
    if first.sensor is second.sensor:
        return MixedDataset(first, second, mixture.share)
    return SensorMixture(first, second, mixture.share, config.training.batch_size)


def _require_sensor(model: ModelConfig, dataset: str, key: str) -> None:
    if dataset in OTHER_SENSORS and (sensor := OTHER_SENSORS[dataset].SENSOR).name not in model.sensors:
        raise ConfigError(
            f"{key}: {dataset} has the bands of {sensor.title}, the model takes those of {', '.join(model.sensors)}; "
            f"give weights that have it, or set model.sensors: [{', '.join((*model.sensors, sensor.name))}]"
        )


def _folder_options(data: DataSection) -> FolderOptions:
    """What the config says of a labelled folder."""
    bands = None if data.bands is None else band_names(data.bands, SENSORS[data.sensor or OLI.name])
    train = (data.splits or {}).get(TRAIN)
    return FolderOptions(bands, data.scale, data.offset, train, data.split_seed, data.sensor)


def resolved_config(config: Config, model: MOEMAE, dataset: PatchDataset, sections: set[str]) -> dict[str, Any]:
    """The config with what was really used in place of what was left open: a config that gives the same again.

    Args:
        config: as given.
        model: for its numbers.
        dataset: for crop and statistics.
        sections: those that the script uses, besides `model` and `data`.
    """
    values = config.model_dump(mode="json", include={"published_behaviour", "model", "data", *sections})
    numbers = to_record(model.config, model.masking)
    values["published_behaviour"] = model.config.published_behaviour
    values["model"].update({key: numbers[key] for key in values["model"] if key in numbers})
    values["data"].update(crop=dataset.crop, statistics=dataset.statistics_name)
    return values


def result_origin(
    config: Config, model: MOEMAE, dataset: PatchDataset, device: torch.device, section: str
) -> dict[str, Any]:
    """Where a result comes from: checkpoint and data with their hashes, the resolved config, versions and device."""
    checkpoint = configured_checkpoint(config)
    folder = {NAME: dataset.description()} if isinstance(dataset, LabelledFolderDataset) else {}
    return {
        "checkpoint": {"path": str(checkpoint), "sha256": sha256(checkpoint)},
        "dataset": dataset.name,
        "simulated": dataset.simulated,
        "dataset_fingerprint": dataset.fingerprint(),
        "published_behaviour": model.config.published_behaviour,
        "config": resolved_config(config, model, dataset, {section}),
        "provenance": provenance(device),
        **folder,
    }
