"""Renders sections to a report: one self-contained HTML file, and the same as CSV, JSON and PNG files next to it."""

import base64
import csv
import html
import io
import json
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from PIL import Image

from studies.engine.context import StudyContext
from studies.engine.stages import Stage
from studies.report_parts.sections import Cell, Figure, Section, Table, Value
from utils.errors import DataError
from utils.files import atomic_path, replaced_folder, write_json, write_text
from utils.provenance import provenance

STYLE = Path(__file__).with_name("report.css")
MANY_COLUMNS = 4
"""A table with more columns scrolls sideways on a phone in any case, so its texts may be wider."""

REPORT, RESULTS, TABLES, FIGURES = "report.html", "report.json", "tables", "figures"


class Report(NamedTuple):
    """Everything in a report."""

    title: str
    subtitle: str
    sections: Sequence[Section]
    config: Mapping[str, Any]
    provenance: Mapping[str, Any]
    stages: Sequence[Stage]
    seconds: float
    """Duration of this call."""


def report_of(context: StudyContext, title: str, subtitle: str, sections: Sequence[Section], started: float) -> Report:
    """A report of this call, which began at `started` (`time.perf_counter`)."""
    written = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return Report(
        title,
        subtitle,
        sections,
        config=context.config.model_dump(mode="json"),
        provenance={"written": written, **provenance(context.runs.device)},
        stages=context.cache.stages,
        seconds=time.perf_counter() - started,
    )


def write_report(report: Report, folder: Path) -> Path:
    """Write `report.html`, `report.json`, `tables/*.csv` and `figures/*.png`; returns the path of the HTML.

    Each of the four is of one report, whenever writing ends; the HTML, which needs nothing beside it, comes last.

    Raises:
        DataError: when a figure is not there, or two tables have one name.
    """
    names = [table.name for section in report.sections for table in section.tables]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{folder}: two tables of the report are called {twice[0]}")
    with replaced_folder(folder / TABLES) as tables:  # an earlier report may have had others
        for section in report.sections:
            for table in section.tables:
                write_text(tables / f"{table.name}.csv", table_csv(table))
    with replaced_folder(folder / FIGURES) as figures:
        pictures = _copy_figures(report.sections, figures)
    write_json(folder / RESULTS, results(report, pictures))
    return write_text(folder / REPORT, page(report, pictures))


# --------------------------------------------------------------------------- CSV and JSON


def table_csv(table: Table) -> str:
    """A table as CSV; a column with intervals becomes three, `<name>`, `<name> low` and `<name> high`."""
    wide = [any(isinstance(row[i], Value) for row in table.rows) for i in range(len(table.columns))]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    ends = ("", " low", " high")
    writer.writerow(
        [f"{name}{end}" for name, has in zip(table.columns, wide, strict=True) for end in ends[: 1 + 2 * has]]
    )
    for row in table.rows:
        writer.writerow([part for cell, has in zip(row, wide, strict=True) for part in _csv_cells(cell, has)])
    return text.getvalue()


def _csv_cells(cell: Cell, has_interval: bool) -> list[str | int | float]:
    parts = (cell.value, cell.low, cell.high) if isinstance(cell, Value) else (cell, None, None)
    return ["" if part is None else part for part in parts[: 1 + 2 * has_interval]]


def results(report: Report, pictures: Mapping[Path, str]) -> dict[str, Any]:
    """The report as plain values."""
    return {
        "title": report.title,
        "subtitle": report.subtitle,
        "sections": [
            {
                "title": section.title,
                "text": list(section.text),
                "passed": section.passed,
                "tables": [
                    {
                        **table._asdict(),
                        "columns": list(table.columns),
                        "rows": [list(map(_plain, row)) for row in table.rows],
                    }
                    for table in section.tables
                ],
                "figures": [{"file": f"{FIGURES}/{pictures[figure.path]}", "caption": figure.caption}
                            for figure in section.figures],
            }
            for section in report.sections
        ],
        "config": dict(report.config),
        "provenance": dict(report.provenance),
        "stages": [{"name": stage.name, "seconds": stage.seconds, "reused": stage.reused, "revision": stage.revision}
                   for stage in report.stages],
        "seconds": report.seconds,
    }  # fmt: skip


