"""The Python in the README and the guide runs as it stands, from the repository's folder."""

import importlib.util
import os
import re
import subprocess
from pathlib import Path

import pytest
import warm_python
from conftest import ROOT
from tiny_weights import write_tiny_checkpoint

pytestmark = pytest.mark.docs

RELEASE = "outputs/release"
"""What `export.py` wrote, in an example that starts from it."""
RUNNER = """
import pathlib, sys
names = {"__name__": "__main__"}
for path in sys.argv[1:]:
    exec(compile(pathlib.Path(path).read_text(), path, "exec"), names)
"""


def python_blocks(text: str) -> list[str]:
    """The fenced blocks of Python in a Markdown text."""
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def run_blocks(blocks: list[str], folder: Path) -> subprocess.CompletedProcess:
    """Run blocks one after another, as a reader would, in a copy of the repository without results."""
    clone = folder / "clone"
    clone.mkdir()
    for entry in ROOT.iterdir():
        if entry.name != "outputs" and not entry.name.startswith("."):
            (clone / entry.name).symlink_to(entry)
    if any(RELEASE in block for block in blocks):
        from export import main

        checkpoint = write_tiny_checkpoint(folder / "tiny.pth")
        assert main(["--checkpoint", str(checkpoint), "--out", str(clone / RELEASE), "--programs", "onnx"]) == 0
    files = []
    for number, block in enumerate(blocks):
        files.append(folder / f"block_{number}.py")
        files[-1].write_text(block)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "."}
    return warm_python.run(["-c", RUNNER, *files], cwd=clone, env=environment, timeout=300)


def test_the_readme_shows_the_two_lines() -> None:
    blocks = python_blocks((ROOT / "README.md").read_text())
    assert any(
        re.search(r"from (models|moemae) import MOEMAE", block) and "MOEMAE.from_pretrained(" in block
        for block in blocks
    )
    assert any(".embed(" in block for block in blocks)


@pytest.mark.parametrize("text", ["README.md", "docs/guide.md"])
def test_the_python_in_the_texts_runs(tmp_path, text: str) -> None:
    blocks = python_blocks((ROOT / text).read_text())
    for package in ("onnxruntime", "xarray"):
        if importlib.util.find_spec(package) is None:
            blocks = [block for block in blocks if package not in block]
    done = run_blocks(blocks, tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_block_that_fails_is_noticed(tmp_path) -> None:
    blocks = python_blocks("a\n```python\nx = 1\n```\n\n```\nnot python\n```\n```python\nassert x == 2, 'seen'\n```\n")
    assert len(blocks) == 2
    done = run_blocks(blocks, tmp_path)
    assert done.returncode != 0 and "seen" in done.stderr
