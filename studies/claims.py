"""All verdicts of a report in one place: what these data support, and what not."""

from collections.abc import Sequence

from studies.sections import Cell, Section, Table, Value

CLAIM, VERDICT = "claim", "verdict"
"""First and last column of a table that judges claims, wherever in the report it stands."""


def claims_section(sections: Sequence[Section]) -> Section | None:
    """The claims that the sections' tables judge, and the marks of the sanity experiments; None without any.

    Args:
        sections: of the report.
    """
    rows: list[list[Cell]] = []
    for section in sections:
        for table in section.tables:
            if (table.columns[0], table.columns[-1]) == (CLAIM, VERDICT):
                rows += [[row[0], row[1], _judged(row), row[-1], table.measured_on]
                         for row in table.rows]  # fmt: skip
    marks = [f"{section.title}: {'passed' if section.passed else 'failed'}." for section in sections
             if section.passed is not None]  # fmt: skip
    if not rows and not marks:
        return None
    columns = ["claim", "compared", "difference", "verdict", "measured on"]
    note = "The difference is the last one of the table that judges the claim, with its 95 % interval."
    table = Table("claims", "Claims", columns, rows, "see the last column", note)
    kept = sum(row[-2] == "supported" for row in rows)
    text = [f"{kept} of {len(rows)} claims are supported by these data; the others are not."] if rows else []
    return Section("What these data support", [*text, *marks], [table] if rows else [])


def _judged(row: Sequence[Cell]) -> Value | None:
    """The last figure of a row."""
    return next((cell for cell in reversed(row) if isinstance(cell, Value)), None)
