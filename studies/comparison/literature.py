"""This run compared with the paper and Landsat-Bench: amount of pretraining, and scores."""

from collections.abc import Mapping, Sequence

from studies.comparison.main_table import BOTH, STATISTICS, Row
from studies.comparison.published import PAPER, PAPER_SCHEDULE, PUBLISHED
from studies.engine.context import StudyContext
from studies.engine.data import Source
from studies.engine.encoders import main_runs
from studies.engine.scoring import headline, interval
from studies.report_parts.sections import Cell, Section, Table, Value
from utils.data_config import BigEarthNetInfo, EuroSATInfo

KNN, PROBE = "knn5", "landsat_bench_probe"
"""Landsat-Bench's protocols."""

COLUMNS = (
    "model",
    "million parameters",
    "EuroSAT-L, kNN-5",
    "EuroSAT-L, linear probe",
    "BigEarthNet-L, kNN-5",
    "BigEarthNet-L, linear probe",
    "measured on",
)
PAPER_PARAMETERS = 2_537_562
PAPER_RATE = 3e-4


def setting_section(context: StudyContext) -> Section:
    """Size, data and schedule of the main run, next to the paper's."""
    runs, source, training = main_runs(context), context.data.main, context.config.training
    facts = runs[0].facts
    folds = len(source.folds)
    per_fold = f" in each of {folds} folds" if folds > 1 else ""
    rows: list[list[Cell]] = [
        ["size", runs[0].config.size, "S"],
        ["parameters", facts["parameters"], PAPER_PARAMETERS],
        ["patches pretrained on", f"{facts['patches']:,} {source.patches()}{per_fold}",
         f"{PAPER_SCHEDULE.patches:,} real BigEarthNet-Landsat patches"],
        ["epochs", facts["epochs"], PAPER_SCHEDULE.epochs],
        ["batch size", training.batch_size, PAPER_SCHEDULE.batch_size],
        ["optimizer steps", facts["steps"], PAPER_SCHEDULE.steps],
        ["learning rate", f"{training.learning_rate:g}", f"{PAPER_RATE:g}"],
        ["pretraining seeds", len(runs), "1, as far as is known"],
        ["test patches, main dataset", source.count("test"), BigEarthNetInfo.SPLIT_SIZES["test"]],
    ]  # fmt: skip
    share = facts["steps"] * training.batch_size / (PAPER_SCHEDULE.steps * PAPER_SCHEDULE.batch_size)
    text = [f"Pretraining saw {100 * share:.2g} % of the patches that the paper's run saw, counting repetitions."]
    if source.simulated:
        text.append(
            "The main dataset is simulated: no satellite took its patches. Scores on it test the code, not the method "
            "on real data; they cannot be compared with published scores."
        )
    if context.config.model.checkpoint_path:
        text.append(f"Pretraining started from the weights in {context.config.model.checkpoint_path}.")
    table = Table("setting", "This run and the paper's", ["", "this run", "paper"], rows, source.patches(), PAPER)
    return Section("What was run", text, [table])


def published_section(context: StudyContext, rows_of: Mapping[str, Sequence[Row]]) -> Section:
    """The published tables with rows of this run on top.

    Args:
        context: config, data and stages of this reproduction.
        rows_of: key of a dataset to its `main_rows`.
    """
    sources = {one.section.dataset: one for one in (context.data.eurosat, context.data.main) if one is not None}
    titles = dict.fromkeys(row.title for rows in rows_of.values() for row in rows if _shown(row))
    cells = [_our_row(context, title, sources, rows_of) for title in titles]
    cells += [[row.model, row.parameters, *map(_percent, row[2:6]), row.source] for row in PUBLISHED]
    note = (
        "Per cent on the test split: accuracy for EuroSAT-Landsat, micro mAP for BigEarthNet-Landsat. Intervals where "
        "this run measured them; the published rows have none. Empty: not run, or not reported."
    )
    whole = f"{EuroSATInfo.SPLIT_SIZES['test']:,} and {BigEarthNetInfo.SPLIT_SIZES['test']:,} patches"
    text = [
        "The rows of this run are comparable with the published ones only where they were measured on the whole real "
        f"test split ({whole})."
    ]
    table = Table("published", "Comparison with published results", COLUMNS, cells, "see the last column", note)
    return Section("Comparison with published results", text, [table])


def _shown(row: Row) -> bool:
    return row.encoder is not None or row.title in (STATISTICS, BOTH)


def _our_row(
    context: StudyContext, title: str, sources: dict[str, Source], rows_of: Mapping[str, Sequence[Row]]
) -> list[Cell]:
    cells: list[Cell] = []
    run = False
    for dataset in (EuroSATInfo.NAME, BigEarthNetInfo.NAME):
        source = sources.get(dataset)
        row = next((one for one in rows_of[source.key] if one.title == title), None) if source else None
        for protocol in (KNN, PROBE):
            several = row.results.get(protocol) if row else None
            cells.append(interval(context, several, headline(source)) if source and several else None)
            run = run or bool(several)
    where = "; ".join(
        f"{source.count('test'):,} {source.patches()}" for dataset, source in sources.items()
        if dataset in (EuroSATInfo.NAME, BigEarthNetInfo.NAME)
    )  # fmt: skip
    return [f"{title} (this run)", _millions(title, rows_of), *cells, where if run else "not run"]


def _millions(title: str, rows_of: Mapping[str, Sequence[Row]]) -> str | None:
    """Parameters of the encoder that a row is of; 0 for baselines."""
    row = next(one for rows in rows_of.values() for one in rows if one.title == title)
    if row.encoder is None:
        return "0"
    return None if row.parameters is None else f"{row.parameters / 1e6:.1f}"


def _percent(value: float | None) -> Value | None:
    return None if value is None else Value(value)
