"""Every code block of README and guide runs as it stands, page by page, in a clone without results.

Where a block needs what only its reader has (a scene, a dataset, GPUs), something small stands in for it.
"""

import importlib.util
import re
from pathlib import Path

import pytest
from conftest import ROOT
from page_blocks import SHELL, blocks, commands, run_command, run_python
from tiny_weights import write_tiny_checkpoint

pytestmark = pytest.mark.docs

PAGES = ["README.md", "docs/failures.md", *(f"docs/guide/{path.name}" for path in (ROOT / "docs/guide").glob("*.md"))]
SHOWN_ONLY = ("bibtex", "text")
STAND_INS = {
    "LC08_L2SP_…": "outputs/my_scene",
    "my_polygons.geojson": "outputs/my_scene/truth.tif",
    "/data/bigearthnet-l": "sample_dataset/bigearthnet-l",
    "--set training.epochs=20": "--set training.epochs=1",
    "--nproc_per_node=8": "--nproc_per_node=1",
    "--nnodes=4": "--nnodes=1",
    "FIRST_HOST:29500": "localhost:0",
    " configs/pretrain_moe_mae.yaml ": " configs/sample_pretrain.yaml --set training.epochs=1 ",
    " configs/pretrain_moe_mae.yaml\n": " configs/sample_pretrain.yaml --set training.epochs=1\n",
    "configs/embed_bigearthnet.yaml\n": "configs/sample_embed.yaml\n",
}
"""What only the reader has, and what stands in for it."""
RELEASE = "outputs/release/"
"""What `export.py` wrote, in an example that starts from it."""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The repository without results."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for entry in ROOT.iterdir():
        if entry.name != "outputs" and not entry.name.startswith("."):
            (folder / entry.name).symlink_to(entry)
    return folder


def test_the_readme_shows_the_two_lines() -> None:
    texts = [block.text for block in blocks((ROOT / "README.md").read_text(encoding="utf-8"))]
    assert any("from moemae import MOEMAE" in text and "MOEMAE.from_pretrained(" in text for text in texts)
    assert any(".embed(" in text for text in texts)


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run(clone: Path, page: str) -> None:
    found = blocks((ROOT / page).read_text(encoding="utf-8"))
    assert found and {block.language for block in found} <= {"python", *SHELL, *SHOWN_ONLY}
    for block in found:
        if block.language in SHELL:
            text = block.text
            for there, here in STAND_INS.items():
                text = text.replace(there, here)
            if "outputs/my_scene" in text:
                make_scene(clone / "outputs/my_scene")
            for command in commands(text):
                run_command(command, clone)
    texts = [block.text for block in found if block.language == "python" and packages_are_there(block.text)]
    if any(RELEASE in text for text in texts):
        from export import main

        checkpoint = write_tiny_checkpoint(clone / "tiny.pth")
        assert main(["--checkpoint", str(checkpoint), "--out", str(clone / RELEASE), "--programs", "onnx"]) == 0
    run_python(texts, clone)


def make_scene(folder: Path) -> None:
    from datasets.simulated import main

    assert main(["--kind", "scene", "--size", "120", "--seed", "1", "--out", str(folder)]) == 0


def packages_are_there(text: str) -> bool:
    return all(importlib.util.find_spec(name) for name in ("onnxruntime", "xarray") if re.search(rf"\b{name}\b", text))


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/guide/")])
def test_a_page_of_the_guide_begins_with_an_example_and_is_in_the_index(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    title, _, rest = text.partition("\n\n")
    assert title.startswith("# ") and rest.startswith("```")
    assert f"]({page.removeprefix('docs/')})" in (ROOT / "docs/guide.md").read_text(encoding="utf-8")


def test_a_block_that_fails_is_noticed(clone: Path) -> None:
    found = blocks(
        "a\n```python\nx = 1\n```\n\n```\npython no_such_file.py\n```\n```python\nassert x == 2, 'seen'\n```\n"
    )
    assert [block.language for block in found] == ["python", "", "python"]
    with pytest.raises(AssertionError, match="seen"):
        run_python([block.text for block in found if block.language == "python"], clone)
    with pytest.raises(AssertionError, match="no_such_file"):
        run_command(commands(found[1].text)[0], clone)


def test_commands_are_read_as_a_shell_reads_them() -> None:
    text = "A=x/y; B=${A}_z  # a note\npython f.py \\\n    --set 'k=[1, 2]' $B  # note\npython g.py || echo failed\n"
    first, second = commands(text)
    assert first.words == ["python", "f.py", "--set", "k=[1, 2]", "x/y_z"] and not first.may_fail
    assert second.words == ["python", "g.py"] and second.may_fail
