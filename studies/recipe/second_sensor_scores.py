"""Scores of Landsat's and Sentinel-2's simulated patches of the same places, and how alike their embeddings are."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets.loader import BatchLoader, build_dataset
from datasets.patches import PatchDataset
from eval.probing.feature_baselines import COMBINATIONS, RANDOM, STATISTICS, combined, feature_baselines
from eval.probing.protocols import run_protocol
from eval.probing.random_features import fit_random_features, random_vectors
from eval.probing.representation import Vectors
from eval.statistics.bootstrap import SHARE, Resampled, resample
from eval.statistics.spatial_blocks import neighbour_blocks
from eval.statistics.weighted_metrics import mean_of, micro_map
from models.checkpoint import as_asked
from models.config import SENSOR_SETS
from models.moe_mae import MOEMAE
from models.pretrained import read_weights, weights_path
from studies.engine.stages import StageCache
from studies.recipe.agreement import alike
from studies.recipe.band_scores import BATCH, PROTOCOL, simulated_patches, vectors_of
from studies.recipe.sensors import PERCENT, plain
from utils.data_config import IMAGE_SIZE, BigEarthNetInfo, SimulatedMSIInfo
from utils.errors import ConfigError
from utils.files import sha256, write_npz
from utils.metadata import PUBLISHED_FIELDS
from utils.sensors import MSI, OLI

DATASET = {OLI.name: BigEarthNetInfo.NAME, MSI.name: SimulatedMSIInfo.NAME}
KINDS = ("given", "withheld")
"""Whether encoders and baselines are given metadata."""
BASELINES = {
    "statistics + metadata": "given",
    f"{RANDOM} + statistics + metadata": "given",
    STATISTICS: "withheld",
    RANDOM: "withheld",
    f"{RANDOM} + statistics": "withheld",
}
"""Features that need no training, with their kind."""
COMPARED = 1000
"""Test patches by which sensors are compared."""

Folders = dict[str, tuple[Path, str]]
"""Folder and digest of the simulated patches, by sensor."""


def measured(cache: StageCache, weights: Mapping[str, str], patches: int, seed: int) -> dict[str, Any]:
    """Micro mAP by kind and title, and agreement by title.

    Args:
        cache: of finished stages.
        weights: title to what `MOEMAE.from_pretrained` takes.
        patches: to fit, and to score.
        seed: of the patches and intervals.

    Raises:
        ConfigError: for too few patches.
        CheckpointError: for weights that are not there, or cannot have a second sensor.
    """
    if patches < 2:
        raise ConfigError(f"--patches {patches}: give at least 2, for a probe is fitted on them")
    folders = {sensor: simulated_patches(cache, patches, seed, sensor) for sensor in DATASET}
    judged = opened(folders[OLI.name][0], OLI.name, "test")
    assert judged.labels is not None
    labels, blocks = judged.labels.numpy(), neighbour_blocks(judged.ids, judged.places())

    def score(probabilities: np.ndarray) -> Resampled:
        return resample(micro_map(labels, probabilities), blocks, seed, limits=SHARE)

    def mean(values: np.ndarray, scale: float) -> list[float | None]:
        return plain(resample(mean_of(values), blocks[: len(values)], seed, limits=SHARE).interval(), scale)

    found: dict[str, dict[str, dict[str, Resampled]]] = {kind: {} for kind in KINDS}
    for title, by_sensor in _baselines(cache, folders).items():
        found[BASELINES[title]][title] = {sensor: score(one) for sensor, one in by_sensor.items()}
    agreement: dict[str, Any] = {}
    for title, name in weights.items():
        path = weights_path(name)
        inputs = {"weights": sha256(path), "patches": [digest for _, digest in folders.values()], "protocol": PROTOCOL}
        stage = cache.stage(f"weights/{inputs['weights'][:16]}", inputs, partial(_write_case, path, folders))
        with np.load(stage.folder / "scores.npz") as arrays:
            for kind in KINDS:
                found[kind][title] = {key: score(arrays[f"{kind}_{key}"]) for key in (*DATASET, "transfer")}
            scales = {"cosine": 1.0, "nearest": PERCENT}
            agreement[title] = {
                kind: {key: mean(arrays[f"{kind}_{key}"], scale) for key, scale in scales.items()} for kind in KINDS
            }
    scores = {kind: _scores(rows, list(weights)) for kind, rows in found.items()}
    return {"micro_map": scores, "agreement": agreement}


def _scores(found: Mapping[str, Mapping[str, Resampled]], weights: list[str]) -> dict[str, Any]:
    """Scores, and differences of weights to all before them."""

    def before(title: str) -> list[str]:
        return weights[: weights.index(title)] if title in weights else []

    return {
        title: {
            key: {
                "score": plain(one.interval()),
                "minus": {other: plain(one.minus(found[other][key]).interval()) for other in before(title)},
            }
            for key, one in by_key.items()
        }
        for title, by_key in found.items()
    }


def opened(folder: Path, sensor: str, split: str, model: MOEMAE | None = None) -> PatchDataset:
    """A split of the simulated patches of a sensor, with labels, held in memory."""
    size, fields = (
        (IMAGE_SIZE, PUBLISHED_FIELDS) if model is None else (model.config.img_size, model.config.meta_fields)
    )
    file = BigEarthNetInfo.HUB.split_file.format(split)
    dataset = build_dataset(DATASET[sensor], str(folder), file, labels="error", image_size=size, meta_fields=fields)
    dataset.hold_in_memory()
    return dataset


def _baselines(cache: StageCache, folders: Folders) -> dict[str, dict[str, np.ndarray]]:
    """Probabilities of the features that need no training, by their name and sensor."""
    found: dict[str, dict[str, np.ndarray]] = {title: {} for title in BASELINES}
    for sensor, (folder, digest) in folders.items():
        stage = cache.stage(f"baselines/{sensor}", {"patches": digest}, partial(_write_baselines, folder, sensor))
        with np.load(stage.folder / "scores.npz") as arrays:
            for at, title in enumerate(BASELINES):
                found[title][sensor] = arrays[f"row{at}"]
    return found


def _write_baselines(patches: Path, sensor: str, folder: Path) -> None:
    train, test = (opened(patches, sensor, split) for split in ("train", "test"))
    loaders = [BatchLoader(dataset, BATCH, 0, torch.device("cpu")) for dataset in (train, test)]
    random, parts = fit_random_features(loaders[0], seed=0), []
    for loader in loaders:
        features = feature_baselines(loader)
        parts.append(features._replace(x={**features.x, RANDOM: random_vectors(random, loader)[0]}))
    scores = {}
    for at, title in enumerate(BASELINES):
        fitted_on, judged = (Vectors(_features(part.x, title), part.y, part.ids) for part in parts)
        scores[f"row{at}"] = run_protocol(PROTOCOL, fitted_on, None, judged, test.classes).scores
    write_npz(folder / "scores.npz", scores)


def _features(parts: Mapping[str, np.ndarray], title: str) -> np.ndarray:
    return combined(parts, title) if title in COMBINATIONS else parts[title]


def _write_case(weights: Path, folders: Folders, folder: Path) -> None:
    """Probabilities (N, L) on the test patches of both sensors, and how alike the first of them are."""
    model, names = as_asked(read_weights(weights), {"sensors": SENSOR_SETS[-1]}).build(), BigEarthNetInfo.CLASSES
    splits = {
        sensor: [opened(patches, sensor, split, model) for split in ("train", "test")]
        for sensor, (patches, _) in folders.items()
    }
    scores = {}
    for kind in KINDS:
        fitted_on, judged = (
            {sensor: vectors_of(model, parts[at], kind == "given") for sensor, parts in splits.items()} for at in (0, 1)
        )
        oli, msi = judged[OLI.name], judged[MSI.name]
        both = Vectors(np.concatenate([oli.x, msi.x]), np.concatenate([oli.y, msi.y]), [*oli.ids, *msi.ids])
        of_both = run_protocol(PROTOCOL, fitted_on[OLI.name], None, both, names).scores
        scores[f"{kind}_oli"], scores[f"{kind}_transfer"] = np.split(of_both, 2)
        scores[f"{kind}_msi"] = run_protocol(PROTOCOL, fitted_on[MSI.name], None, msi, names).scores
        scores[f"{kind}_cosine"], scores[f"{kind}_nearest"] = alike(oli.x[:COMPARED], msi.x[:COMPARED])
    write_npz(folder / "scores.npz", scores)
