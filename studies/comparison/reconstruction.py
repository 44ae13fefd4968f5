"""Masked reconstruction: encoders compared with baselines without a model, on the same masks."""

from collections.abc import Sequence
from pathlib import Path

from eval.panels import save_masked_panels
from eval.reconstruction_baselines import BASELINES
from eval.statistics.bootstrap import Resampled, of_runs
from studies.comparison.claims import Claim, claims_table
from studies.engine.context import StudyContext
from studies.engine.encoders import Encoder, encoders, trained
from studies.engine.masked_losses import MODEL, losses_over_folds
from studies.engine.runs import Run
from studies.report_parts.sections import Cell, Figure, Section, Table, Value

BASELINE_TITLES = {
    "dataset_mean": "mean of the dataset",
    "visible_mean": "visible mean of each image",
    "interpolation": "interpolation of the visible patches",
}
COMPARED = ("visible_mean", "interpolation")
"""Baselines that a table shows the difference to."""

PANELS = 6
"""Patches in the picture."""


def opening_section(context: StudyContext) -> Section | None:
    """What weights that were trained elsewhere make of masked patches, as a picture; None where none are there."""
    given = ((name, context.runs.given(name)) for name in context.config.checkpoints)
    name, run = next(((name, run) for name, run in given if run is not None), ("", None))
    if run is None:
        return None
    source, called = context.data.main, f"{name.replace('_', ' ')} weights"
    caption = (
        f"Test patches ({source.patches()}): original, what is left of it by the mask, the reconstruction by the "
        f"{called}, and an interpolation of the visible patches, which needs no model."
    )
    figure = Figure(_panels(context, run, f"reconstruction/{run.name}/panels"), caption)
    text = f"The model sees a quarter of a patch and predicts the rest. Here the {called} do; how well, in numbers, is "
    return Section(f"Reconstructions by the {called}", [f"{text}in the section Reconstruction."], (), [figure])


def reconstruction_section(context: StudyContext) -> Section:
    """The masked loss of every encoder and every baseline on the main dataset's test patches."""
    source = context.data.main
    losses = {encoder.name: _losses(context, encoder) for encoder in encoders(context)}
    reference = next(iter(losses[name][0] for name in losses if losses[name]))
    baselines = {BASELINE_TITLES[name]: [{**reference, MODEL: reference[name]}] for name in BASELINES}
    titles = {encoder.name: encoder.title for encoder in encoders(context)}
    rows = [_row(title, runs) for title, runs in baselines.items()]
    rows += [_row(titles[name], runs) for name, runs in losses.items()]
    columns = ["predictor", "masked loss", *(f"minus {BASELINE_TITLES[name]}" for name in COMPARED)]
    table = Table(
        "reconstruction",
        "Reconstruction of masked patches",
        columns,
        rows,
        f"{_count(context)} {source.patches()}, not pretrained on",
        "Squared error summed over the values of a patch, z-scores; lower is better. Brackets: 95 % interval.",
    )
    return Section("Reconstruction", (), [table, _claims(context, losses, table.measured_on)], _figures(context))


def _losses(context: StudyContext, encoder: Encoder) -> list[dict[str, Resampled]]:
    """For every seed: the masked loss of the model and of the baselines, over all folds."""
    return [_loss(context, [encoder.run(seed, fold) for fold in range(len(context.data.main.folds))])
            for seed in encoder.seeds]  # fmt: skip


def _loss(context: StudyContext, runs: Sequence[Run]) -> dict[str, Resampled]:
    return losses_over_folds(context, f"reconstruction/{runs[0].name}/seed{runs[0].seed}", context.data.main, runs)


def _row(title: str, runs: Sequence[dict[str, Resampled]]) -> list[Cell]:
    """Title, loss, and its difference to the baselines; empty where nothing was run."""
    if not runs:
        return [title, *[None] * (1 + len(COMPARED))]
    differences = [[run[MODEL].minus(run[name]) for run in runs] for name in COMPARED]
    same = [all(not one.draws.any() for one in several) for several in differences]
    cells = [None if equal else _value(several) for equal, several in zip(same, differences, strict=True)]
    return [title, _value([run[MODEL] for run in runs]), *cells]


def _value(runs: Sequence[Resampled]) -> Value:
    return Value.of(of_runs(runs), digits=2)


def _claims(context: StudyContext, losses: dict[str, list[dict[str, Resampled]]], measured_on: str) -> Table:
    """Whether encoders beat the baselines: the differences with the opposite sign, above 0 where they do."""
    claims = [
        Claim(
            f"an encoder reconstructs better than the {BASELINE_TITLES[name]}",
            f"{BASELINE_TITLES[name]} minus {encoder.title}",
            [_value([run[name].minus(run[MODEL]) for run in losses[encoder.name]])],
            len(encoder.seeds),
        )
        for encoder in trained(context)
        for name in COMPARED
    ]
    note = "A model that is worse than the visible mean has learned nothing useful."
    measure = "masked loss"
    return claims_table(
        "reconstruction_claims", "Encoders compared with baselines", [measure], claims, measured_on, note
    )


def _figures(context: StudyContext) -> list[Figure]:
    run = next(encoder for encoder in encoders(context) if encoder.name == "main").run(
        context.config.pretraining_seeds[0], 0
    )
    source = context.data.main
    curve = next(run.folder.glob("loss_curve_*.png"))
    return [
        Figure(curve, f"Loss of the main run, seed {run.seed}, on {source.patches()}."),
        Figure(
            _panels(context, run, "reconstruction/panels"),
            f"Test patches ({source.patches()}): original, masked, reconstruction by the main run, interpolation.",
        ),
    ]


def _panels(context: StudyContext, run: Run, stage: str) -> Path:
    """The picture of some of the main dataset's test patches, as a run reconstructs them."""
    source = context.data.main
    dataset = source.dataset("test", run.config, 0, labels=False)

    def work(folder: Path) -> None:
        save_masked_panels(context.runs.model(run), dataset, PANELS, context.config.seed, folder)

    patches = source.digest("test", run.config, 0, labels=False)
    inputs = {"weights": run.digest, "patches": patches, "panels": PANELS, "seed": context.config.seed}
    return context.cache.stage(stage, inputs, work, quiet=True).folder / "reconstructions_masked.png"


def _count(context: StudyContext) -> str:
    source = context.data.main
    return f"{sum(len(source.dataset('test', None, fold, labels=False)) for fold in range(len(source.folds))):,}"
