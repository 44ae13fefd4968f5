"""The notebooks run top to bottom on the embedded sample, show what is stored, and define nothing."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from jupyter_client.manager import KernelManager
from nbformat import NotebookNode

from docs.notebooks import (
    FOLDER,
    NAMES,
    clone_into,
    code_cells,
    differences,
    kernel_in,
    pictures_of,
    read,
    run,
    same_text,
    text_of,
)

pytestmark = pytest.mark.docs

PICTURES = {
    "compute_embeddings_bigearthnet": 1,
    "compute_embeddings_eurosat": 1,
    "dense_prediction": 2,
    "eval_logistic_regression_bigearthnet": 2,
    "eval_logistic_regression_eurosat": 2,
    "explore_embedding_tsne": 4,
    "forty_years": 1,
    "moe_experiments": 10,
    "probe_your_labels": 1,
    "time": 3,
    "what_the_experts_see": 3,
    "your_scene": 2,
}
"""Notebook to the number of its figures."""

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
OF_THIS_MACHINE = re.compile(r"/(home|root|work|tmp|Users)/|\d+(\.\d+)? ?(s|ms|seconds)\b|20\d\d-\d\d-\d\dT")
"""Paths, durations and times of a run."""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone_into(tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="module")
def kernel(clone: Path, tmp_path_factory: pytest.TempPathFactory):
    with kernel_in(clone, tmp_path_factory.mktemp("jupyter")) as manager:
        yield manager


def test_every_notebook_is_tested() -> None:
    assert set(NAMES) == set(PICTURES)


@pytest.mark.parametrize("name", PICTURES)
def test_notebook_is_clean(name: str) -> None:
    notebook = read(name)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "**simulated**" in notebook.cells[0].source, "the first cell says what the data are"
    assert [cell.metadata.get("tags") for cell in code_cells(notebook)].count(["parameters"]) == 1
    for cell in code_cells(notebook):
        tree = ast.parse(TransformerManager().transform_cell(cell.source))
        assert not [node for node in ast.walk(tree) if isinstance(node, DEFINITIONS)], cell.source


@pytest.mark.parametrize("name", PICTURES)
def test_what_it_shows_is_stored(name: str) -> None:
    cells = code_cells(read(name))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert sum(map(pictures_of, cells)) == PICTURES[name]
    assert any(text_of(cell).strip() for cell in cells)
    assert not [text_of(cell) for cell in cells if OF_THIS_MACHINE.search(text_of(cell))]


def test_they_stay_small() -> None:
    sizes = [path.stat().st_size for path in FOLDER.glob("*.ipynb")]
    assert max(sizes) <= 1e6 and sum(sizes) <= 5e6


@pytest.mark.parametrize("name", PICTURES)
def test_notebook_shows_what_is_stored(name: str, clone: Path, kernel: KernelManager) -> None:
    assert not differences(read(name), run(name, clone, kernel))
    assert [path.name for path in (clone / "outputs").iterdir()] == ["notebooks"], "all that it writes is there"


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("mAP 52.3 of 64", "mAP  52.6 of 64", True),
        ("mAP 52.3", "mAP 55.3", False),
        ("mAP 52.3", "F1 52.3", False),
        ("x (192, 144)", "x (192, 720)", False),
        ("1 2", "1", False),
    ],
)
def test_texts_are_compared_word_by_word_and_number_by_number(first: str, second: str, same: bool) -> None:
    assert same_text(first, second) == same


def test_a_change_is_noticed() -> None:
    def shows(text: str, pictures: int) -> NotebookNode:
        outputs = [nbformat.v4.new_output("stream", text=text)]
        outputs += [nbformat.v4.new_output("display_data", {"image/png": ""})] * pictures
        return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=outputs)])

    assert not differences(shows("score 0.50", 1), shows("score 0.505", 1))
    assert "0.7" in differences(shows("score 0.5", 1), shows("score 0.7", 1))[0]
    assert "0 pictures" in differences(shows("score 0.5", 1), shows("score 0.5", 0))[0]
