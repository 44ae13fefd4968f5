"""Embeddings and scores of patches without their left half: the work of `python -m studies.hidden_half`."""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial.distance import pdist

from datasets.loader import build_dataset
from datasets.patches import Labels, PatchDataset, find_split
from eval.probing.linear_probe import FOLDS
from eval.probing.protocols import Vectors, strong_probe
from eval.statistics.bootstrap import SHARE, Interval, Resampled, resample
from eval.statistics.spatial_blocks import area_folds, neighbour_blocks
from eval.statistics.weighted_metrics import micro_map
from models.inference.embedder import Embedder
from models.moe_mae import MOEMAE
from models.pooling import POOLINGS
from utils.data_config import BigEarthNetInfo
from utils.errors import CheckpointError, DataError
from utils.reporting import reporter

WHOLE, AS_MEAN, LEFT_OUT = "whole", "hidden pixels as the dataset's mean", "hidden pixels left out"
BATCH = 128
LEAST = 3
"""Patches that distances and folds need."""


class Outcome(NamedTuple):
    """One way to embed the patches."""

    distance: float
    """Mean over the patches to the embedding of the whole one, relative to the mean between two whole ones."""
    score: Resampled
    """Micro mAP of the probes of whole patches, a share."""


def embed_ways(model: MOEMAE, dataset: PatchDataset, pool: str) -> dict[str, np.ndarray]:
    """Embeddings (N, D) of whole patches, and of those without their left half, in two ways.

    Raises:
        CheckpointError: for weights that take fill for data, which know no hidden pixels.
    """
    if model.config.published_behaviour:
        raise CheckpointError("published weights take hidden pixels for data: there is nothing to compare")
    embedder, parts = Embedder(model, pool), {WHOLE: [], AS_MEAN: [], LEFT_OUT: []}
    for start in range(0, len(dataset), BATCH):
        raw = dataset.gather(range(start, min(start + BATCH, len(dataset))))
        meta, pixels = dataset.encode(raw.columns), raw.pixels.copy()
        images, valid = dataset.normalize(torch.from_numpy(raw.pixels))
        parts[WHOLE].append(embedder(images, meta, valid))
        pixels[..., : pixels.shape[-1] // 2] = 0
        images, valid = dataset.normalize(torch.from_numpy(pixels))
        parts[LEFT_OUT].append(embedder(images, meta, valid))
        parts[AS_MEAN].append(embedder(images.masked_fill(~valid.unsqueeze(1), 0.0), meta))
    return {way: torch.cat(found).numpy() for way, found in parts.items()}


def outcomes(
    ways: dict[str, np.ndarray], labels: np.ndarray, ids: list[str], names: tuple[str, ...], seed: int
) -> dict[str, Outcome]:
    """Distances and scores of every way.

    Args:
        ways: as `embed_ways` gives them.
        labels: (N, L) multi-hot; -1 where a patch has none: it has a distance only.
        ids: of the patches.
        names: of the labels.
        seed: of folds and intervals.
    """
    spread = pdist(ways[WHOLE]).mean()
    known = np.flatnonzero((labels >= 0).all(axis=1))
    labelled = [ids[row] for row in known]
    folds = area_folds(labelled, FOLDS, seed)
    scores = {way: np.zeros((len(known), len(names))) for way in ways}
    for fold in range(FOLDS):
        test, train = (known[folds == fold], known[folds != fold])
        if not len(test):
            continue
        fitted_on = Vectors(ways[WHOLE][train], labels[train], [ids[row] for row in train])
        # One fit scores all ways.
        every = Vectors(
            np.concatenate([vectors[test] for vectors in ways.values()]),
            np.concatenate([labels[test]] * len(ways)),
            [ids[row] for row in test] * len(ways),
        )
        found = strong_probe(fitted_on, None, every, names, seed=seed).scores
        for way, part in zip(ways, np.split(found, len(ways)), strict=True):
            scores[way][folds == fold] = part
    blocks = neighbour_blocks(labelled)
    return {
        way: Outcome(
            float(np.linalg.norm(vectors - ways[WHOLE], axis=1).mean() / spread),
            resample(micro_map(labels[known], scores[way]), blocks, seed, limits=SHARE),
        )
        for way, vectors in ways.items()
    }


def read_patches(folder: Path, split: Path, model: MOEMAE) -> tuple[PatchDataset, np.ndarray]:
    """All patches of a split as the model takes them, and their labels, (N, L), -1 where a patch has none."""
    file, config = str(find_split(split, folder)), model.config

    def read(labels: Labels) -> PatchDataset:
        size, fields = config.img_size, config.meta_fields
        return build_dataset(
            BigEarthNetInfo.NAME, str(folder), file, labels=labels, image_size=size, meta_fields=fields
        )

    dataset, labelled = read("none"), read("skip")
    if len(labelled) < LEAST or labelled.labels is None:
        raise DataError(f"{file}: {len(labelled)} patches have labels, {LEAST} are needed at least")
    labels = np.full((len(dataset), len(dataset.classes)), -1, np.int64)
    rows = {name: row for row, name in enumerate(dataset.ids)}
    labels[[rows[name] for name in labelled.ids]] = labelled.labels.numpy()
    return dataset, labels


def say(found: dict[str, Outcome], difference: Interval, dataset: PatchDataset, pool: str) -> None:
    """The figures as a table."""
    reporter.info(f"{len(dataset)} {dataset.kind} without their left half, {POOLINGS[pool].title}")
    reporter.info(f"{'':36s} distance   micro mAP of the probe of whole patches, %")
    for way, outcome in found.items():
        reporter.info(f"{way:36s} {outcome.distance:8.3f}   {_percent(outcome.score.interval())}")
    reporter.info(f"{'left out minus the mean':36s} {'':8s}   {_percent(difference)}")
    reporter.info("distance: to the embedding of the whole patch, relative to the mean distance between two patches")


def record(
    found: dict[str, Outcome], difference: Interval, dataset: PatchDataset, arguments: argparse.Namespace
) -> dict[str, object]:
    """The figures as plain values."""
    rows = {
        way: {"distance": outcome.distance, "map_micro": outcome.score.interval()._asdict()}
        for way, outcome in found.items()
    }
    about = {"patches": len(dataset), "kind": dataset.kind, "pool": arguments.pool, "seed": arguments.seed}
    return {**about, "ways": rows, "left_out_minus_mean": difference._asdict()}


def _percent(found: Interval) -> str:
    bounds = "" if found.bounds is None else f" [{100 * found.bounds[0]:.1f}, {100 * found.bounds[1]:.1f}]"
    return f"{100 * found.value:5.1f}{bounds}"
