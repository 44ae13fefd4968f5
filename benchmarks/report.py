"""A row of the result, the table that is printed, and the files that keep it."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from benchmarks.machine import Limits
from benchmarks.reference_cost import Verdict
from benchmarks.timing import Ratio, Timing, faster
from utils.files import write_json, write_text
from utils.markdown import markdown_table

NOT_MEASURED = "not measured"
NONE = "–"

LimitName = Literal["float32", "bfloat16", "bandwidth"]
"""Fields of `benchmarks.machine.Limits` that something can be compared with."""


class Achieved(NamedTuple):
    """How much of something limited was used."""

    limit: LimitName
    rate: float
    """Operations/s or bytes/s."""

    def share(self, limits: Limits) -> float:
        """Of the limit, 0 to 1."""
        return self.rate / getattr(limits, self.limit)


Unit = Literal["s", "ms", "patches/s", "files/s", "steps/s", "MiB"]


@dataclass(frozen=True)
class Goal:
    """A figure to reach.

    Attributes:
        text: as in the table.
        ratio: least quotient reference / ours, where the goal is one.
        most, least: bound of our own figure in the row's unit.

    A goal without any of them is judged by `Row.reached`.
    """

    text: str
    ratio: float | None = None
    most: float | None = None
    least: float | None = None


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        work: what was done.
        unit: of `ours` and `reference`.
        ours, reference: medians; None where nothing was measured.
        ratio: how many times better ours is.
        achieved: what ours reaches of something that the machine limits.
        goal: the figure to reach, or None.
        void: why the ratio means nothing, or empty.
        note: what a reader must know; why the row could not run.
        reached: whether the goal is, where no number decides it.
        details: whatever else was measured, for the JSON.
    """

    work: str
    unit: Unit
    ours: float | None = None
    reference: float | None = None
    ratio: Ratio | None = None
    achieved: Achieved | None = None
    goal: Goal | None = None
    void: str = ""
    note: str = ""
    reached: bool | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without one, or where nothing that counts was measured."""
        goal = self.goal
        if goal is None or self.reached is not None:
            return None if goal is None else self.reached
        if self.ours is None or goal.ratio is goal.most is goal.least is None:
            return None
        ratio = None if self.ratio is None or self.void else self.ratio.value
        if goal.ratio is not None and ratio is None:
            return None
        reached = (
            goal.ratio is None or ratio is None or ratio >= goal.ratio,
            goal.most is None or self.ours <= goal.most,
            goal.least is None or self.ours >= goal.least,
        )
        return all(reached)

    @property
    def sentence(self) -> str:
        """Work and figures in a line, to show while a run goes on."""
        ours = NOT_MEASURED if self.ours is None else _value(self.ours, self.unit)
        reference = "" if self.reference is None else f" (reference {_value(self.reference, self.unit)})"
        return f"{self.work}: {ours}{reference}"

    def judged(self, verdict: Verdict | None) -> "Row":
        """The same, its ratio void if the reference is no fair baseline."""
        if verdict is None or verdict.valid or self.ratio is None:
            return self
        return replace(self, void=verdict.sentence)

    def as_dict(self, limits: Limits) -> dict[str, Any]:
        """Plain values for the JSON."""
        return {
            "work": self.work,
            "unit": self.unit,
            "ours": self.ours,
            "reference": self.reference,
            "ratio": None if self.ratio is None else self.ratio._asdict(),
            "achieved": None if self.achieved is None else self.achieved._asdict(),
            "share_of_limit": None if self.achieved is None else self.achieved.share(limits),
            "goal": None if self.goal is None else self.goal.text,
            "met": self.met,
            "void": self.void,
            "note": self.note,
            **self.details,
        }


def timed_row(
    work: str,
    ours: Timing,
    reference: Timing | None,
    *,
    unit: Unit,
    items: int = 1,
    uses: tuple[LimitName, float] | None = None,
    goal: Goal | None = None,
    note: str = "",
) -> Row:
    """A row from two timings of one `alternate`.

    Args:
        work, unit, goal, note: see `Row`.
        ours, reference: seconds per call.
        items: patches, files or steps a call, for the units "…/s".
        uses: operations or bytes of a call, and what limits them.
    """
    values = [None if timing is None else in_unit(timing.median, unit, items) for timing in (ours, reference)]
    details = {"seconds": {"ours": ours.rounds, "reference": None if reference is None else reference.rounds}}
    return Row(
        work,
        unit,
        ours=values[0],
        reference=values[1],
        ratio=None if reference is None else faster(ours, reference),
        achieved=None if uses is None else Achieved(uses[0], uses[1] / ours.median),
        goal=goal,
        note=note,
        details=details,
    )


def in_unit(seconds: float, unit: Unit, items: int) -> float:
    """Seconds per call as a row states them."""
    return {"s": seconds, "ms": 1e3 * seconds}.get(unit, items / seconds)


# --------------------------------------------------------------------------- the table

HEADER = ("work", "this project", "reference", "times better", "of the limit", "goal", "met")
GPU_COLUMN = "one GPU"


def results_table(rows: list[Row], limits: Limits, on_gpu: bool) -> str:
    """The table; a run without a GPU says in a last column that nothing was measured on one."""
    header = HEADER if on_gpu else (*HEADER, GPU_COLUMN)
    lines: list[list[str]] = []
    notes: list[str] = []
    for row in rows:
        mark = ""
        for text in filter(None, (row.void, row.note)):
            if text not in notes:
                notes.append(text)
            mark += f" [{notes.index(text) + 1}]"
        lines.append(_cells(row, mark, limits, on_gpu))
    below = [""] * bool(notes) + [f"[{i}] {note}  " for i, note in enumerate(notes, start=1)]
    return "\n".join([markdown_table(header, lines), *below])


def _cells(row: Row, mark: str, limits: Limits, on_gpu: bool) -> list[str]:
    met = {True: "yes", False: "**no**", None: NONE}[row.met]
    return [
        row.work + mark,
        _value(row.ours, row.unit) if row.ours is not None else NOT_MEASURED,
        _value(row.reference, row.unit) if row.reference is not None else NONE,
        _ratio(row),
        f"{row.achieved.share(limits):.0%}" if row.achieved is not None else NONE,
        row.goal.text if row.goal is not None else NONE,
        "void" if row.void and row.goal is not None and row.met is None else met,
        *([] if on_gpu else [NOT_MEASURED]),
    ]


def _value(value: float, unit: Unit) -> str:
    digits = 0 if value >= 1000 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{digits}f} {unit}"


def _ratio(row: Row) -> str:
    if row.ratio is None:
        return NONE
    text = f"{row.ratio.value:.2f} ({row.ratio.low:.2f} to {row.ratio.high:.2f})"
    return f"**void** [{text}]" if row.void else text


def write_results(stem: Path, table: str, record: dict[str, Any]) -> tuple[Path, Path]:
    """Write `<stem>.json` and `<stem>.md`; returns both paths."""
    return (
        write_json(stem.with_name(stem.name + ".json"), record),
        write_text(stem.with_name(stem.name + ".md"), table + "\n"),
    )
