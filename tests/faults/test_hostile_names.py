"""Names that mean harm, or just odd ones: in pages, XML, folders, messages."""

import io
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest
from embedding_files import clusters, write_embeddings
from explorer_pages import meta_of, page_of
from scene_files import some_numbers
from tiny import write_tif

from datasets.labelled_folder import FolderOptions, LabelledFolderDataset
from datasets.labelled_table import read_table
from scenes.products.land_cover import write_class_names
from studies.report import Report, page
from studies.report_parts.sections import Section, Table
from utils.errors import DataError
from utils.markdown import markdown_table
from utils.reporting import configure, reporter

NAMES = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<!--",
    "]]>",
    "%%SHEETS%%",
    "&lt;b&gt;&amp;",
    "javascript:alert(1)",
    "a\nb",
    "\u202etxt.exe",
    "\u2028",
    "half \udcff a letter",
    "\x1b]0;title\x07",
    "'; DROP TABLE x; --",
    "{0.__class__} %s %n",
    "\x00\x01",
    "=cmd|' /C calc'!A0",
    "北京 café",
)


class Tags(HTMLParser):
    """What elements, and attributes that run something, a page has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: dict[str, int] = {}
        self.running: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.elements[tag] = self.elements.get(tag, 0) + 1
        self.running += [name for name, value in attrs if name.startswith("on") or "javascript:" in (value or "")]


def test_a_page_of_patches(tmp_path) -> None:
    x, y, _ = clusters(len(NAMES))
    pages = []
    for name, ids, classes in (
        ("plain", [f"p{number}" for number in range(len(NAMES))], [f"c{number}" for number in range(19)]),
        ("odd", list(NAMES), [f"{NAMES[number % len(NAMES)]}{number}" for number in range(19)]),
    ):
        (tmp_path / name).mkdir()
        file = write_embeddings(tmp_path / name / "a_train.npz", x, y, ids, classes=classes, multilabel=True)
        pages.append(page_of(tmp_path / name, file))
        meta = meta_of(pages[-1])
        assert meta["classes"] == classes and meta["ids"] == [one.rstrip("\0") for one in ids]
    plain, odd = (Tags(path.read_text(encoding="utf-8")) for path in pages)
    assert (plain.elements, plain.running) == (odd.elements, odd.running)


def test_a_report() -> None:
    def text(names: tuple[str, ...]) -> str:
        table = Table(
            "scores", names[0], ["row", *names[1:4]], [[name, name, 1.0, None] for name in names], names[4], names[5]
        )
        sections = [Section(name, [name], [table] if number == 0 else []) for number, name in enumerate(names)]
        config = {"title": names[0], "model": {name: name for name in names if "\udcff" not in name}}
        return page(Report(names[1], names[2], sections, config, {"python": names[3], "packages": {}}, [], 1.0), {})

    plain, odd = text(tuple(f"name {number}" for number in range(len(NAMES)))), text(NAMES)
    odd.encode("utf-8")
    assert (Tags(plain).elements, Tags(plain).running) == (Tags(odd).elements, Tags(odd).running)


def test_names_of_a_map_stay_xml(tmp_path) -> None:
    for path in write_class_names(tmp_path / "map.tif", NAMES):
        root = ElementTree.parse(path).getroot()
        found = [entry.text for entry in root.iter("Category")] or [e.get("label") for e in root.iter("paletteEntry")]
        assert len(found) == len(NAMES) and found[0] == NAMES[0] and found[-1] == NAMES[-1]


def test_a_model_card_keeps_its_rows() -> None:
    lines = markdown_table(("a", "b"), [(name, "x|y") for name in NAMES]).strip().split("\n")
    assert len(lines) == 2 + len(NAMES) and all(line.replace("\\|", "").count("|") == 3 for line in lines)


@pytest.mark.parametrize("name", [name.replace("/", "-").replace("\0", "-")[:60] for name in NAMES])
def test_folders_and_files(tmp_path, name) -> None:
    """They are classes and images like any others; what is said of them is one line, and no command to a terminal."""
    for number, label in enumerate((name, "other")):
        made = write_tif(tmp_path / f"{number}.tif", (some_numbers((44, 44), number)))
        (tmp_path / label).mkdir()
        made.rename(tmp_path / label / f"{name}{number}.tif")
    table = read_table(tmp_path)
    assert set(table.classes) == {name, "other"} and len(table.files) == 2
    if "\udcff" in name:  # which GDAL has no letters for
        with pytest.raises(DataError, match="no text in UTF-8; rename it"):
            LabelledFolderDataset(tmp_path, "0-100%")
        return
    dataset = LabelledFolderDataset(tmp_path, "0-100%", options=FolderOptions(scale=2.75e-5, offset=-0.2))
    assert dataset.batch([0, 1]).images.shape == (2, 7, 40, 40)
    broken = tmp_path / table.files[0]
    broken.write_bytes(b"no image")
    with pytest.raises(DataError) as caught:
        dataset.batch([0, 1])
    assert printed(str(caught.value)).isprintable()


def printed(message: str) -> str:
    """What a terminal is given, without line feeds."""
    stream = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stderr", stream)
        configure()
        reporter.error(message)
    return stream.getvalue().replace("\n", "").replace("\u202e", "").replace("\u2028", "").replace("\udcff", "")


def test_messages_are_no_commands_to_a_terminal() -> None:
    assert printed("a\x1b[2Jb\x9bc\rd\x07") == "a\\x1b[2Jb\\x9bc\\x0dd\\x07"
