"""Pictures of reconstructions, on the masks that the metrics were computed on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from datasets.patches import Batch, PatchDataset
from eval.evaluate_mae import evaluation_masking, everything_kept
from eval.reconstruction_baselines import inverse_distance
from models.masking import patchify, unpatchify
from models.moe_mae import MOEMAE
from utils.analysis_utils import plot_reconstructions, save_figure


@torch.no_grad()
def save_masked_panels(model: MOEMAE, dataset: PatchDataset, count: int, seed: int, folder: Path) -> Path:
    """Original, masked, reconstruction and interpolation of `count` evenly spread patches, one shared stretch a row.

    Visible patches show the original in both reconstructions.
    """
    batch = _some(model, dataset, count)
    masking = evaluation_masking(batch, model, seed)
    p, C = model.config.patch_size, batch.images.shape[1]
    predicted, _ = model(batch.images, batch.meta, masking, bands=batch.bands)
    interpolated = inverse_distance(batch.images, batch.valid, masking.mask, p)
    original = patchify(batch.images, p)
    removed = masking.mask.bool().unsqueeze(-1)
    columns = {
        "original": original,
        "masked": original.masked_fill(removed, float("nan")),
        "reconstruction": torch.where(removed, predicted, original),
        "interpolation": torch.where(removed, interpolated, original),
    }
    title = f"Masked reconstruction of {dataset.kind} ({model.masking.ratio:.0%} of the tokens removed)"
    images = {name: to_digital_numbers(unpatchify(patches, p, C), batch, dataset) for name, patches in columns.items()}
    return _save(images, batch, title, folder / "reconstructions_masked.png")


@torch.no_grad()
def save_full_panels(model: MOEMAE, dataset: PatchDataset, count: int, folder: Path) -> Path:
    """Original and the reconstruction that sees every patch, of `count` evenly spread patches."""
    batch = _some(model, dataset, count)
    predicted, _ = model(batch.images, batch.meta, everything_kept(batch, model), bands=batch.bands)
    rebuilt = unpatchify(predicted, model.config.patch_size, batch.images.shape[1])
    images = {
        "original": to_digital_numbers(batch.images, batch, dataset),
        "reconstruction": to_digital_numbers(rebuilt, batch, dataset),
    }
    title = f"Reconstruction of {dataset.kind}, nothing masked"
    return _save(images, batch, title, folder / "reconstructions_full.png")


def plot_neighbours(
    asked: PatchDataset,
    among: PatchDataset,
    ids: Sequence[str],
    found: Sequence[Sequence[str]],
    title: str,
) -> Figure:
    """True-colour patches, one a row with those found for it, all of a row in one stretch.

    Args:
        asked: the dataset of `ids`.
        among: the dataset of `found`, the nearest first.
        ids: one per row.
        found: as many for every row.
        title: of the figure.
    """
    rows = []
    for image, names in zip(digital_numbers_of(asked, ids), found, strict=True):
        others = {f"neighbour {i}": other for i, other in enumerate(digital_numbers_of(among, names), 1)}
        rows.append({"patch": image, **others})
    return plot_reconstructions(rows, ids, title, stretch_all=True)


def digital_numbers_of(dataset: PatchDataset, ids: Sequence[str]) -> np.ndarray:
    """Digital numbers of the named patches, nodata as NaN: (B, C, H, W)."""
    batch = dataset.batch([dataset.ids.index(name) for name in ids])
    return to_digital_numbers(batch.images, batch, dataset)


def to_digital_numbers(images: Tensor, batch: Batch, dataset: PatchDataset) -> np.ndarray:
    """Z-scores to digital numbers, nodata as NaN: (B, C, H, W)."""
    numbers = dataset.normalize.invert(images.cpu().float())
    return numbers.masked_fill(~batch.valid.cpu().unsqueeze(1), float("nan")).numpy()


def _some(model: MOEMAE, dataset: PatchDataset, count: int) -> Batch:
    indices = np.unique(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int))
    device = next(model.parameters()).device
    return dataset.batch(indices.tolist()).to(device)


def _save(images: dict[str, np.ndarray], batch: Batch, title: str, path: Path) -> Path:
    rows = [{name: values[i] for name, values in images.items()} for i in range(len(batch.ids))]
    return save_figure(plot_reconstructions(rows, batch.ids, title), path)
