"""The step that puts this repository's modules under one name, on sources of its own and on all of the project."""

import ast
import sys

import pytest
from conftest import ROOT

from utils.build.backend import build_editable
from utils.build.renaming import imported_modules, project_modules, renamed

MODULES = ("models", "models.api", "models.kernels", "models.kernels.linear", "datasets", "datasets.packed", "export")
BELOW = {name: f"one.{name}" for name in MODULES}
BESIDE = {name: "." + name.replace(".", "_") for name in MODULES}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("from models.api import A, B as C", "from one.models.api import A, B as C"),
        ("from models import (  # why\n    A,\n    api,\n)", "from one.models import (  # why\n    A,\n    api,\n)"),
        ("from \\\n  models.api import A", "from \\\n  one.models.api import A"),
        ("def f():\n    if x: from models import A; y = 1", "def f():\n    if x: from one.models import A; y = 1"),
        ("import models", "from one import models"),
        ("import models.api as m, os", "from one.models import api as m; import os"),
        ("import models.kernels.linear", "import one.models.kernels.linear; from one import models"),
        ("é = 'ü'; from export import main", "é = 'ü'; from one.export import main"),
        ("import_module('datasets.packed')", "import_module('one.datasets.packed')"),
        ("importlib.import_module('datasets.packed', None)", "importlib.import_module('one.datasets.packed', None)"),
        ("READER = 'datasets.packed:Packed'", "READER = 'one.datasets.packed:Packed'"),
        ("f'é {x:4d} {{python -m datasets.packed}} {y}'", "f'é {x:4d} {{python -m one.datasets.packed}} {y}'"),
        ("'''\nü python -m datasets.packed.\n'''", "'''\nü python -m one.datasets.packed.\n'''"),
    ],
)
def test_what_is_renamed(code: str, expected: str) -> None:
    assert renamed(code, BELOW) == expected
    ast.parse(expected)


@pytest.mark.parametrize(
    "code",
    [
        "import modelsx, os.path as models\nfrom os import path\nfrom . import models\nfrom .models import api",
        "# from models import A\nx = 'from models import A; import datasets'",
        "'datasets.packed', 'models', config['models.api'], 'python -m datasetsx', 'python -m datasets.unknown'",
        "'see datasets.packed:Packed', r'datasets.packed:A b', models.api.A",
        "import_module(name); import_module(); find('models.api')",
    ],
)
def test_what_is_left(code: str) -> None:
    """Text that looks like a name and is none."""
    assert renamed(code, BELOW) == code


def test_modules_in_one_folder() -> None:
    """As the Hugging Face hub has them."""
    code = "from models.api import (\n    A,\n); y = 1\nimport models.api as a, os\n'python -m models.api'"
    expected = "from .models_api import (\n    A,\n); y = 1\nfrom . import models_api as a; import os\n"
    expected += "'python -m models.api'"
    assert renamed(code, BESIDE) == expected
    ast.parse(expected)


@pytest.mark.parametrize(
    ("code", "names", "said"),
    [
        ("x = 1\nfrom models.absent import A", BELOW, r"a\.py:2: imports models\.absent, which is not among"),
        ("import models.absent", BELOW, r"a\.py:1: imports models\.absent"),
        ("import models.api", BESIDE, r"a\.py:1: import models\.api cannot be renamed; use from"),
        ("from models import MOEMAE, api", BESIDE, r"a\.py:1: imports the module api from models; import what"),
    ],
)
def test_what_cannot_be_renamed_is_said(code: str, names: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        renamed(code, names, "a.py")


@pytest.mark.runs
def test_all_of_the_project_goes_under_one_name() -> None:
    modules = project_modules(ROOT)
    assert {"models.moe_mae", "pretrain_mae", "utils.build.renaming", "datasets.download.__main__"} <= modules.keys()
    assert not {"hubconf", "moemae", "tests", "benchmarks", "benchmarks.run", "docs.land_cover"} & modules.keys()
    names = {name: f"one.{name}" for name in modules}
    roots = {name.partition(".")[0] for name in modules}
    for module, path in {**modules, "moemae.__main__": ROOT / "moemae/__main__.py"}.items():
        code = path.read_text(encoding="utf-8")
        after = renamed(code, names, str(path))
        assert after.count("\n") == code.count("\n")
        imported = {
            str(node.module) if isinstance(node, ast.ImportFrom) else node.names[0].name
            for node in ast.walk(ast.parse(after))
            if isinstance(node, ast.Import | ast.ImportFrom)
        }
        assert not {name for name in imported if name.partition(".")[0] in roots}, module
        assert "python -m datasets." not in after and "python -m models." not in after, module


def test_what_a_module_imports() -> None:
    code = "def f():\n    from models.kernels import linear\nimport datasets.packed as p, os"
    assert imported_modules(code, BELOW) == {"models.kernels", "datasets.packed"}


def test_an_editable_install_is_refused_in_one_line() -> None:
    with pytest.raises(SystemExit, match="cannot be editable: pip install") as caught:
        build_editable("wheels")
    assert "\n" not in str(caught.value)
    assert "setuptools.build_meta" not in sys.modules, "only a build needs it"
