"""Runs the notebooks, and stores what they show or compares it with what is stored.

    python -m docs.notebooks [NAME …]           run and store
    python -m docs.notebooks --check [NAME …]   run and compare: text, numbers within a tolerance, pictures by number

They run in a copy of the repository without results, all in one kernel, so that nothing of this machine is stored.
Pictures are stored with at most 256 colours.
"""

import argparse
import base64
import io
import math
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

from utils.errors import UserError, run_script
from utils.reporting import reporter

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.ipynb")))
TOLERANCE = 0.02
"""Of numbers, relative and absolute: processors and versions of libraries round differently."""
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
PICTURE = "image/png"


def read(name: str) -> NotebookNode:
    """A notebook as it is stored."""
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Its cells with code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def clone_into(folder: Path) -> Path:
    """The repository without what was computed in it, so that notebooks find and leave nothing."""
    for entry in ROOT.iterdir():
        if entry.name not in ("outputs", "notebooks") and not entry.name.startswith("."):
            (folder / entry.name).symlink_to(entry)
    (folder / "notebooks").mkdir()
    return folder


@contextmanager
def kernel_in(clone: Path, private: Path) -> Iterator[KernelManager]:
    """One kernel of this interpreter for all notebooks: importing everything takes longer than running most."""
    manager = KernelManager(
        kernel_name="python3",
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),  # none installed: the one of this interpreter
        connection_file=str(private / "kernel.json"),
    )
    manager.start_kernel(cwd=str(clone), env={**os.environ, "OMP_NUM_THREADS": "1", "IPYTHONDIR": str(private)})
    try:
        yield manager
    finally:
        manager.shutdown_kernel(now=True)


def run(name: str, clone: Path, manager: KernelManager) -> NotebookNode:
    """The notebook with what it shows when it is run from top to bottom in the clone."""
    notebook = read(name)
    start = clone if "eurosat" in name else clone / "notebooks"  # both must do
    first = nbformat.v4.new_code_cell(f"%reset -f\n%cd -q {start}")
    notebook.cells.insert(0, first)
    NotebookClient(notebook, km=manager, timeout=600).execute()
    notebook.cells.remove(first)
    for number, cell in enumerate(code_cells(notebook), start=1):
        cell.execution_count = number
        cell.metadata.pop("execution", None)  # times
        cell.outputs = [_to_store(output, number) for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def _to_store(output: NotebookNode, number: int) -> NotebookNode:
    if "execution_count" in output:
        output.execution_count = number
    if PICTURE in output.get("data", {}):
        small = io.BytesIO()
        with Image.open(io.BytesIO(base64.b64decode(output.data[PICTURE]))) as image:
            image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
        output.data[PICTURE] = base64.b64encode(small.getvalue()).decode()
    return output


def text_of(cell: NotebookNode) -> str:
    """What a cell shows as text."""
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs)


def pictures_of(cell: NotebookNode) -> int:
    """How many pictures a cell shows."""
    return sum(PICTURE in output.get("data", {}) for output in cell.outputs)


def differences(stored: NotebookNode, fresh: NotebookNode) -> list[str]:
    """What a notebook shows now and did not when it was stored, a line for each cell."""
    found = []
    for number, (was, now) in enumerate(zip(code_cells(stored), code_cells(fresh), strict=True), start=1):
        if pictures_of(was) != pictures_of(now):
            found.append(f"cell {number}: {pictures_of(now)} pictures, stored are {pictures_of(was)}")
        elif not same_text(text_of(was), text_of(now)):
            found.append(f"cell {number}: {text_of(now)!r}, stored is {text_of(was)!r}")
    return found


def same_text(first: str, second: str) -> bool:
    """Whether two texts have the same words, and numbers that are close."""
    words = [NUMBER.sub("#", text).split() for text in (first, second)]
    numbers = [[float(number) for number in NUMBER.findall(text)] for text in (first, second)]
    return words[0] == words[1] and all(
        math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE) for a, b in zip(*numbers, strict=True)
    )


def main(argv: list[str] | None = None) -> int:
    """Run notebooks, and store or compare; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="NAME", help="default: all")
    parser.add_argument("--check", action="store_true", help="compare with what is stored")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as private:
        clone = clone_into(Path(first))
        with kernel_in(clone, Path(private)) as manager:
            for name in given.names or NAMES:
                fresh = run(name, clone, manager)
                if given.check and (found := differences(read(name), fresh)):
                    raise UserError(f"notebooks/{name}.ipynb: shows something else than is stored: {found[0]}")
                if not given.check:
                    nbformat.write(fresh, FOLDER / f"{name}.ipynb")
                reporter.info(f"{name}: {'as stored' if given.check else 'stored'}")
    return 0


if __name__ == "__main__":
    run_script(main)
