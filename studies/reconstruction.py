"""How well masked patches are filled in: encoders beside predictors that need no model, on the same masks."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from datasets.loader import BatchLoader
from eval.baselines import BASELINES
from eval.evaluate_mae import evaluation_masking
from eval.intervals import Resampled, of_runs
from eval.panels import save_masked_panels
from eval.ranked_metrics import Statistic
from models.losses import PatchErrors, patch_errors
from models.moe_mae import MOEMAE
from studies.bench import Bench
from studies.main_runs import Encoder, encoders
from studies.resampling import resampled_stage
from studies.runs import Run
from studies.sections import Cell, Figure, Section, Table, Value
from studies.verdicts import one_seed, verdict

BASELINE_TITLES = {
    "dataset_mean": "mean of the dataset",
    "visible_mean": "visible mean of each image",
    "interpolation": "interpolation of the visible patches",
}
COMPARED = ("visible_mean", "interpolation")
"""Baselines that a table shows the distance to."""

PANELS = 6
"""Patches in the picture."""

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
        guesses = {MODEL: model(batch.images, batch.meta, masking)[0]}
        guesses |= {name: guess(batch.images, batch.valid, masking.mask, p) for name, guess in BASELINES.items()}
        for name, guess in guesses.items():
            found[name].append(_per_image(patch_errors(guess, batch.images, batch.valid, p), masking.mask))
        ids += batch.ids
    sums = {name: np.concatenate(parts) for name, parts in found.items()}
    return {name: ImageErrors(rows[:, 0], rows[:, 1]) for name, rows in sums.items()}, ids


def reconstruction_section(bench: Bench) -> Section:
    """The masked loss of every encoder and every baseline on the main dataset's test patches."""
    source = bench.data.main
    losses = {encoder.name: _losses(bench, encoder) for encoder in encoders(bench)}
    reference = next(iter(losses[name][0] for name in losses if losses[name]))
    baselines = {BASELINE_TITLES[name]: [{**reference, MODEL: reference[name]}] for name in BASELINES}
    titles = {encoder.name: encoder.title for encoder in encoders(bench)}
    rows = [_row(title, runs) for title, runs in baselines.items()]
    rows += [_row(titles[name], runs) for name, runs in losses.items()]
    columns = ["predictor", "masked loss", *(f"minus {BASELINE_TITLES[name]}" for name in COMPARED)]
    table = Table(
        "reconstruction",
        "Reconstruction of masked patches",
        columns,
        rows,
        f"{_count(bench)} {source.patches()}, not pretrained on",
        "Squared error summed over the values of a patch, z-scores; lower is better. Brackets: 95 % interval.",
    )
    return Section("Reconstruction", (), [table, _claims(bench, losses["main"], table.measured_on)], _figures(bench))


def _per_image(errors: PatchErrors, mask: torch.Tensor) -> np.ndarray:
    """(B, 2): error and weight of every image's masked patches."""
    return torch.stack([(part * mask).sum(dim=1) for part in errors], dim=1).double().cpu().numpy()


def _losses(bench: Bench, encoder: Encoder) -> list[dict[str, Resampled]]:
    """For every seed: the masked loss of the model and of the baselines, over all folds."""
    return [_loss(bench, [encoder.run(seed, fold) for fold in range(len(bench.data.main.folds))])
            for seed in encoder.seeds]  # fmt: skip


def _loss(bench: Bench, runs: Sequence[Run]) -> dict[str, Resampled]:
    source = bench.data.main
    prints = [source.dataset("test", run.config, fold, labels=False).fingerprint() for fold, run in enumerate(runs)]

    def find() -> tuple[dict[str, Statistic], np.ndarray]:
        parts = []
        for fold, run in enumerate(runs):
            loader = source.loader("test", bench.runs.device, run.config, fold, labels=False)
            parts.append(image_errors(bench.runs.model(run), loader, bench.config.seed))
        errors = {name: _joined([part[name] for part, _ in parts]) for name in parts[0][0]}
        blocks = source.blocks([patch_id for _, ids in parts for patch_id in ids])
        return {name: one.loss() for name, one in errors.items()}, blocks

    inputs = {"weights": [run.digest for run in runs], "patches": prints}
    return resampled_stage(bench, f"reconstruction/{runs[0].name}/seed{runs[0].seed}", inputs, find)


def _joined(parts: Sequence[ImageErrors]) -> ImageErrors:
    return ImageErrors(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _row(title: str, runs: Sequence[dict[str, Resampled]]) -> list[Cell]:
    """Title, loss, and its distance to the baselines; empty where nothing was run."""
    if not runs:
        return [title, *[None] * (1 + len(COMPARED))]
    differences = [[run[MODEL].minus(run[name]) for run in runs] for name in COMPARED]
    same = [all(not one.draws.any() for one in several) for several in differences]
    cells = [None if equal else _value(several) for equal, several in zip(same, differences, strict=True)]
    return [title, _value([run[MODEL] for run in runs]), *cells]


def _value(runs: Sequence[Resampled]) -> Value:
    return Value(*of_runs(runs), digits=2)


def _claims(bench: Bench, runs: Sequence[dict[str, Resampled]], measured_on: str) -> Table:
    """Whether the main runs beat the baselines: the distances the other way round, above 0 where they do."""
    rows: list[list[Cell]] = []
    for name in COMPARED:
        gain = _value([run[name].minus(run[MODEL]) for run in runs])
        title = BASELINE_TITLES[name]
        rows.append([f"the model beats the {title}", f"{title} minus this model", gain, verdict([gain])])
    columns = ["claim", "compared", "difference of masked loss", "verdict"]
    note = "A model that does not beat the visible mean has learned nothing of use." + one_seed(bench)
    return Table("reconstruction_claims", "Is that any good?", columns, rows, measured_on, note)


def _figures(bench: Bench) -> list[Figure]:
    run = next(encoder for encoder in encoders(bench) if encoder.name == "main").run(
        bench.config.pretraining_seeds[0], 0
    )
    source = bench.data.main
    dataset = source.dataset("test", run.config, 0, labels=False)

    def work(folder: Path) -> None:
        save_masked_panels(bench.runs.model(run), dataset, PANELS, bench.config.seed, folder)

    inputs = {"weights": run.digest, "patches": dataset.fingerprint(), "panels": PANELS, "seed": bench.config.seed}
    stage = bench.workbench.stage("reconstruction/panels", inputs, work, quiet=True)
    curve = next(run.folder.glob("loss_curve_*.png"))
    return [
        Figure(curve, f"Loss of the main run, seed {run.seed}, on {source.patches()}."),
        Figure(
            stage.folder / "reconstructions_masked.png",
            f"Test patches ({source.patches()}): original, masked, what the main run makes of it, interpolation.",
        ),
    ]


def _count(bench: Bench) -> str:
    source = bench.data.main
    return f"{sum(len(source.dataset('test', None, fold, labels=False)) for fold in range(len(source.folds))):,}"
