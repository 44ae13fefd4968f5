"""The report: one file that fetches nothing, readable at any width and in the dark, and the same as CSV and JSON."""

import csv
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from browser import Page
from matplotlib.figure import Figure as Drawing
from PIL import Image

from studies.engine.stages import Stage
from studies.report import Report, table_csv, write_report
from studies.report_parts.figures import plot_intervals
from studies.report_parts.sections import Figure, Section, Table, Value
from utils.analysis_utils import save_figure
from utils.errors import DataError

TABLE = Table(
    "scores",
    "Scores <of> all",
    ["representation", "features", "micro mAP, with a heading that is long enough to be wrapped", "note"],
    [
        ["class prior", 1, Value(33.25, 30.0, 36.5), None],
        ["this model", 1440, Value(-1.5, -3.0, 0.25, digits=2), "a & b"],
        ["not run", None, None, None],
        ["no interval", 3, Value(12.0), "x" * 60],
        ["nearly nothing", 3, Value(-0.01, -0.04, 0.2), None],
    ],
    "64 simulated patches",
    "Per cent.",
)


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Path:
    values = {f"row {number}": Value(50 + number, 45, 60) for number in range(8)}
    folder = tmp_path_factory.mktemp("stage")
    return save_figure(plot_intervals(values, "A title that is long " * 6, "micro mAP, %"), folder / "scores.png")


def make_report(picture: Path, *more: Section) -> Report:
    stages = [Stage("pretrain/main/seed0", picture.parent, None, 61.5, "d", False, "abc"),
              Stage("score/data/x", picture.parent, None, 1.0, "d", True, "abc")]  # fmt: skip
    sections = [
        Section("Probes", ["A paragraph with <tags> & signs."], [TABLE], [Figure(picture, "Scores of all.")]),
        Section("Overfit", ["Near zero."], passed=True),
        Section("Routing", passed=False),
        *more,
    ]
    config = {"title": "x", "model": {"size": "XXS"}}
    versions = {"python": "3.11", "packages": {"torch": "2.11"}}
    return Report("A report", "of a test", sections, config, versions, stages, 7.0)


@pytest.fixture(scope="module")
def written(picture: Path, tmp_path_factory) -> Path:
    return write_report(make_report(picture), tmp_path_factory.mktemp("report"))


# --------------------------------------------------------------------------- what is written


def test_the_file_fetches_nothing(written: Path) -> None:
    text = written.read_text()
    assert not re.findall(r"<script|@import|url\(|<iframe|<object|srcset", text)
    references = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert references
    assert all(reference.startswith(("data:", "#")) for reference in references)
    anchors = {reference[1:] for reference in references if reference.startswith("#")}
    assert all(f'id="{anchor}"' in text for anchor in anchors)


def test_cells(written: Path) -> None:
    text = written.read_text()
    assert "Scores &lt;of&gt; all" in text and "a &amp; b" in text and "<tags>" not in text
    assert '33.2<span class="ci">[30.0, 36.5]</span>' in text or '33.3<span class="ci">[30.0, 36.5]</span>' in text
    assert '0.0<span class="ci">[0.0, 0.2]</span>' in text, "no minus before a zero"
    assert "\u22121.50" in text and "1,440" in text
    assert re.search(r'not run</th>(<td class="\w+"></td>){3}', text)
    assert "Measured on: 64 simulated patches." in text
    assert 'class="mark passed"' in text and 'class="mark failed"' in text


def test_a_table_of_many_columns_says_that_it_scrolls(picture: Path, tmp_path) -> None:
    """Four columns may fit on a phone, five never do."""
    for count in (4, 5):
        wide = TABLE._replace(name="wide", columns=[*"abcde"][:count], rows=[[1] * count])
        path = write_report(make_report(picture, Section("Wide", (), [wide])), tmp_path / str(count))
        hint = re.compile(
            r'id="t-wide">.*?<p class="more soft">Scroll the table sideways[^<]*</p><div class="wide"', re.DOTALL
        )
        assert bool(hint.search(path.read_text())) == (count == 5)


def test_csv_has_the_intervals(written: Path) -> None:
    heading, *rows = list(csv.reader((written.parent / "tables" / "scores.csv").open()))
    name = TABLE.columns[2]
    assert heading == ["representation", "features", name, f"{name} low", f"{name} high", "note"]
    assert rows[0] == ["class prior", "1", "33.25", "30.0", "36.5", ""]
    assert rows[2] == ["not run", "", "", "", "", ""]
    assert rows[3][2:5] == ["12.0", "", ""]
    assert table_csv(TABLE).count("\n") == 6


