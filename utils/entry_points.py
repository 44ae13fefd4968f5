"""Functions named in text, `package.module:name`: loaded when they are called for, also those of a layer above.

The renaming step of the installed package knows this spelling, and no other.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any


def load_function(entry_point: str) -> Callable[..., Any]:
    """The function of a name such as `embed.compute_embed:main`."""
    module, _, name = entry_point.partition(":")
    return getattr(import_module(module), name)
