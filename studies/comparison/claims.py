"""Claims and their verdicts: the tables that test them, and an overview of all claims of a report."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from studies.engine.context import StudyContext
from studies.report_parts.sections import Cell, Section, Table, Value
from studies.report_parts.verdicts import CONTRADICTED, ONE_RUN, SUPPORTED, verdict

CLAIM, VERDICT = "claim", "verdict"
"""First and last column of a table that tests claims, wherever in the report it stands."""

CHANCE = 0.05
"""Share of 95 % intervals that exclude 0 where there is no difference."""

ENOUGH_BLOCKS = 60
"""With fewer, the coverage of 95 % intervals is below 95 % (benchmarks/results/interval_coverage.md)."""


class Claim(NamedTuple):
    """A claim that a difference is above 0."""

    claim: str
    compared: str
    """The two, as "<first> minus <second>"."""
    values: Sequence[Value | None]
    """The difference, by every measure of its table."""
    runs: int | None
    """Pretraining runs that it rests on."""


def claims_table(
    name: str, title: str, measures: Sequence[str], claims: Sequence[Claim], measured_on: str, note: str = ""
) -> Table:
    """A table that `claims_section` finds.

    Args:
        name, title, measured_on: of the table.
        measures: of what the differences are, with their unit: a column each.
        claims: a row each.
        note: of the table; the rule of the verdicts is added.
    """
    rows = [[one.claim, one.compared, *one.values, verdict(one.values, one.runs)] for one in claims]
    rule = "Supported: the whole 95 % interval lies above 0" + (", by every protocol." if len(measures) > 1 else ".")
    return Table(name, title, [CLAIM, "compared", *measures, VERDICT], rows, measured_on, f"{note} {rule}".strip())


def claims_section(sections: Sequence[Section], few: Mapping[str, int] | None = None) -> Section | None:
    """The claims that the sections' tables test, and the outcome of the sanity experiments; None without any.

    Args:
        sections: of the report.
        few: what `few_blocks` finds.
    """
    rows: list[list[Cell]] = []
    places: dict[str, int] = {}
    """What was measured on, to a number for the table."""
    for section in sections:
        for table in section.tables:
            if (table.columns[0], table.columns[-1]) == (CLAIM, VERDICT):
                number = places.setdefault(table.measured_on, len(places) + 1)
                for row in table.rows:
                    measure, value = _last_figure(table.columns, row)
                    rows.append([row[0], row[-1], value, row[1], measure, number])
    outcomes = [f"{section.title}: {'passed' if section.passed else 'failed'}." for section in sections
             if section.passed is not None]  # fmt: skip
    if not rows and not outcomes:
        return None
    columns = [CLAIM, VERDICT, "difference", "compared", "difference of", "on"]
    where = "; ".join(f"({number}) {place}" for place, number in places.items())
    note = "The difference is the last one of the table that tests the claim, with its 95 % interval."
    table = Table("claims", "Claims", columns, rows, where, note)
    text = _words([str(row[1]) for row in rows], few or {}) if rows else []
    return Section("What these data support", [*text, *outcomes], [table] if rows else [])


def _last_figure(columns: Sequence[str], row: Sequence[Cell]) -> tuple[str, Cell]:
    """The last value of a row and its column; an empty cell where no column before the verdict has a value."""
    cells = list(zip(columns, row, strict=True))
    return next((cell for cell in reversed(cells) if isinstance(cell[1], Value)), (columns[-2], None))


def _words(verdicts: Sequence[str], few: Mapping[str, int]) -> list[str]:
    count = len(verdicts)
    kept, against = (sum(one.startswith(word) for one in verdicts) for word in (SUPPORTED, CONTRADICTED))
    text = [
        f"{kept} of {count} claims are supported by these data, {against} contradicted; for the other "
        f"{count - kept - against} the evidence is insufficient, which does not show that there is no difference.",
        f"Multiple comparisons: {count} claims are tested at once, without correction. Where there is no difference, "
        f"about one in twenty 95 % intervals excludes 0 by chance: of {count} about {CHANCE * count:.0f}.",
    ]
    if alone := sum(one.endswith(ONE_RUN) for one in verdicts):
        text.append(
            f'{alone} of {count} verdicts rest on a "{ONE_RUN}": their intervals do not cover the variation between '
            "pretraining seeds."
        )
    if few:
        where = ", ".join(f"{patches} ({blocks} blocks)" for patches, blocks in few.items())
        text.append(
            f"Intervals from fewer than {ENOUGH_BLOCKS} blocks of neighbouring patches are somewhat too narrow "
            f"(measured: benchmarks/results/interval_coverage.md). That concerns all intervals on {where}."
        )
    return text


def few_blocks(context: StudyContext) -> dict[str, int]:
    """Datasets whose test patches are too few blocks for intervals as wide as they should be, in words, to blocks."""
    found = {}
    for source in dict.fromkeys((*context.data.probed, context.data.study)):
        ids = [name for fold in range(len(source.folds)) for name in source.dataset("test", fold=fold).ids]
        blocks = len(np.unique(source.blocks(ids)))
        if blocks < ENOUGH_BLOCKS:
            found[f"{len(ids):,} {source.patches()}"] = blocks
    return found
