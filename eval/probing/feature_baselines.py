"""Probe scores of hand-made features, to compare embeddings with."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from datasets.loader import BatchLoader
from eval.probing.protocols import Scores, Vectors, run_protocol
from transformation.image_statistics import image_statistics


class Features(NamedTuple):
    """Several representations of the same N patches."""

    x: dict[str, np.ndarray]
    """Name of the representation to (N, D)."""
    y: np.ndarray
    """(N,) class index or (N, L) multi-hot."""
    ids: list[str]

    def vectors(self, name: str) -> Vectors:
        """One representation."""
        return Vectors(self.x[name], self.y, self.ids)

    def with_embeddings(self, name: str, x: np.ndarray, ids: Sequence[str]) -> "Features":
        """The same and embeddings (N, D) of the same patches in the same order.

        Raises:
            ValueError: when the ids differ.
        """
        if list(ids) != self.ids:
            raise ValueError("the embeddings are of other patches, or in another order")
        return self._replace(x={**self.x, name: x})


def feature_baselines(loader: BatchLoader) -> Features:
    """Features without a model of every patch that the loader gives.

    "class prior" is a constant feature, from which a probe learns the class frequencies and no more; "image
    statistics" are 28 numbers (see `image_statistics`); "metadata" are the 8 numbers that the model is given, and
    "statistics + metadata" both, where the dataset has metadata.

    Args:
        loader: of a dataset with labels.

    Raises:
        ValueError: when the dataset was read without labels.
    """
    statistics, metadata, labels, ids = [], [], [], []
    for batch in tqdm(loader.batches(), total=len(loader), desc="image statistics", leave=False, disable=None):
        if batch.ids:
            statistics.append(image_statistics(batch.images, batch.valid).cpu())
            metadata.append(None if batch.meta is None else batch.meta.flatten(1).cpu())
            if batch.labels is None:
                raise ValueError("feature baselines need a dataset that was read with labels")
            labels.append(batch.labels.cpu())
            ids += batch.ids
    x = {"class prior": np.zeros((len(ids), 1)), "image statistics": torch.cat(statistics).numpy()}
    if metadata[0] is not None:
        x["metadata"] = torch.cat(metadata).numpy()
        x["statistics + metadata"] = np.hstack([x["image statistics"], x["metadata"]])
    return Features(x, torch.cat(labels).numpy(), ids)


def probe_features(
    train: Features, val: Features | None, test: Features, names: Sequence[str], seed: int = 0
) -> dict[str, Scores]:
    """Evaluate every representation by `eval.probing.protocols.strong_probe` (see `run_protocol`).

    Args:
        train, val, test: the same representations of three splits; `val` may be None.
        names: of the classes.
        seed: of the folds in which C is chosen where there is no `val`.
    """
    splits = {
        name: (train.vectors(name), None if val is None else val.vectors(name), test.vectors(name)) for name in train.x
    }
    return {name: run_protocol("strong_probe", *parts, names, seed=seed) for name, parts in splits.items()}
