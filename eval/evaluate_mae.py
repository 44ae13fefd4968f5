"""Reconstruction metrics of a model and of the baselines, on the same masks, the same numbers at every run."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from datasets.loader import BatchLoader, Part
from datasets.patches import Batch
from eval.reconstruction_baselines import BASELINES
from models.losses import Losses, LossWeights, MaskedPass, PatchErrors, mae_loss, masked_pass, patch_errors
from models.masking import Masking, keep_all, patchify, seeded_masking, visible_unless_all
from models.moe_mae import MOEMAE
from transformation.transformer import ZScoreNormalize
from utils.errors import DataError
from utils.processes import ALONE, Processes
from utils.sensors import OLI, Sensor


@dataclass
class Mean:
    """A running weighted mean."""

    total: float = 0.0
    weight: float = 0.0

    def add(self, value: float, weight: float) -> None:
        self.total += value * weight
        self.weight += weight

    @property
    def value(self) -> float:
        """0 where nothing was counted."""
        return self.total / self.weight if self.weight else 0.0


def evaluation_masking(batch: Batch, model: MOEMAE, seed: int) -> Masking:
    """The mask of each patch, a function of (seed, its id): whatever the batch size and the order.

    It is drawn among the visible patches.
    """
    keys = ((seed, "evaluation mask", name) for name in batch.ids)
    visible = visible_unless_all(batch.valid, model.config.patch_size)
    return seeded_masking(keys, model.config.num_patches, model.masking, batch.images.device, visible)


def everything_kept(batch: Batch, model: MOEMAE) -> Masking:
    """The masking of a batch that removes nothing of what is visible."""
    visible = visible_unless_all(batch.valid, model.config.patch_size)
    return keep_all(len(batch.images), model.config.num_patches, batch.images.device, visible)


@torch.no_grad()
def validation_losses(
    model: MOEMAE, loader: BatchLoader, seed: int, weights: LossWeights, processes: Processes = ALONE
) -> dict[str, float]:
    """Masked, visible, balance and total loss over a split, without routing noise; the model's mode is restored.

    With several processes each takes a share of the batches, and all return the losses of the whole split.

    Returns:
        `val_loss, val_m_loss, val_um_loss, val_moe_loss`, and `val_patches`: how many patches were counted.
    """
    was_training = model.training
    model.eval()
    patches = 0
    losses = _LossMeans(model.config.published_behaviour)
    part = Part(processes.rank, processes.count)
    bar = tqdm(
        loader.batches(part=part),
        total=len(range(len(loader))[part.of(len(loader))]),
        desc="validation",
        leave=False,
        disable=None if processes.main else True,
    )
    for batch in bar:
        if batch.ids:
            masking = evaluation_masking(batch, model, seed)
            of_batch = mae_loss(model, batch.images, batch.meta, masking, batch.valid, bands=batch.bands)
            losses.add(*of_batch, len(batch.ids))
            patches += len(batch.ids)
    model.train(was_training)
    patches = losses.of_all(processes, patches)
    return {**losses.values(weights), "val_patches": patches}


@torch.no_grad()
def evaluate_reconstruction(model: MOEMAE, loader: BatchLoader, seed: int, weights: LossWeights) -> dict[str, Any]:
    """Everything `eval_mae.py` reports about a split.

    Args:
        model: in evaluation mode.
        loader: the split's batches.
        seed: of the masks.
        weights: of the visible and the balance term in the total loss.

    Returns:
        `masked_loss, visible_loss, balance_loss, total_loss` (squared error summed over a patch's values, z-scores);
        `full_loss` (mean squared error at mask ratio 0); `psnr` per band on masked pixels, dB, reflectance clipped to
        0-1, peak 1; `baselines` with masked loss and PSNR of each; `patches` and `skipped_fill`.

    Raises:
        DataError: when no patch has a valid pixel.
    """
    losses = _LossMeans(model.config.published_behaviour)
    full, patches = Mean(), 0
    psnr = {name: PSNR(loader.dataset.normalize, loader.dataset.sensor) for name in ("model", *BASELINES)}
    baseline_losses = {name: Mean() for name in BASELINES}
    for batch in tqdm(loader.batches(), total=len(loader), desc="evaluating", leave=False, disable=None):
        if not batch.ids:
            continue
        patches += len(batch.ids)
        masking = evaluation_masking(batch, model, seed)
        p = model.config.patch_size
        of_batch, passed = mae_loss(model, batch.images, batch.meta, masking, batch.valid, bands=batch.bands)
        losses.add(of_batch, passed, len(batch.ids))
        psnr["model"].add(passed.predicted, batch, masking.mask, p)
        for name, baseline in BASELINES.items():
            guess = baseline(batch.images, batch.valid, masking.mask, p)
            guess_errors = patch_errors(guess, batch.images, batch.valid, p)
            add_errors(baseline_losses[name], guess_errors, masking.mask, losses.per_batch)
            psnr[name].add(guess, batch, masking.mask, p)
        everything = everything_kept(batch, model)
        whole = masked_pass(model, batch.images, batch.meta, everything, batch.valid, bands=batch.bands)
        add_errors(full, whole.errors, torch.ones_like(masking.mask))
    if not patches:
        raise DataError(
            f"{loader.dataset.root}: none of the {len(loader.dataset):,} patches has a valid pixel (all fill): "
            "there is nothing to evaluate; check dataset_path and dataset_csv"
        )
    found = losses.values(weights)
    return {
        "masked_loss": found["val_m_loss"],
        "visible_loss": found["val_um_loss"],
        "balance_loss": found["val_moe_loss"],
        "total_loss": found["val_loss"],
        "full_loss": full.value / (len(loader.dataset.sensor.bands) * model.config.patch_size**2),
        "psnr": psnr["model"].per_band(),
        "baselines": {
            name: {"masked_loss": baseline_losses[name].value, "psnr": psnr[name].per_band()} for name in BASELINES
        },
        "patches": patches,
        "skipped_fill": loader.skipped_fill,
    }


def add_errors(mean: Mean, errors: PatchErrors, selected: Tensor, per_batch: bool = False) -> None:
    """Count the errors of the `selected` patches (B, N), each valid pixel once; or as one number of the batch."""
    mean.add(errors.mean(selected).item(), 1.0 if per_batch else errors.sums(selected)[1].item())


class _LossMeans:
    """The model's losses over a split: every valid pixel counts once; as published, every batch counts once.

    The balance loss is a property of a batch and so depends on the batch size in both.
    """

    def __init__(self, published_behaviour: bool) -> None:
        self.per_batch = published_behaviour
        self.masked, self.visible, self.balance = Mean(), Mean(), Mean()

    def add(self, losses: Losses, passed: MaskedPass, patches: int) -> None:
        _, masked, _, visible = passed.sums[:4].tolist()
        self.masked.add(losses.masked.item(), 1.0 if self.per_batch else masked)
        self.visible.add(losses.visible.item(), 1.0 if self.per_batch else visible)
        self.balance.add(losses.balance.item(), 1.0 if self.per_batch else patches)

    def of_all(self, processes: Processes, patches: int) -> int:
        """Add up the sums of all processes, here too, and return the patches of all."""
        means = (self.masked, self.visible, self.balance)
        mine = [value for mean in means for value in (mean.total, mean.weight)]
        *sums, patches = processes.sum(torch.tensor([*mine, patches], dtype=torch.float64)).tolist()
        for mean, total, weight in zip(means, sums[::2], sums[1::2], strict=True):
            mean.total, mean.weight = total, weight
        return round(patches)

    def values(self, weights: LossWeights) -> dict[str, float]:
        masked, visible, balance = self.masked.value, self.visible.value, self.balance.value
        total = weights.total(masked, visible, balance)
        return {"val_loss": total, "val_m_loss": masked, "val_um_loss": visible, "val_moe_loss": balance}


class PSNR:
    """Peak signal-to-noise ratio per band over masked valid pixels, from the squared error pooled over the split.

    Reflectance as the sensor scales it, clipped to 0-1; the peak is 1.
    """

    def __init__(self, normalize: ZScoreNormalize, sensor: Sensor = OLI) -> None:
        self.normalize, self.sensor = normalize, sensor
        self.squared = torch.zeros(len(sensor.bands), dtype=torch.float64)
        self.pixels = 0.0

    def add(self, predicted: Tensor, batch: Batch, mask: Tensor, patch_size: int) -> None:
        """Count the masked patches of (B, N, C * p * p) predictions."""
        (B, N, _), C = predicted.shape, len(self.sensor.bands)
        target = self._reflectance(patchify(batch.images, patch_size).view(B, N, C, -1))
        guess = self._reflectance(predicted.view(B, N, C, -1))
        counted = patchify(batch.valid.unsqueeze(1).float(), patch_size) * mask.unsqueeze(-1)  # (B, N, p * p)
        self.squared += ((guess - target).square() * counted.unsqueeze(2)).sum(dim=(0, 1, 3)).cpu().double()
        self.pixels += counted.sum().item()

    def per_band(self) -> dict[str, float | None]:
        """dB; None where nothing was masked or nothing was wrong."""
        errors = (self.squared / max(self.pixels, 1.0)).tolist()
        return {
            band: -10.0 * torch.tensor(error).log10().item() if error > 0 else None
            for band, error in zip(self.sensor.bands, errors, strict=True)
        }

    def _reflectance(self, patches: Tensor) -> Tensor:
        """(..., C, p * p) z-scores to reflectance."""
        mean, std = self.normalize.mean.squeeze(-1), self.normalize.std.squeeze(-1)
        numbers = patches.float() * std.to(patches.device) + mean.to(patches.device)
        return (numbers * self.sensor.scale + self.sensor.offset).clamp(0.0, 1.0)
