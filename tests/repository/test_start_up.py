"""`--help` answers before what does the work is imported: which modules are not needed, not how long it takes."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT

HEAVY = ("torch", "sklearn", "scipy", "pandas", "matplotlib", "rasterio", "joblib", "onnxruntime")
"""Packages that take a tenth of a second or more to import."""

SCRIPTS = (
    "pretrain_mae", "eval_mae", "train_logistic_regression", "embed_scene", "embed_series", "reproduce", "export",
    "explore", "embed.compute_embed", "datasets.download", "datasets.packed", "eval.split_by_area", "studies.recipe",
    "studies.recipe.sensors", "studies.recipe.second_sensor", "finetune",
    "studies.sanity", "moemae",
)  # fmt: skip

ASK = """
import json, runpy, sys
from contextlib import redirect_stdout
from io import StringIO

found = {}
for script in json.loads(sys.argv[1]):
    sys.argv = [script, "--help"]
    with redirect_stdout(StringIO()) as text:
        try:
            runpy.run_module(script, run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            found[script] = [ended.code, len(text.getvalue()), sorted(sys.modules)]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def imported() -> dict[str, tuple[int, int, list[str]]]:
    """Exit code, length of the text and imported modules of every script's `--help`, in one fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(SCRIPTS)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_imports_nothing_that_does_the_work(imported, script: str) -> None:
    code, length, modules = imported[script]
    assert code in (0, None) and (length > 100 or script == "moemae")
    assert not {name.partition(".")[0] for name in modules} & set(HEAVY)


def test_embedding_a_dataset_imports_neither_fits_nor_figures_nor_the_compiler() -> None:
    """What `python -m embed.compute_embed` waits for beside PyTorch, with weights whose positions start as `sincos`."""
    code = (
        "import sys, embed.dataset; from models import MOEMAE\n"
        "print(MOEMAE.from_pretrained('xxs').config.position_start, sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("sincos") and "'torch'" in done.stdout
    unwanted = ("sklearn", "scipy", "pandas", "matplotlib", "torch._dynamo", "torch._inductor", "sympy")
    assert not [name for name in unwanted if f"'{name}'" in done.stdout]
