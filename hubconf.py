"""Models for `torch.hub`: `torch.hub.load("path/to/this/folder", "moemae_s", source="local")`.

The packages of this repository have common names (`datasets`, `utils`, …). Here they are imported below `moemae_hub`,
by the step that makes the installed package (`utils/build/renaming.py`), so that none of those names is taken or left
behind in the program that loads a model.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

dependencies = ["torch", "numpy", "tqdm"]

ROOT = Path(__file__).resolve().parent
NAME = "moemae_hub"
_KEY = "__moemae_root__"
"""Attribute of the finder that says which copy of the project it serves."""


def moemae(weights: str | None = None, **options: Any) -> Any:
    """Trained weights as `MOEMAE.from_pretrained` takes them: a name, a file, a folder, a model on the hub."""
    return _package().MOEMAE.from_pretrained(weights, **options)


def moemae_xxs(**options: Any) -> Any:
    """The encoder of size XXS that comes with the project; `device` as for `MOEMAE.from_pretrained`."""
    return moemae("xxs", **options)


def moemae_s(**options: Any) -> Any:
    """The encoder of size S that comes with the project; `device` as for `MOEMAE.from_pretrained`."""
    return moemae("s", **options)


def moemae_published(**options: Any) -> Any:
    """The authors' encoder, fetched from the Hugging Face hub (needs the package huggingface_hub)."""
    return moemae("published", **options)


def _package() -> ModuleType:
    """The package `moemae` of this copy, under another name."""
    root = next((getattr(finder, _KEY) for finder in sys.meta_path if hasattr(finder, _KEY)), None)
    if root is None:
        sys.meta_path.insert(0, _Finder())
    elif root != ROOT:
        raise RuntimeError(f"{ROOT}: this program has a model of another copy already ({root}); load both from one")
    return importlib.import_module(NAME)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds `moemae_hub.models` in `models/`, and so on."""

    def __init__(self) -> None:
        path = ROOT / "utils" / "build" / "renaming.py"
        spec = importlib.util.spec_from_file_location(f"{NAME}_renaming", path)
        assert spec is not None and spec.loader is not None
        self.renaming = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.renaming)
        self.names = {name: f"{NAME}.{name}" for name in self.renaming.project_modules(ROOT)}
        setattr(self, _KEY, ROOT)

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        package, _, inside = fullname.partition(".")
        if package != NAME:
            return None
        place = ROOT.joinpath(*inside.split(".")) if inside else ROOT / self.renaming.FRONT
        for file in (place / "__init__.py", place.with_suffix(".py")):
            if file.is_file():
                loader = _Loader(fullname, str(file), self)
                return importlib.util.spec_from_file_location(fullname, file, loader=loader)
        return None


class _Loader(importlib.machinery.SourceFileLoader):
    """Runs a file of the project with its imports renamed; no bytecode is kept, since that of the file is another."""

    def __init__(self, fullname: str, path: str, finder: _Finder) -> None:
        super().__init__(fullname, path)
        self.finder = finder

    def get_code(self, fullname: str) -> CodeType:
        """See `importlib.abc.InspectLoader`."""
        code = Path(self.path).read_text(encoding="utf-8")
        return compile(self.finder.renaming.renamed(code, self.finder.names, self.path), self.path, "exec")
