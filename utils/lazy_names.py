"""Names of a package that are imported when they are first asked for (PEP 562)."""

from collections.abc import Callable
from importlib import import_module
from typing import Any


def lazy_names(package: str, *homes: str) -> Callable[[str], Any]:
    """The `__getattr__` of a package.

    Args:
        package: its `__name__`.
        homes: where each name is defined, as `"module:name"`.
    """
    modules = {name: module for module, _, name in (home.partition(":") for home in homes)}

    def __getattr__(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(modules[name]), name)

    return __getattr__
