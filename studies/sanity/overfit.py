"""Sanity: can the model overfit 100 patches? If not, something is wrong with it, its loss or its training.

The training step is that of pretraining; only its masks are always the same for a patch, those of the evaluation.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure as Drawing
from tqdm import tqdm

from datasets.loader import BatchLoader, shuffled
from datasets.patches import Batch
from eval.evaluate_mae import evaluation_masking
from eval.panels import save_masked_panels
from eval.statistics.bootstrap import POSITIVE, Interval
from models.losses import LossWeights
from models.moe_mae import MOEMAE, build_model, count_parameters
from scheduler.schedulers import WarmupCosineLR
from studies.engine.context import StudyContext
from studies.engine.data import Source
from studies.engine.masked_losses import MODEL, ImageErrors, image_errors
from studies.engine.subset import some, subset
from studies.report_parts.sections import Figure, Section, Table, Value
from training.optimizer import adamw
from training.step import StepInputs, StepOptions, TrainStep
from utils.analysis_utils import logarithmic, save_figure

PASS_SHARE = 0.1
"""The criterion: a masked loss below this share of the patches' visible means'."""

BASELINE = "visible_mean"

TRAINED, OTHER_MASKS, UNSEEN = "the same patches, the masks learned", "the same patches, other masks", "other patches"
ROW_TITLES = {
    TRAINED: "training patches, training masks",
    OTHER_MASKS: "training patches, other masks",
    UNSEEN: "unseen patches",
}
"""Key of a finished stage's result to the title of its row."""

PANELS = 4
"""Patches in the picture."""


class Recipe(NamedTuple):
    """How the patches are overfitted: minutes on one core."""

    patches: int = 100
    steps: int = 4000
    batch_size: int = 20
    size: str = "XXS"
    depth: int = 4
    """Of the encoder: fewer blocks than the size's 9 are faster and enough for this."""
    learning_rate: float = 2e-3
    warmup_fraction: float = 0.05
    position_std: float = 0.5
    grad_clip: float = 1.0
    looks: int = 40
    """How often the loss is measured on the way."""


FULL = Recipe()
QUICK = Recipe(steps=200, looks=10)
"""Shows that the experiment runs; far too short to pass."""


class FixedMasks(TrainStep):
    """A training step whose masks are those of the evaluation: a function of seed and patch, not of the step."""

    def inputs(self, batch: Batch, step: int) -> StepInputs:
        """A batch with the random numbers of its step, but for the mask."""
        masking = evaluation_masking(batch, self.model, self.options.seed)
        # Patches are kept by the order of their numbers, which is all that `ids_restore` holds.
        return super().inputs(batch, step)._replace(mask_noise=masking.ids_restore.float())


