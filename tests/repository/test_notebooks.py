"""The notebooks run top to bottom on the embedded sample, show their pictures, and define nothing."""

import ast
import os
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from IPython.core.inputtransformer2 import TransformerManager
from jupyter_client import KernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient

pytestmark = pytest.mark.docs

PICTURES = {
    "compute_embeddings_bigearthnet": 1,
    "compute_embeddings_eurosat": 1,
    "eval_logistic_regression_bigearthnet": 2,
    "eval_logistic_regression_eurosat": 2,
    "explore_embedding_tsne": 4,
    "moe_experiments": 10,
}
"""Notebook to the number of its figures."""

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository without what was computed in it, so that the notebooks find and leave nothing."""
    folder = tmp_path_factory.mktemp("clone")
    for entry in ROOT.iterdir():
        if entry.name not in ("outputs", "notebooks") and not entry.name.startswith("."):
            (folder / entry.name).symlink_to(entry)
    (folder / "notebooks").mkdir()
    return folder


@pytest.fixture(scope="module")
def kernel(clone: Path, tmp_path_factory: pytest.TempPathFactory):
    """One kernel of this interpreter for all notebooks: importing everything takes longer than running most."""
    private = tmp_path_factory.mktemp("jupyter")
    manager = KernelManager(
        kernel_name="python3",
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),  # none installed: the one of this interpreter
        connection_file=str(private / "kernel.json"),
    )
    manager.start_kernel(cwd=str(clone), env={**os.environ, "OMP_NUM_THREADS": "1", "IPYTHONDIR": str(private)})
    yield manager
    manager.shutdown_kernel(now=True)


def test_every_notebook_is_tested() -> None:
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == set(PICTURES)


@pytest.mark.parametrize("name", PICTURES)
def test_notebook_is_clean(name: str) -> None:
    notebook = read(name)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "**simulated**" in notebook.cells[0].source, "the first cell says what the data are"
    assert [cell.metadata.get("tags") for cell in code_cells(notebook)].count(["parameters"]) == 1
    for cell in code_cells(notebook):
        assert not cell.outputs and cell.execution_count is None
        tree = ast.parse(TransformerManager().transform_cell(cell.source))
        assert not [node for node in ast.walk(tree) if isinstance(node, DEFINITIONS)], cell.source


@pytest.mark.parametrize("name", PICTURES)
def test_notebook_runs(name: str, clone: Path, kernel: KernelManager) -> None:
    notebook = read(name)
    start = clone if "eurosat" in name else clone / "notebooks"  # both must do
    notebook.cells.insert(0, nbformat.v4.new_code_cell(f"%reset -f\n%cd -q {start}"))
    NotebookClient(notebook, km=kernel, timeout=120).execute()
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == PICTURES[name]
    assert [path.name for path in (clone / "outputs").iterdir()] == ["notebooks"], "all that it writes is there"