def _plain(cell: Cell) -> Any:
    return cell._asdict() if isinstance(cell, Value) else cell


def _copy_figures(sections: Sequence[Section], folder: Path) -> dict[Path, str]:
    """Copy every picture; source to its name in the folder."""
    names: dict[Path, str] = {}
    for section in sections:
        for figure in section.figures:
            if not figure.path.is_file():
                raise DataError(f"{figure.path}: a figure of the report is missing; remove its stage's folder")
            if figure.path not in names:
                names[figure.path] = _free_name(figure.path, set(names.values()))
                with atomic_path(folder / names[figure.path]) as temporary:
                    shutil.copyfile(figure.path, temporary)
    return names


def _free_name(path: Path, taken: set[str]) -> str:
    """The file's name, with the names of its folders in front as long as another figure has it."""
    parts = [path.name, *(parent.name for parent in path.parents)]
    name = parts[0]
    for parent in parts[1:]:
        if name not in taken:
            break
        name = f"{parent}_{name}"
    return name


# --------------------------------------------------------------------------- HTML


def page(report: Report, pictures: Mapping[Path, str]) -> str:
    """The whole HTML file; nothing in it is fetched from elsewhere."""
    anchors = [(f"s{number}", section) for number, section in enumerate(report.sections, 1)]
    contents = "".join(
        f'<li><a href="#{anchor}">{_text(section.title)}</a>{_mark(section)}</li>' for anchor, section in anchors
    )
    body = "".join(_section_html(anchor, section, pictures) for anchor, section in anchors)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{_text(report.title)}</title>
<style>
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<header><h1>{_text(report.title)}</h1><p class="soft">{_text(report.subtitle)}</p></header>
<nav aria-label="Contents"><strong>Contents</strong><ol>{contents}<li><a href="#how">How it was made</a></li></ol></nav>
<main>{body}{_how_html(report)}</main>
</body>
</html>
"""


def _section_html(anchor: str, section: Section, pictures: Mapping[Path, str]) -> str:
    text = "".join(f"<p>{_text(paragraph)}</p>" for paragraph in section.text)
    tables = "".join(map(_table_html, section.tables))
    figures = "".join(_figure_html(figure, pictures[figure.path]) for figure in section.figures)
    return f'<section id="{anchor}"><h2>{_text(section.title)}{_mark(section)}</h2>{text}{figures}{tables}</section>\n'


def _mark(section: Section) -> str:
    if section.passed is None:
        return ""
    word = "passed" if section.passed else "failed"
    return f' <span class="mark {word}">{word}</span>'


def _table_html(table: Table) -> str:
    words = [any(isinstance(row[i], str) for row in table.rows) for i in range(len(table.columns))]
    kinds = ["text" if has else "number" for has in words]
    head = "".join(
        f'<th scope="col" class="{kind}">{_text(name)}</th>' for name, kind in zip(table.columns, kinds, strict=True)
    )
    rows = "".join(
        f'<tr><th scope="row">{_shown(row[0])}</th>{"".join(map(_cell_html, row[1:], kinds[1:]))}</tr>\n'
        for row in table.rows
    )
    note = f'<p class="soft">{_text(table.note)}</p>' if table.note else ""
    wider = len(table.columns) > MANY_COLUMNS
    many = ' class="many"' if wider else ""
    more = '<p class="more soft">Scroll the table sideways for all columns.</p>' if wider else ""
    return (
        f'<h3 id="t-{table.name}">{_text(table.title)}</h3>'
        f'<p class="on soft">Measured on: {_text(table.measured_on)}.</p>'
        f'{more}<div class="wide" tabindex="0" role="region" aria-label="{_text(table.title)}">'
        f"<table{many}><thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table></div>{note}"
    )


def _cell_html(cell: Cell, kind: str) -> str:
    return f'<td class="{kind}">{_shown(cell)}</td>'


def _shown(cell: Cell) -> str:
    """A cell's text: nothing for None, an interval below its value."""
    if cell is None:
        return ""
    if isinstance(cell, Value):
        value, bounds = _number(cell.value, cell.digits), cell.bounds
        if bounds is None:
            return value
        low, high = (_number(bound, cell.digits) for bound in bounds)
        return f'{value}<span class="ci">[{low}, {high}]</span>'
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    return f"{cell:.4g}" if isinstance(cell, float) else _text(cell)