def overfit(loader: BatchLoader, seed: int, recipe: Recipe) -> tuple[MOEMAE, list[tuple[int, float]]]:
    """Overfit the loader's patches.

    Args:
        loader: with batches of the recipe's size.
        seed: of everything random, and of the masks.
        recipe: without dropout, weight decay and dropped metadata, which all prevent overfitting.

    Returns:
        The model in evaluation mode, and (steps, masked loss on the fixed masks) on the way.
    """
    device = loader.device
    numbers = {"depth": recipe.depth, "position_std": recipe.position_std, "dropout": 0.0}
    model = build_model(recipe.size, seed=seed, **numbers).to(device)
    options = StepOptions(seed, LossWeights(), recipe.grad_clip, 0.0, None, recipe.batch_size)
    scaler = torch.amp.GradScaler(device.type, enabled=False)
    step = FixedMasks(model, adamw(model, device, recipe.learning_rate, 0.0), options, scaler)
    schedule = WarmupCosineLR(recipe.learning_rate, int(recipe.warmup_fraction * recipe.steps), recipe.steps)
    curve = [(0, _masked_loss(model, loader, seed))]
    done = 0
    with tqdm(total=recipe.steps, desc="overfitting", leave=False, disable=None) as bar:
        for epoch in range(-(-recipe.steps // len(loader))):
            model.train()
            for batch in loader.training_batches(shuffled(len(loader.dataset), seed, epoch)):
                if done < recipe.steps:
                    step(batch, done, schedule(done))
                    done += 1
                    bar.update()
            if done >= recipe.steps * len(curve) // recipe.looks or done == recipe.steps:
                step.require_finite()
                curve.append((done, _masked_loss(model, loader, seed)))
    return model.eval(), curve


def overfit_section(context: StudyContext, recipe: Recipe = FULL) -> Section:
    """Overfit some training patches of the main dataset."""
    source = context.data.main
    everything = source.dataset("train").ids
    ids = some(everything, recipe.patches, context.config.seed)
    few = subset(context, source, "overfit", ids)
    inputs = {"recipe": recipe._asdict(), "seed": context.config.seed, "draws": context.config.bootstrap.draws,
              "patches": few.digest("train"),
              "others": source.digest("test", labels=False)}  # fmt: skip
    stage = context.cache.stage("sanity/overfit", inputs, lambda folder: _work(context, few, recipe, folder))
    found = stage.result
    learned = found["rows"][TRAINED]
    share = learned["share"][0]
    passed = share < PASS_SHARE
    rows = [
        [
            ROW_TITLES[name],
            *(Value.of(Interval(*row[key]), scale) for key, scale in (("loss", 1), ("baseline", 1), ("share", 100))),
        ]
        for name, row in found["rows"].items()
    ]
    where = f"{len(ids)} {source.patches()} from the training split and, in the last row, {found['others']:,} others"
    table = Table(
        "sanity_overfit", "Overfitting", ["measured on", "masked loss", "each image's visible mean", "share, %"],
        rows, where, "Squared error summed over a patch's values. Brackets: 95 % interval over blocks of patches.",
    )  # fmt: skip
    text = [
        f"Size {recipe.size} with {recipe.depth} blocks and no dropout ({found['parameters']:,} parameters) on "
        f"{len(ids)} patches, {recipe.steps:,} steps of {recipe.batch_size}, the mask of each patch always the same. "
        f"Criterion: masked loss below {PASS_SHARE:.0%} of that of each image's visible mean on the same masks.",
        f"It is {100 * share:.1f} %: {'passed' if passed else 'NOT passed'}."
        + ("" if recipe.steps >= FULL.steps else " This was a quick run, too short to pass."),
        "The other rows measure generalisation: to other masks of the same patches, and to unseen patches.",
    ]
    figures = [
        Figure(stage.folder / "overfit.png", "Masked loss during overfitting."),
        Figure(stage.folder / "reconstructions_masked.png", "Some of the patches, masked as in training."),
    ]
    return Section(f"Sanity: overfit {len(ids)} patches", text, [table], figures, passed)


def _work(context: StudyContext, few: Source, recipe: Recipe, folder: Path) -> dict[str, Any]:
    seed, device = context.config.seed, context.runs.device
    dataset = few.dataset("train")
    loader = BatchLoader(dataset, recipe.batch_size, 0, device)
    model, curve = overfit(loader, seed, recipe)
    others = context.data.main.loader("test", device, model.config, labels=False)
    looks = {
        TRAINED: (loader, seed),
        OTHER_MASKS: (loader, seed + 1),
        UNSEEN: (others, seed),
    }
    rows, counted = {}, 0
    for name, (of, masks) in looks.items():
        errors, ids = image_errors(model, of, masks)
        blocks, counted = (context.data.main if of is others else few).blocks(ids), len(ids)
        rows[name] = _row(errors, blocks, context)
    save_figure(plot_overfit(curve, rows[TRAINED]["baseline"][0]), folder / "overfit.png")
    save_masked_panels(model, dataset, PANELS, seed, folder)
    return {"curve": curve, "rows": rows, "parameters": count_parameters(model), "others": counted}


def _row(errors: dict[str, ImageErrors], blocks: np.ndarray, context: StudyContext) -> dict[str, Interval]:
    mine, theirs = errors[MODEL].loss(), errors[BASELINE].loss()
    statistics = {"loss": mine, "baseline": theirs, "share": lambda weights: mine(weights) / theirs(weights)}
    return {name: context.bootstrap(one, blocks, limits=POSITIVE).interval() for name, one in statistics.items()}


def _masked_loss(model: MOEMAE, loader: BatchLoader, seed: int) -> float:
    errors, _ = image_errors(model.eval(), loader, seed)
    return float(errors[MODEL].error.sum() / errors[MODEL].weight.sum())


def plot_overfit(curve: list[tuple[int, float]], baseline: float) -> Drawing:
    """Masked loss by step, with the visible mean's and the criterion."""
    figure = Drawing(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*curve, strict=True), "o-", ms=3, label="masked loss, fixed masks")
    axes.axhline(baseline, color="0.4", ls="--", label="each image's visible mean")
    axes.axhline(PASS_SHARE * baseline, color="C1", ls=":", label=f"criterion: {PASS_SHARE:.0%} of that")
    axes.set(xlabel="step", ylabel="squared error per patch")
    logarithmic(axes)
    axes.grid(alpha=0.3, which="both")
    figure.legend(loc="outside upper left", frameon=False, fontsize=9)  # inside, it would cover a line
    return figure
