"""What the studies say in words, derived from their numbers, and the parts that their sections share."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure as Drawing

from studies.ablations.variants import RECIPE, Arm, figure_of, masked_losses, minus, run_of
from studies.comparison.claims import CHANCE, Claim, claims_table
from studies.comparison.main_table import POOL_TITLES
from studies.engine.context import Bench
from studies.engine.data import Source
from studies.engine.masked_losses import MODEL
from studies.engine.scoring import METRIC_TITLES, Scored, difference, headline, interval
from studies.report_parts.sections import Cell, Figure, Table, Value
from studies.report_parts.verdicts import ABOVE, BELOW, OPEN, side
from utils.analysis_utils import save_figure

POINTS = "points"


class Compared(NamedTuple):
    """Two things that a sentence compares."""

    first: str
    second: str
    value: Value | None
    """`first` minus `second`."""
    what: str
    """That was measured: "micro mAP"."""
    unit: str = POINTS
    runs: int | None = None
    """Pretraining runs that the difference rests on."""

    def words(self, joint: str) -> str:
        """The two with a word between them, and their difference with its interval."""
        pair = f"{self.first} {joint} {self.second}"
        if self.value is None or self.value.low is None:
            return pair
        value, low, high = (_signed(number, self.value.digits) for number in self.value[:3])
        return f"{pair} ({' '.join(filter(None, (value, self.unit)))}, {low} to {high})"


WORDS = {
    ABOVE: ("Supported by these data, a higher {what}:", "than"),
    BELOW: ("Supported by these data, a lower {what}:", "than"),
    OPEN: ("NOT supported by these data, a difference in {what}:", "and"),
    None: ("Cannot be told, for want of an interval, a difference in {what}:", "and"),
}
"""Side of a difference (`report_parts.verdicts.side`) to the beginning of a sentence and the word between the two."""


def summary(several: Sequence[Compared]) -> list[str]:
    """What the data support about pairs of things, and what not: a sentence for each kind of finding."""
    said = []
    for what in dict.fromkeys(one.what for one in several):
        for where, (beginning, joint) in WORDS.items():
            found = [one.words(joint) for one in several if one.what == what and side(one.value) == where]
            if found:
                said.append(f"{beginning.format(what=what)} {'; '.join(found)}.")
    return said


def recipe_words(bench: Bench) -> list[str]:
    """How the encoders of the studies were pretrained, and whether they have learned more than a mean."""
    arm, seeds = Arm(RECIPE, "", {}), bench.config.study.seeds
    facts, source = run_of(bench, arm, seeds[0]).facts, bench.data.study
    many = f"seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]} only"
    said = [
        f"Encoders of this study: {facts['parameters']:,} parameters, {facts['steps']:,} steps ({facts['epochs']} "
        f"epochs) on {facts['patches']:,} {source.patches()}, {many}, unless said otherwise. Judged by "
        f"{POOL_TITLES[bench.config.study.pool]} and the stronger probe (standardised, C chosen, converged)."
    ]
    if len(seeds) == 1:
        said.append("One pretraining seed: the intervals say nothing about what another seed would give.")
    losses = masked_losses(bench, arm)
    gap = figure_of(minus([run[MODEL] for run in losses], [run["visible_mean"] for run in losses]))
    if side(gap) != BELOW:
        beside = "fill in patches worse than" if side(gap) == ABOVE else "do not measurably fill in patches better than"
        loss, mean = figure_of([run[MODEL] for run in losses]), losses[0]["visible_mean"]
        said.append(
            f"These runs {beside} each image's visible mean (masked loss {loss.value:.1f} against {mean.value:.1f}): "
            "what is compared here are encoders early in their training."
        )
    return said


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "\u2212")


# --------------------------------------------------------------------------- tables and figures


def score_table(
    bench: Bench,
    name: str,
    title: str,
    results: Mapping[str, Sequence[Scored]],
    reference: str | None = None,
    source: Source | None = None,
    first: str = "",
    more: Mapping[str, Mapping[str, Cell]] | None = None,
) -> Table:
    """Scores row by row, and their distance to a reference row.

    Args:
        bench: where.
        name: of the table's file.
        title: of the table.
        results: title of a row to its results, one a seed; empty for what was not run.
        reference: title of the row that all others are compared with; None compares nothing.
        source: the dataset; None is the studies'.
        first: heading of the first column.
        more: heading of a further column to title of a row to its cell; these come before the scores.
    """
    source, more = source or bench.data.study, more or {}
    metric, second = headline(source), "map_macro" if source.multilabel else "f1_macro"
    rows: list[list[Cell]] = []
    for row, scored in results.items():
        cells: list[Cell] = [row, *(column.get(row) for column in more.values())]
        cells.append(interval(bench, scored, metric) if scored else None)
        if reference is not None:
            other = results[reference]
            cells.append(difference(bench, scored, other, metric) if scored and row != reference else None)
        cells.append(interval(bench, scored, second) if scored else None)
        rows.append(cells)
    compared = [] if reference is None else [f"minus {reference}"]
    columns = [first, *more, METRIC_TITLES[metric], *compared, METRIC_TITLES[second]]
    note = "Per cent with 95 % intervals; differences in percentage points on the same resampled patches."
    if reference is not None:
        note += f" {by_chance(len(results) - 1)}"
    return Table(f"study_{name}", title, columns, rows, source.measured_on(), note)


def by_chance(comparisons: int) -> str:
    """A warning for a table's note."""
    return (
        f"Where there is nothing to find, about one in twenty intervals leaves 0 out by chance: of {comparisons} "
        f"here {CHANCE * comparisons:.2g}."
    )