def _number(value: float, digits: int) -> str:
    """With a minus sign that is as wide as a digit."""
    return f"{round(value, digits) + 0.0:,.{digits}f}".replace("-", "\u2212")  # + 0.0: no minus before a zero


def _figure_html(figure: Figure, name: str) -> str:
    with Image.open(figure.path) as picture:
        width, height = picture.size
    source = f"data:image/png;base64,{base64.b64encode(figure.path.read_bytes()).decode()}"
    return (
        f'<figure><div class="scroll" style="--w: {width}px" tabindex="0" role="region" aria-label="{_text(name)}">'
        f'<img width="{width}" height="{height}" alt="{_text(figure.caption)}" src="{source}"></div>'
        f"<figcaption>{_text(figure.caption)}</figcaption></figure>"
    )


def _how_html(report: Report) -> str:
    """Versions, times, config."""
    provenance = {**report.provenance, **report.provenance.get("packages", {})}
    facts: list[list[Cell]] = [[key, _word(value)] for key, value in provenance.items() if not isinstance(value, dict)]
    versions = Table("versions", "Versions and machine", ["", "value"], facts, "this call")
    times = Table(
        "times",
        "Time by kind of stage",
        ["kind of stage", "stages", "reused", "seconds"],
        _times(report.stages),
        "the calls that did the work",
        f"This call took {report.seconds:.0f} s in all.",
    )
    stages: list[list[Cell]] = [
        [stage.name, Value(stage.seconds), "reused" if stage.reused else "done now"] for stage in report.stages
    ]
    every = Table("stages", "Every stage", ["stage", "seconds", ""], stages, "the calls that did the work")
    revisions = {stage.revision for stage in report.stages}
    warning = ""
    if len(revisions) > 1:
        warning = (
            "<p>Stages were run by several revisions of the source tree; remove the folder to rerun all by one.</p>"
        )
    config = html.escape(yaml.safe_dump(dict(report.config), sort_keys=False, allow_unicode=True))
    return (
        f'<section id="how"><h2>How it was made</h2>{warning}{_table_html(times)}{_table_html(versions)}'
        f"<details><summary>Configuration</summary><pre>{config}</pre></details>"
        f"<details><summary>Every stage</summary>{_table_html(every)}</details></section>"
    )


def _times(stages: Sequence[Stage]) -> list[list[Cell]]:
    """Stages by the first part of their name, in order of appearance."""
    groups: dict[str, list[Stage]] = {}
    for stage in stages:
        groups.setdefault(stage.name.partition("/")[0], []).append(stage)
    rows: list[list[Cell]] = [
        [name, len(group), sum(stage.reused for stage in group), Value(sum(stage.seconds for stage in group))]
        for name, group in groups.items()
    ]
    rows.append(["all", len(stages), sum(s.reused for s in stages), Value(sum(stage.seconds for stage in stages))])
    return rows


def _word(value: Any) -> str:
    return json.dumps(value) if isinstance(value, (list, dict)) else str(value)


def _text(text: str) -> str:
    """Escaped, and on one line."""
    whole = str(text).encode("utf-8", "backslashreplace").decode()  # halves of letters, which UTF-8 does not have
    return html.escape(re.sub(r"\s+", " ", whole))
