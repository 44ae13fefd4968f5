"""What the loop of `finetuning.run` trains: the interface, and the one for images with labels."""

from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.build import build_configured_dataset
from configs.finetuning import TEST, TRAIN, VAL, FinetuningConfig
from datasets.loader import BatchLoader, shuffled
from datasets.patches import Batch, PatchDataset
from eval.probing.representation import score_probabilities
from finetuning.decoder import Standardise
from finetuning.encoders import TrainedEncoder
from models.pooling import pool_tokens, vector_width
from utils.config import required
from utils.errors import DataError


class Learner(Protocol):
    """A task: its data, its head, and how well it does."""

    classes: tuple[str, ...]
    simulated: bool
    encoder: TrainedEncoder
    steps: int
    """Of an epoch."""
    measure: str
    """Name of the score, of which more is better."""

    @property
    def head(self) -> nn.Module:
        """What is trained on top of the encoder."""
        ...

    def loss(self, epoch: int, step: int) -> Tensor:
        """Of one batch, a function of seed, epoch and step."""
        ...

    def score(self) -> float:
        """On the validation part, by encoder and head as they are."""
        ...

    def test(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """All figures of the test part, JSON-ready, empty where there is none; and the arrays that they follow from."""
        ...

    def fingerprint(self) -> str:
        """Of the data."""
        ...

    def about(self) -> dict[str, Any]:
        """Plain values that prediction needs beside the weights."""
        ...


class LinearHead(nn.Module):
    """Standardised vectors to scores of classes."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.standardise = Standardise(width)
        self.classify = nn.Linear(width, classes)
        nn.init.zeros_(self.classify.weight)
        nn.init.zeros_(self.classify.bias)

    def fit(self, vectors: Tensor) -> None:
        """Take over means and spreads from (N, W) vectors."""
        self.standardise.fit(vectors.T)

    def forward(self, vectors: Tensor) -> Tensor:
        """(N, W) to (N, K)."""
        return self.classify(self.standardise(vectors[:, :, None, None])[:, :, 0, 0])


class ImageLearner:
    """Images with one label or several, and a linear head on pooled tokens.

    Of a frozen encoder the vectors are computed once.

    Args:
        config: validated.
        encoder: on its device.
        device: of encoder and head.
    """

    def __init__(self, config: FinetuningConfig, encoder: TrainedEncoder, device: torch.device) -> None:
        self.config, self.encoder, self.device = config, encoder, device
        model = encoder.model.config
        self.pool = config.head.pool or model.pool
        self.sets = {part: self._dataset(part) for part in (TRAIN, VAL, TEST) if part in (config.data.splits or {})}
        train = self.sets[TRAIN]
        self.classes, self.simulated = tuple(train.classes), train.simulated
        self.multilabel = config.task == "multilabel"
        self.measure = "map_micro" if self.multilabel else "accuracy"
        batch = config.training.batch_size
        self.steps = -(-len(train) // batch)
        self.loaders = {part: BatchLoader(one, batch, config.data.num_workers, device, config.data.resident)
                        for part, one in self.sets.items()}  # fmt: skip
        self._kept: dict[str, tuple[Tensor, Tensor]] = {}
        self.head = LinearHead(vector_width(model, self.pool), len(self.classes)).to(device)
        with torch.no_grad():
            self.head.fit(self._vectors(TRAIN)[0])
        self._kept = self._kept if encoder.frozen else {}

    def loss(self, epoch: int, step: int) -> Tensor:
        """See `Learner`."""
        training = self.config.training
        order = shuffled(len(self.sets[TRAIN]), training.seed, epoch)
        rows = order[step * training.batch_size : (step + 1) * training.batch_size]
        if self.encoder.frozen:
            vectors, labels = (values[rows] for values in self._vectors(TRAIN))
        else:
            batch = next(iter(self.loaders[TRAIN].training_batches(rows)))
            vectors, labels = self._pooled(batch), _labels(batch)
        scores = self.head(vectors)
        if self.multilabel:
            return F.binary_cross_entropy_with_logits(scores, labels.to(scores.dtype))
        return F.cross_entropy(scores, labels)

    def score(self) -> float:
        """See `Learner`."""
        return float(self._metrics(VAL)[self.measure] or 0.0)  # None: a part without a positive of any label

    def test(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """See `Learner`."""
        return (self._metrics(TEST) if TEST in self.sets else {}), {}

    def fingerprint(self) -> str:
        """See `Learner`."""
        return "/".join(one.fingerprint() for one in self.sets.values())

    def about(self) -> dict[str, Any]:
        """See `Learner`."""
        return {"pool": self.pool, "statistics": self.sets[TRAIN].statistics_name}

    def _dataset(self, part: str) -> PatchDataset:
        config = self.config.of_images()
        path = required(config.data.dataset_path, "data.dataset_path")
        split = required(config.data.splits, "data.splits")[part]
        dataset = build_configured_dataset(config, self.encoder.model.config, path, split, config.data.missing_labels)
        if dataset.labels is None:
            raise DataError(f"{path}: {part} has no labels")
        multilabel = dataset.labels.dim() == 2
        if multilabel != (self.config.task == "multilabel"):
            kind = "multilabel" if multilabel else "multiclass"
            raise DataError(
                f"{path}: its images have {'several labels' if multilabel else 'one label'} each; set task: {kind}"
            )
        dataset.hold_in_memory()
        return dataset

    def _pooled(self, batch: Batch) -> Tensor:
        tokens, visible = self.encoder.tokens(batch.images, batch.meta, batch.valid, batch.bands)
        return pool_tokens(tokens, self.pool, self.encoder.model.config.num_prefix, visible)

    @torch.no_grad()
    def _vectors(self, part: str) -> tuple[Tensor, Tensor]:
        """Vectors and labels of a part, in the order of its patches."""
        if part not in self._kept:
            batches = self.loaders[part].training_batches(range(len(self.sets[part])))
            found = [(self._pooled(batch), _labels(batch)) for batch in batches]
            vectors, labels = (torch.cat(values) for values in zip(*found, strict=True))
            self._kept[part] = vectors, labels
        return self._kept[part]

    def _metrics(self, part: str) -> dict[str, Any]:
        if not self.encoder.frozen:
            self._kept.pop(part, None)
        vectors, labels = self._vectors(part)
        with torch.no_grad():
            scores = self.head(vectors)
        found = scores.sigmoid() if self.multilabel else scores.softmax(dim=1)
        trained_on = self.sets[TRAIN].labels_of(range(len(self.sets[TRAIN])))
        return score_probabilities(found.cpu().numpy(), labels.cpu().numpy(), _known(trained_on).numpy(), self.classes)


def _labels(batch: Batch) -> Tensor:
    return _known(batch.labels).to(batch.images.device)


def _known(labels: Tensor | None) -> Tensor:
    if labels is None:
        raise ValueError("a dataset without labels")
    return labels
