"""Functions and classes named in text, `package.module:name`: loaded when asked for, also those of a layer above.

The renaming step of the installed package knows this spelling, and no other.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any


def load_named(entry_point: str) -> Any:
    """The function or class of a name such as `embed.compute_embed:main`."""
    module, _, name = entry_point.partition(":")
    return getattr(import_module(module), name)


def lazy_names(package: str, *homes: str) -> Callable[[str], Any]:
    """The `__getattr__` of a package whose names are imported when they are first asked for (PEP 562).

    Args:
        package: its `__name__`.
        homes: where each name is defined, as `"module:name"`.
    """
    known = {home.partition(":")[2]: home for home in homes}

    def __getattr__(name: str) -> Any:
        if name not in known:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return load_named(known[name])

    return __getattr__
