"""From a validated config to the things it describes: the model in a checkpoint, the dataset of a split."""

from pathlib import Path
from typing import Any

import torch

from configs.schema import Config
from datasets.loader import build_dataset
from datasets.patches import PatchDataset
from models.checkpoint import load_model
from models.config import ModelConfig
from models.moe_mae import MOEMAE
from utils.files import sha256
from utils.provenance import provenance


def load_configured_model(config: Config, device: torch.device) -> MOEMAE:
    """The model in `model.checkpoint_path`, in evaluation mode; see `models.checkpoint.load_model`."""
    section = config.model
    asked = {"size": section.size, **section.numbers()}
    return load_model(section.checkpoint_path, asked, config.published_behaviour, device)


def build_configured_dataset(
    config: Config, model: ModelConfig, dataset_path: str, split_file: str, labels: str = "none"
) -> PatchDataset:
    """A split of the configured dataset as this model takes it."""
    data = config.data
    return build_dataset(
        data.dataset,
        dataset_path,
        split_file,
        labels=labels,
        image_size=model.img_size,
        crop=data.crop,
        statistics=data.statistics,
        published_behaviour=model.published_behaviour,
    )


def result_origin(config: Config, device: torch.device) -> dict[str, Any]:
    """Where a result comes from: checkpoint with its hash, the whole config, versions and device."""
    checkpoint = Path(config.model.checkpoint_path)
    return {
        "checkpoint": {"path": str(checkpoint), "sha256": sha256(checkpoint)},
        "config": config.model_dump(),
        "provenance": provenance(device),
    }
