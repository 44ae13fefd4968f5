"""The base of the studies: probe results, compared in words, tables and figures, and put together to a section.

A study is a function from `StudyContext` to `Section` in a module of its own and a row in `studies/registry.py`. It
makes a `Study`, probes its variants (`studies.ablations.variants`), and gives differences, claims, tables and figures
to `Study.section`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure as Drawing

from studies.ablations.figures import plot_groups
from studies.ablations.variants import EmbeddingSpec, Variant, probe
from studies.ablations.wording import PairedDifference, by_chance, recipe_words, summary
from studies.comparison.claims import Claim, claims_table
from studies.engine.context import StudyContext
from studies.engine.data import Source
from studies.engine.scoring import METRIC_TITLES, Scored, difference, headline, interval
from studies.report_parts.sections import Cell, Figure, Section, Table, Value
from utils.analysis_utils import save_figure


class ProbeResults:
    """Probe scores of a study's rows on one dataset.

    Args:
        context: config, data and stages of this reproduction.
        source: the dataset.
        rows: title of a row to its results, one per pretraining seed; empty for what was not run.
    """

    def __init__(self, context: StudyContext, source: Source, rows: Mapping[str, Sequence[Scored]]) -> None:
        self.context, self.source, self.rows = context, source, rows

    def intervals(self) -> dict[str, Value | None]:
        """The headline metric, in per cent, of every row that was run."""
        metric = headline(self.source)
        return {title: interval(self.context, scored, metric) for title, scored in self.rows.items() if scored}

    def compare(
        self, first: str, second: str, others: "ProbeResults | None" = None, names: tuple[str, str] | None = None
    ) -> PairedDifference:
        """`first` minus `second` by the dataset's headline metric, on the same resampled patches.

        Args:
            first: title of a row.
            second: title of a row.
            others: holds the second row; None means that these results do.
            names: of the two in a sentence; None takes their titles.
        """
        ours, theirs = self.rows[first], (others or self).rows[second]
        metric = headline(self.source)
        value = difference(self.context, ours, theirs, metric)
        runs = max(len(ours), len(theirs))
        return PairedDifference(*(names or (first, second)), value, METRIC_TITLES[metric], runs=runs)

    def table(
        self,
        name: str,
        title: str,
        first_column: str,
        reference: str | None = None,
        more: Mapping[str, Mapping[str, Cell]] | None = None,
    ) -> Table:
        """Scores row by row, and their difference to a reference row.

        Args:
            name: of the table's file, after "study_".
            title: of the table.
            first_column: its heading.
            reference: title of the row that all others are compared with; None compares nothing.
            more: heading of a further column to title of a row to its cell; these come before the scores.
        """
        more = more or {}
        metric, second = headline(self.source), "map_macro" if self.source.multilabel else "f1_macro"
        rows: list[list[Cell]] = []
        for row, scored in self.rows.items():
            cells: list[Cell] = [row, *(column.get(row) for column in more.values())]
            cells.append(interval(self.context, scored, metric) if scored else None)
            if reference is not None:
                other = self.rows[reference]
                compared = bool(scored) and row != reference
                cells.append(difference(self.context, scored, other, metric) if compared else None)
            cells.append(interval(self.context, scored, second) if scored else None)
            rows.append(cells)
        compared_with = [] if reference is None else [f"minus {reference}"]
        columns = [first_column, *more, METRIC_TITLES[metric], *compared_with, METRIC_TITLES[second]]
        note = "Per cent with 95 % intervals; differences in percentage points on the same resampled patches."
        if reference is not None:
            note += f" {by_chance(len(self.rows) - 1)}"
        return Table(f"study_{name}", title, columns, rows, self.source.measured_on(), note)


class Study(NamedTuple):
    """One study: what its section is made with."""

    context: StudyContext
    name: str
    """Of its tables and figures, after "study_"."""
    title: str
    """Of its section."""
    source: Source
    """The dataset that its probes are scored on."""

    def not_run(self, reason: str) -> Section:
        """The section of a study that cannot be run on these data or with this model."""
        return Section(self.title, [f"Not run: {reason}"])

    def results(self, rows: Mapping[str, Sequence[Scored]]) -> ProbeResults:
        """Title of a row to its results, one per pretraining seed, ready for tables and comparisons."""
        return ProbeResults(self.context, self.source, rows)

    def probe(self, variants: Iterable[Variant], spec: EmbeddingSpec | None = None) -> ProbeResults:
        """What a probe scores on the embeddings of every variant, by title.

        Args:
            variants: pretrained here, where that is not done yet.
            spec: how patches are embedded; None takes `study.pool`.
        """
        spec = spec or EmbeddingSpec(self.context.config.study.pool)
        return self.results({one.title: probe(self.context, one, spec, self.source) for one in variants})

    def claims(self, claims: Mapping[str, PairedDifference]) -> list[Table]:
        """The table that judges the study's claims, all by one measure; none without claims.

        Args:
            claims: claim to its difference; a claim says that the first is above the second.
        """
        if not claims:
            return []
        some = next(iter(claims.values()))
        measure = f"{some.metric}, {some.unit}" if some.unit else some.metric
        judged = [
            Claim(claim, f"{one.first} minus {one.second}", [one.value], one.runs) for claim, one in claims.items()
        ]
        note = f"On the same resampled patches, paired by seed. {by_chance(len(claims))}"
        name, where = f"study_{self.name}_claims", self.source.measured_on()
        return [claims_table(name, "What is supported", [measure], judged, where, note)]

    def figure(self, shown: Any, draw: Callable[[], Drawing], caption: str) -> Figure:
        """A picture, drawn again only where the numbers in it (`shown`, plain values) have changed."""

        def work(folder: Path) -> None:
            save_figure(draw(), folder / f"study_{self.name}.png")

        stage = self.context.cache.stage(f"figures/study_{self.name}", {"shown": shown}, work, quiet=True)
        return Figure(stage.folder / f"study_{self.name}.png", f"{caption}: {self.source.measured_on()}.")

    def figure_of(self, results: ProbeResults | Mapping[str, ProbeResults], caption: str) -> Figure:
        """Scores with their intervals, one below the other; several results by name in colours of their own."""
        if isinstance(results, ProbeResults):
            shown = results.intervals()
            return self.figure(shown, lambda: plot_groups({"": shown}, self.axis), caption)
        several = {name: one.intervals() for name, one in results.items()}
        return self.figure(several, lambda: plot_groups(several, self.axis), caption)

    @property
    def axis(self) -> str:
        """Label of an axis with the dataset's headline metric."""
        return f"{METRIC_TITLES[headline(self.source)]}, %"

    def section(
        self,
        differences: Sequence[PairedDifference],
        tables: Sequence[Table],
        figures: Sequence[Figure],
        remarks: Sequence[str] = (),
    ) -> Section:
        """The study's section: what the differences support, remarks, and how the encoders were pretrained."""
        text = [*summary(differences), *remarks, *recipe_words(self.context)]
        return Section(self.title, text, tables, figures)