def test_json_says_the_same(written: Path) -> None:
    found = json.loads((written.parent / "report.json").read_text())
    table = found["sections"][0]["tables"][0]
    assert table["rows"][0][2] == {"value": 33.25, "low": 30.0, "high": 36.5, "digits": 1}
    assert table["measured_on"] == "64 simulated patches"
    assert [section["passed"] for section in found["sections"]] == [None, True, False]
    assert found["stages"][0] == {"name": "pretrain/main/seed0", "seconds": 61.5, "reused": False, "revision": "abc"}
    picture = written.parent / found["sections"][0]["figures"][0]["file"]
    with Image.open(picture) as image:
        assert image.format == "PNG"


def test_an_earlier_report_leaves_nothing_behind(picture: Path, tmp_path) -> None:
    extra = Section("More", tables=[TABLE._replace(name="more")])
    write_report(make_report(picture, extra), tmp_path)
    assert (tmp_path / "tables" / "more.csv").exists()
    write_report(make_report(picture), tmp_path)
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {"scores.csv"}


def test_figures_of_one_name_stay_apart(picture: Path, tmp_path) -> None:
    other = tmp_path / "other" / picture.name
    other.parent.mkdir()
    shutil.copyfile(picture, other)
    more = Section("More", figures=[Figure(other, "The other."), Figure(picture, "Again.")])
    write_report(make_report(picture, more), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out" / "figures").iterdir()} == {"scores.png", "other_scores.png"}


def test_a_missing_figure_and_a_repeated_table_are_refused(picture: Path, tmp_path) -> None:
    with pytest.raises(DataError, match=r"gone\.png.*missing"):
        write_report(make_report(picture, Section("x", figures=[Figure(tmp_path / "gone.png", "")])), tmp_path)
    with pytest.raises(DataError, match=r"two tables.*scores"):
        write_report(make_report(picture, Section("x", tables=[TABLE])), tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_long_names_stay_inside_the_figure() -> None:
    names = {
        "a representation with a name that is far too long for the margin of a figure, CLS token": Value(1.0, 0.5, 2.0)
    }
    drawing = plot_intervals(names, "A title that goes on and on " * 8, "per cent")
    assert isinstance(drawing, Drawing)
    drawing.draw_without_rendering()
    whole, title = drawing.bbox, drawing._suptitle.get_window_extent()
    assert title.x1 <= whole.x1 and title.y1 <= whole.y1
    assert drawing.axes[0].get_tightbbox().x0 >= whole.x0 - 1


def test_names_that_begin_alike_stay_apart() -> None:
    start = "an encoder with a title that is long enough, "
    names = [f"{start}CLS token", f"{start}mean of tokens"]
    drawing = plot_intervals(dict.fromkeys(names, Value(1.0, 0.5, 2.0)), "title", "per cent")
    assert [text.get_text().replace("\n", " ") for text in drawing.axes[0].get_yticklabels()] == names


# --------------------------------------------------------------------------- in a browser

MEASURED = """(() => {
const style = (e) => getComputedStyle(e);
const light = (text) => text.match(/[0-9.]+/g).slice(0, 3).map(v => v / 255)
  .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const contrast = (a, b) => (Math.max(light(a), light(b)) + .05) / (Math.min(light(a), light(b)) + .05);
const paper = style(document.body).backgroundColor;
const texts = [...document.querySelectorAll('p, td, th, .ci, a, figcaption, .mark')];
return {
  width: innerWidth, page: document.documentElement.scrollWidth, paper,
  contrast: Math.min(...texts.map(e => contrast(style(e).color, paper))),
  smallest: Math.min(...texts.map(e => parseFloat(style(e).fontSize))),
  scrolls: [...document.querySelectorAll('.wide')]
    .some(e => e.scrollWidth > e.clientWidth && style(e).overflowX === 'auto'),
  pictures: [...document.images].map(i => i.complete && i.naturalWidth > 0),
  shown: Math.min(...[...document.images].map(i => i.getBoundingClientRect().width)),
}; })()"""


@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser(written: Path, browser: Page, width: int) -> None:
    papers = set()
    for dark in (False, True):
        browser.requests.clear()
        browser.complaints.clear()
        browser.open(written, width, phone=width < 500, dark=dark)
        found = browser.js(MEASURED)
        assert [url for url in browser.requests if not url.startswith("data:")] == [written.as_uri()]
        assert browser.complaints == []
        assert found["width"] == width
        assert found["page"] <= width, "the page itself must not scroll sideways"
        assert found["scrolls"] or width > 1000, "a wide table scrolls in its own box"
        assert found["pictures"] == [True]
        assert found["shown"] >= min(600, width - 40), "a picture is large enough to be read"
        assert found["contrast"] >= 4.5
        assert found["smallest"] >= 12
        papers.add(found["paper"])
    assert len(papers) == 2, "light and dark differ"


def test_a_screenshot_shows_something(written: Path, browser: Page) -> None:
    browser.open(written, 390, 1600, phone=True, dark=True)
    pixels = np.asarray(Image.open(io.BytesIO(browser.screenshot())).convert("L"))
    assert np.median(pixels) < 60 and pixels.max() > 200
