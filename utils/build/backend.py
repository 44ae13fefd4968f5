"""The build backend of `pip install .` (PEP 517): the repository's packages under one name, built by setuptools.

The repository keeps its folders; what is installed is made in a temporary folder, where every package stands below
`moemae` with its imports renamed (`utils.build.renaming`), beside the files that scripts need: configs, and the weights
that come with the project.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from utils.build.renaming import FRONT, project_modules, renamed

ROOT = Path(__file__).resolve().parent.parent.parent
BESIDE = ("README.md", "LICENSE", "requirements.txt", "requirements-export.txt")
"""Files that the project's metadata are made of."""
_OWN_SYSTEM = 'requires = ["setuptools>=77"]\nbuild-backend = "utils.build.backend"\nbackend-path = ["."]'
_PLAIN_SYSTEM = 'requires = ["setuptools>=77"]\nbuild-backend = "setuptools.build_meta"'
_CODE_ENDINGS = (".py", ".pyc")


def build_wheel(
    wheel_directory: str, config_settings: Mapping[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    """See PEP 517."""
    target = str(Path(wheel_directory).resolve())
    with _staged() as setuptools:
        return setuptools.build_wheel(target, config_settings, metadata_directory)


def build_sdist(sdist_directory: str, config_settings: Mapping[str, Any] | None = None) -> str:
    """See PEP 517. Holds the package as it is installed, which plain setuptools builds."""
    target = str(Path(sdist_directory).resolve())
    with _staged() as setuptools:
        return setuptools.build_sdist(target, config_settings)


def build_editable(*_: object, **__: object) -> str:
    """Refused: an edit would not be seen, since imports are renamed when the package is built."""
    raise SystemExit(
        "error: the package is made from the repository's files when it is built, so it cannot be editable: "
        "pip install . again after an edit, or start the scripts from the repository's folder"
    )


def write_package(folder: Path) -> None:
    """Write the package `moemae` into a folder: code under one name, configs, pages, tables and weights."""
    modules = project_modules(ROOT)
    names = {name: f"{FRONT}.{name}" for name in modules}
    for path in (ROOT / FRONT).glob("*.py"):
        _write_module(path, folder / path.name, names)
    for path in modules.values():
        _write_module(path, folder / path.relative_to(ROOT), names)
    for package in {name.partition(".")[0] for name in modules}:
        for path in (ROOT / package).rglob("[!.]*"):
            if path.is_file() and path.suffix not in _CODE_ENDINGS:
                _copy(path, folder)
    weights = ROOT / "weights"
    shipped = [name for name, entry in json.loads((weights / "manifest.json").read_text()).items() if entry["shipped"]]
    for name in ("manifest.json", "README.md", *shipped):
        _copy(weights / name, folder)


def _write_module(path: Path, target: Path, names: Mapping[str, str]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(renamed(path.read_text(encoding="utf-8"), names, str(path)), encoding="utf-8")


def _copy(path: Path, folder: Path) -> None:
    target = folder / path.relative_to(ROOT)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)


@contextmanager
def _staged() -> Iterator[Any]:
    """Setuptools' backend, in a temporary folder that holds what is to be built."""
    from setuptools import build_meta

    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_package(folder / FRONT)
        for file in BESIDE:
            _copy(ROOT / file, folder)
        project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        if _OWN_SYSTEM not in project:
            raise SystemExit("error: pyproject.toml has another [build-system] than utils/build/backend.py knows")
        (folder / "pyproject.toml").write_text(project.replace(_OWN_SYSTEM, _PLAIN_SYSTEM), encoding="utf-8")
        os.chdir(folder)
        try:
            yield build_meta
        finally:
            os.chdir(before)
