"""The layers of docs/architecture.md hold: no import runs against their order, so packages form no circle."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT


def layers() -> dict[str, int]:
    """Package, or module at the root, to the number of its layer; 0 imports nothing of the others."""
    section = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").split("## Layers")[1]
    lines = section.split("```")[1].strip().split("\n")
    return {name: number for number, line in enumerate(lines) for name in line.split(", ")}


def modules() -> dict[str, Path]:
    """Name to file of every module but the tests."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    files = [Path(line) for line in listed.stdout.split("\n")[:-1]]
    return {
        ".".join(file.with_suffix("").parts).removesuffix(".__init__"): ROOT / file
        for file in files
        if file.parts[0] != "tests" and (ROOT / file).exists()
    }


def imported(code: str, module: str) -> Iterator[str]:
    """Names that a module imports, also inside functions; of `from a import b` both a and a.b."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute here"
            for alias in node.names:
                yield str(node.module)
                yield f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Call) and re.search(r"\bimport_module$", ast.unparse(node.func)):
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str))


def package(module: str) -> str:
    return module.partition(".")[0]


def test_every_package_has_a_layer() -> None:
    assert {package(module) for module in modules()} == set(layers())


def test_no_import_runs_against_the_layers() -> None:
    order, known = layers(), modules()
    against = {
        (module, name)
        for module, path in known.items()
        for name in imported(path.read_text(encoding="utf-8"), module)
        if name in known and package(name) != package(module) and order[package(name)] >= order[package(module)]
    }
    assert not against


def test_imports_inside_functions_count() -> None:
    code = "def f():\n    from models.inference.embedding import embed\n    import scenes.run\n"
    assert {"models.inference.embedding", "scenes.run"} <= set(imported(code, "made_up"))
