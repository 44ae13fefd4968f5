"""The repository describes itself correctly: the tree of docs/architecture.md, the configs it names, the figure."""

import json
import re
import subprocess

import pytest
from conftest import ROOT

from models import ModelConfig, diagram
from models.architecture_figure import plot_architecture
from models.config import SIZES
from studies.recipe.report import summary

README, ARCHITECTURE, CONTRIBUTING = (
    (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/architecture.md", "CONTRIBUTING.md")
)
PAGES = [
    "docs/guide.md",
    "docs/failures.md",
    *(f"docs/guide/{path.name}" for path in (ROOT / "docs/guide").glob("*.md")),
]
GUIDE = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in PAGES)


def tree() -> set[str]:
    """Paths in the tree of docs/architecture.md."""
    block = ARCHITECTURE.split("## Tree")[1].split("```")[1]
    paths, folder = set(), ""
    for line in filter(None, block.split("\n")):
        names = re.split(r" {2,}", line.strip())[0]
        if not line.startswith(" "):
            folder = names if names.endswith("/") else ""
            paths.add(names)
        else:
            paths |= {folder + name for name in names.split(", ")}
    return paths


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return listed.stdout.split("\n")[:-1]


def test_everything_in_the_tree_exists() -> None:
    for path in tree():
        assert list(ROOT.glob(path.rstrip("/"))), path


def test_every_module_is_in_the_tree() -> None:
    described = [re.compile(re.escape(path).replace(r"\*", "[^/]*")) for path in tree()]
    for path in tracked():
        if path.endswith(".py") and not path.endswith("__init__.py") and not path.startswith("tests/"):
            assert any(pattern.fullmatch(path) for pattern in described), f"{path}: not in docs/architecture.md"


def test_every_config_named_in_the_texts_exists() -> None:
    for path in re.findall(r"configs/\w+\.yaml", README + GUIDE + CONTRIBUTING):
        assert (ROOT / path).exists(), path


def test_links_in_the_texts_lead_somewhere() -> None:
    for name in (
        "README.md",
        "docs/evidence/README.md",
        "docs/speed.md",
        "docs/published_behaviour.md",
        "weights/README.md",
        *PAGES,
    ):
        text = (ROOT / name).read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", text):
            assert (ROOT / name).parent.joinpath(target).exists(), f"{name}: {target}"
        headings = {
            re.sub(r"[^a-z -]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.+)$", text, re.M)
        }
        assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= headings


def test_the_readme_is_short() -> None:
    assert README.count("\n") <= 160


def test_the_readme_links_to_the_tree() -> None:
    assert "docs/architecture.md" in README and "## Tree" not in README


def test_every_module_named_on_the_way_of_a_patch_exists() -> None:
    for path in re.findall(r"`((?:\w+/)+\w+\.py)`", ARCHITECTURE + CONTRIBUTING):
        assert (ROOT / path).exists(), path


def test_the_readme_counts_the_parameters_right() -> None:
    assert "2,537,562, 1,379,032 and 824,693" in README


def test_the_readme_shows_the_recipes_result() -> None:
    """Its tables, and that of the evidence, are made from the committed result: python -m studies.recipe … --tables."""
    result = json.loads((ROOT / "docs/evidence/recipe/recipe.json").read_text(encoding="utf-8"))
    evidence = (ROOT / "docs/evidence/README.md").read_text(encoding="utf-8")
    for table in summary(result).strip().split("\n\n"):
        assert table in (evidence if table.startswith("| row |") else README)
    assert not re.search(r"/(home|root|work|tmp)/", json.dumps(result))
    manifest = json.loads((ROOT / "weights/manifest.json").read_text(encoding="utf-8"))
    shipped = {entry["sha256"] for entry in manifest.values() if entry["shipped"]}
    for row in result["rows"]:
        assert row["kind"] == "baseline" or row["seconds"] or set(row["sha256"]) <= shipped, row["title"]


def test_the_repository_stays_small() -> None:
    sizes = {path: (ROOT / path).stat().st_size for path in tracked() if (ROOT / path).exists()}
    assert max(sizes.values()) <= 12e6
    assert sum(sizes.values()) <= 40e6
    assert sum(size for path, size in sizes.items() if path.startswith("sample_dataset/")) <= 10e6


@pytest.mark.parametrize("size", SIZES)
def test_the_architecture_figure_follows_the_config(size: str) -> None:
    config = ModelConfig.of_size(size)
    texts = [text.get_text() for axes in plot_architecture(config).axes for text in axes.texts]
    assert any(f"{config.depth} blocks" in text for text in texts)
    assert [text for text in texts if text.isdigit()] == [str(w) for w in (*config.expert_widths, 54, 54)]


def test_the_figure_is_drawn_of_every_published_size() -> None:
    assert tuple(SIZES) == diagram.SIZES


def test_the_figure_is_written(tmp_path, laid_out) -> None:
    assert diagram.main(["--size", "XXS", "--out", str(tmp_path / "a.png")]) == 0
    assert (tmp_path / "a.png").stat().st_size > 20_000
