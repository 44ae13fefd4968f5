"""The work around the model the way the published code does it: a training step, embedding, loading, the probe."""

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.warp
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.reference import ReferenceMAE
from models.config import ModelConfig
from scheduler.schedulers import WarmupCosineLR
from utils.data_config import IMAGE_SIZE, BigEarthNetInfo
from utils.data_utils import parse_patch_id
from utils.metadata import PUBLISHED_FIELDS

BATCH = 128
EMBED_BATCH = 64
"""Patches a training step and an embedding pass (published)."""

LEARNING_RATE, WEIGHT_DECAY, GRAD_CLIP = 3e-4, 0.05, 1.0
SCHEDULE = WarmupCosineLR.by_epochs(LEARNING_RATE, epochs=500, steps_per_epoch=2107, warmup_fraction=0.05)
"""The published recipe: 269,695 patches are 2,107 steps of 128."""

SAG_ITERATIONS = 1000


def by_field(meta: Tensor) -> dict[str, Tensor]:
    """Metadata (B, 4, 2) as one (B, 2) tensor per field."""
    return {field: meta[:, i].contiguous() for i, field in enumerate(PUBLISHED_FIELDS)}


class ReferenceTraining:
    """A model in training: default AdamW, a step at a time, every loss read by the host after every step.

    Args:
        config: the model's numbers.
        device: mixed precision with a loss scaler on CUDA, float32 elsewhere.
        seed: of the weights, and of torch's global generator that everything random is drawn from.
    """

    def __init__(self, config: ModelConfig, device: torch.device, seed: int) -> None:
        torch.manual_seed(seed)
        self.device = device
        self.model = ReferenceMAE(config).to(device).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        self.mixed = device.type == "cuda"
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.mixed)
        self.steps = 0

    def step(self, images: Tensor, meta: dict[str, Tensor]) -> dict[str, float]:
        """One step on a batch as the loader collates it, on the CPU; returns the losses."""
        images = images.to(self.device)
        meta = {field: value.to(self.device) for field, value in meta.items()}
        for group in self.optimizer.param_groups:
            group["lr"] = SCHEDULE(self.steps)
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, enabled=self.mixed):
            losses, _ = self.model(images, meta)
        if not torch.isfinite(losses.total):
            raise FloatingPointError(f"the reference's loss is {losses.total.item()} in step {self.steps}")
        self.scaler.scale(losses.total).backward()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), GRAD_CLIP)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.steps += 1
        return {name: value.item() for name, value in losses._asdict().items()}


@torch.no_grad()
def reference_embed(model: ReferenceMAE, images: Tensor, meta: Tensor, device: torch.device) -> np.ndarray:
    """Tokens before the final norm, (B, 105 * D) float32, 64 patches at a time, from CPU tensors to a NumPy array."""
    model.eval()
    rows = []
    for at in range(0, len(images), EMBED_BATCH):
        part = slice(at, at + EMBED_BATCH)
        fields = {field: value.to(device) for field, value in by_field(meta[part]).items()}
        _, tokens, _ = model.encoder(images[part].to(device), fields)
        rows.append(tokens.flatten(1).cpu().numpy())
    return np.concatenate(rows)


class ReferenceFiles(Dataset[dict[str, Any]]):
    """Patches one file at a time: opened for the pixels, opened again for the place, a projection for each.

    Args:
        folder: with the GeoTIFFs.
        ids: names without the extension.
    """

    def __init__(self, folder: Path, ids: list[str]) -> None:
        self.folder, self.ids = folder, ids
        self.mean = torch.tensor(BigEarthNetInfo.STATISTICS.mean).view(-1, 1, 1)
        self.std = torch.tensor(BigEarthNetInfo.STATISTICS.std).view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path = self.folder / f"{self.ids[index]}.tif"
        with rasterio.open(path) as source:
            pixels = source.read().astype(np.float32)
        top, left = (pixels.shape[1] - IMAGE_SIZE) // 2, (pixels.shape[2] - IMAGE_SIZE) // 2
        image = torch.from_numpy(pixels)[:, top : top + IMAGE_SIZE, left : left + IMAGE_SIZE]
        longitude, latitude = place(path)
        time = parse_patch_id(self.ids[index])
        angles = {
            "week": time.when.isocalendar().week * 2 * math.pi / 52,
            "hour": (time.published_hour // 10) * 2 * math.pi / 24,
            "lat": math.radians(latitude),
            "lon": math.radians(longitude),
        }
        pairs = {field: torch.tensor([math.sin(angle), math.cos(angle)]) for field, angle in angles.items()}
        return {"image": (image - self.mean) / self.std, **pairs, "id": self.ids[index]}


def place(path: Path) -> tuple[float, float]:
    """Longitude and latitude of a file's centre, by a projection built for this file alone."""
    with rasterio.open(path) as source:
        left, bottom, right, top = source.bounds
        target = rasterio.CRS.from_epsg(4326)
        longitudes, latitudes, *_ = rasterio.warp.transform(
            rasterio.CRS.from_wkt(source.crs.to_wkt()), target, [(left + right) / 2], [(bottom + top) / 2]
        )
    return longitudes[0], latitudes[0]


def reference_loader(folder: Path, ids: list[str]) -> Iterator[dict[str, Any]]:
    """Batches of 128 in one process, collated sample by sample."""
    return iter(DataLoader(ReferenceFiles(folder, ids), batch_size=BATCH))


def reference_probe(x: np.ndarray, y: np.ndarray, seed: int) -> LogisticRegression:
    """Multinomial logistic regression as published: `sag`, 1,000 iterations, C = 1; it need not converge."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(solver="sag", max_iter=SAG_ITERATIONS, C=1.0, random_state=seed).fit(x, y)
