"""Probe scores of hand-made features, to compare embeddings with."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from datasets.loader import BatchLoader
from eval.probing.protocols import run_protocol
from eval.probing.representation import Scores, Vectors
from transformation.image_statistics import image_statistics

STATISTICS, METADATA, PRODUCTS = "image statistics", "metadata", "products"
RANDOM, RANDOM_WHITE = "random features", "random features of whitened pixels"
"""Parts of a combination: 28 statistics of an image, 8 metadata numbers, their 36 pairwise products with the squares,
and 512 random convolutional features of the image, of two kinds (`eval.probing.random_features`)."""

COMBINATIONS: dict[str, tuple[str, ...]] = {
    RANDOM: (RANDOM,),
    "random features + statistics": (RANDOM, STATISTICS),
    "random features + metadata": (RANDOM, METADATA),
    "random features + statistics + metadata": (RANDOM, STATISTICS, METADATA),
    "statistics + metadata + products": (STATISTICS, METADATA, PRODUCTS),
    "random features + statistics + metadata + products": (RANDOM, STATISTICS, METADATA, PRODUCTS),
    RANDOM_WHITE: (RANDOM_WHITE,),
    f"{RANDOM_WHITE} + statistics": (RANDOM_WHITE, STATISTICS),
    f"{RANDOM_WHITE} + statistics + metadata": (RANDOM_WHITE, STATISTICS, METADATA),
    f"{RANDOM_WHITE} + statistics + metadata + products": (RANDOM_WHITE, STATISTICS, METADATA, PRODUCTS),
}
"""Baselines beside those of `feature_baselines`, by name: the parts whose numbers stand side by side."""


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
    x = {"class prior": np.zeros((len(ids), 1)), STATISTICS: torch.cat(statistics).numpy()}
    if metadata[0] is not None:
        x[METADATA] = torch.cat(metadata).numpy()
        x["statistics + metadata"] = np.hstack([x[STATISTICS], x[METADATA]])
    return Features(x, torch.cat(labels).numpy(), ids)


def combined(parts: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """One of `COMBINATIONS`, (N, D).

    Args:
        parts: name of a part to (N, D); products need not be among them.
        name: the combination's.
    """
    return np.hstack(
        [_pairwise_products(parts[METADATA]) if part == PRODUCTS else parts[part] for part in COMBINATIONS[name]]
    )


def _pairwise_products(x: np.ndarray) -> np.ndarray:
    """(N, D) to (N, D (D + 1) / 2): of every two columns, and their squares."""
    first, second = np.triu_indices(x.shape[1])
    return x[:, first] * x[:, second]


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