def claims_of(bench: Bench, name: str, claims: Mapping[str, Compared], source: Source | None = None) -> Table:
    """The table that judges a study's claims, all by one measure.

    Args:
        bench: where.
        name: of the study, for the table's file.
        claims: claim to what it compares; a claim says that the first is above the second.
        source: the dataset; None is the studies'.
    """
    some = next(iter(claims.values()))
    measure = f"{some.what}, {some.unit}" if some.unit else some.what
    judged = [Claim(claim, f"{one.first} minus {one.second}", [one.value], one.runs) for claim, one in claims.items()]
    note = f"On the same resampled patches, paired by seed. {by_chance(len(claims))}"
    where = (source or bench.data.study).measured_on()
    return claims_table(f"study_{name}_claims", "What is supported", [measure], judged, where, note)


def compare(
    bench: Bench,
    first: tuple[str, Sequence[Scored]],
    second: tuple[str, Sequence[Scored]],
    source: Source | None = None,
) -> Compared:
    """Two rows, by the dataset's headline metric."""
    metric = headline(source or bench.data.study)
    value = difference(bench, first[1], second[1], metric)
    runs = max(len(first[1]), len(second[1]))
    return Compared(first[0], second[0], value, METRIC_TITLES[metric], runs=runs)


def figure(bench: Bench, name: str, inputs: Any, draw: Callable[[], Drawing], caption: str) -> Figure:
    """A picture, drawn anew where the numbers in it (`inputs`, plain values) have changed."""

    def work(folder: Path) -> None:
        save_figure(draw(), folder / f"study_{name}.png")

    stage = bench.workbench.stage(f"figures/study_{name}", {"shown": inputs}, work, quiet=True)
    return Figure(stage.folder / f"study_{name}.png", caption)


def headline_title(source: Source) -> str:
    """The dataset's headline metric, for an axis."""
    return f"{METRIC_TITLES[headline(source)]}, %"


def shown_scores(
    bench: Bench, results: Mapping[str, Sequence[Scored]], source: Source | None = None
) -> dict[str, Value | None]:
    """The headline metric of every row that was run."""
    metric = headline(source or bench.data.study)
    return {row: interval(bench, scored, metric) for row, scored in results.items() if scored}
