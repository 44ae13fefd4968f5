"""An extension of the reference's parser: `lat, lon: degrees` in a docstring stands for an entry each."""

import re
from typing import Any

from griffe import Extension  # pyright: ignore[reportMissingImports] (requirements-docs.txt)

GROUP = re.compile(r"^(\s+)(\w+(?:, \w+)+): (.*(?:\n\1\s+\S.*)*)", re.MULTILINE)


def one_each(docstring: str) -> str:
    """A docstring with an entry for each name of a group, all with the group's text."""
    return GROUP.sub(lambda found: "\n".join(f"{found[1]}{n}: {found[3]}" for n in found[2].split(", ")), docstring)


class GroupedParameters(Extension):
    """Rewrites docstrings when they are collected."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = one_each(obj.docstring.value)
