"""The masked loss of an encoder and of the baselines, per image and over all folds together."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from datasets.loader import BatchLoader
from eval.evaluate_mae import evaluation_masking
from eval.reconstruction_baselines import BASELINES
from eval.statistics.bootstrap import POSITIVE, Resampled
from eval.statistics.weighted_metrics import Statistic
from models.losses import PatchErrors, masked_pass, patch_errors
from models.moe_mae import MOEMAE
from studies.engine.context import StudyContext
from studies.engine.data import Source
from studies.engine.runs import Run

MODEL = "model"


class ImageErrors(NamedTuple):
    """Squared errors on masked patches, image by image: they sum up to the masked loss of any set of images."""

    error: np.ndarray
    """(N,) summed over the values of all masked patches of an image."""
    weight: np.ndarray
    """(N,) how many masked patches that are, a partly valid one in part."""

    def loss(self) -> Statistic:
        """The masked loss of weighted images: squared error summed over a patch's values, averaged over patches."""
        return lambda weights: float(weights @ self.error / (weights @ self.weight))


@torch.no_grad()
def image_errors(model: MOEMAE, loader: BatchLoader, seed: int) -> tuple[dict[str, ImageErrors], list[str]]:
    """Errors of the model and of every baseline on the same masks, by name (the model is `MODEL`), and the ids.

    Args:
        model: in evaluation mode; the masks follow its mask ratio.
        loader: the images.
        seed: of the masks.
    """
    found: dict[str, list[np.ndarray]] = {name: [] for name in (MODEL, *BASELINES)}
    ids: list[str] = []
    for batch in tqdm(loader.batches(), total=len(loader), desc="reconstructing", leave=False, disable=None):
        if not batch.ids:
            continue
        masking, p = evaluation_masking(batch, model, seed), model.config.patch_size
        errors = {MODEL: masked_pass(model, batch.images, batch.meta, masking, batch.valid, bands=batch.bands).errors}
        for name, baseline in BASELINES.items():
            guess = baseline(batch.images, batch.valid, masking.mask, p)
            errors[name] = patch_errors(guess, batch.images, batch.valid, p)
        for name, measured in errors.items():
            found[name].append(_per_image(measured, masking.mask))
        ids += batch.ids
    sums = {name: np.concatenate(parts) for name, parts in found.items()}
    return {name: ImageErrors(rows[:, 0], rows[:, 1]) for name, rows in sums.items()}, ids


def losses_over_folds(
    context: StudyContext,
    name: str,
    source: Source,
    runs: Sequence[Run],
    more: Mapping[str, Any] | None = None,
    load: Callable[[Run], MOEMAE] | None = None,
    wrap: Callable[[BatchLoader], Any] = lambda loader: loader,
) -> dict[str, Resampled]:
    """The masked loss of the model (`MODEL`) and of the baselines on the test patches of all folds, as a stage.

    Args:
        context: config, data and stages of this reproduction.
        name: of the stage.
        source: whose test patches.
        runs: of one seed, one a fold: each is measured on the patches that its fold tests.
        more: inputs of the stage besides weights and patches: whatever `load` and `wrap` depend on.
        load: gives a run's model; None loads it as it was trained.
        wrap: wraps a fold's loader, to change what the model is given.
    """
    prints = [source.digest("test", run.config, fold, labels=False) for fold, run in enumerate(runs)]

    def find() -> tuple[dict[str, Statistic], np.ndarray]:
        parts = []
        for fold, run in enumerate(runs):
            loader = wrap(source.loader("test", context.runs.device, run.config, fold, labels=False))
            parts.append(image_errors((load or context.runs.model)(run), loader, context.config.seed))
        errors = {key: _joined([found[key] for found, _ in parts]) for key in parts[0][0]}
        blocks = source.blocks([patch_id for _, ids in parts for patch_id in ids])
        return {key: one.loss() for key, one in errors.items()}, blocks

    inputs = {"weights": [run.digest for run in runs], "patches": prints, **(more or {})}
    return context.resampled(name, inputs, find, limits=POSITIVE)


def _joined(parts: Sequence[ImageErrors]) -> ImageErrors:
    return ImageErrors(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _per_image(errors: PatchErrors, mask: torch.Tensor) -> np.ndarray:
    """(B, 2): error and weight of every image's masked patches."""
    return torch.stack([(part * mask).sum(dim=1) for part in errors], dim=1).double().cpu().numpy()
