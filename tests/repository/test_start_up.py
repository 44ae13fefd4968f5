"""`--help` answers before what does the work is imported: which modules are not needed, not how long it takes."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT

HEAVY = ("torch", "sklearn", "scipy", "pandas", "matplotlib", "rasterio", "joblib", "onnxruntime")
"""Packages that take a tenth of a second or more to import."""

NOT_ASKED = {"benchmarks/published_worker.py", "docs/site.py", "release/onnx_example.py"}
"""What `benchmarks.published` starts, what `make docs` starts, and an example for ONNX Runtime beside an export."""

GUARD = 'if __name__ == "__main__":'


def scripts() -> list[str]:
    """Modules of the project that run as scripts; none outside of a git checkout."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True)
    paths = [path for path in listed.stdout.splitlines() if not path.startswith("tests/") and (ROOT / path).exists()]
    paths = [path for path in paths if path not in NOT_ASKED and GUARD in (ROOT / path).read_text("utf-8")]
    return sorted(path.removesuffix(".py").removesuffix("/__main__").replace("/", ".") for path in paths)


SCRIPTS = scripts()

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
