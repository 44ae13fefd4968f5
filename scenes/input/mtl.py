"""The MTL file of a Landsat product, as JSON, text or XML: values by name, those of the product itself first.

A Level-2 product's MTL repeats names of the Level-1 product that it was made from, in groups of their own: what counts
is decided by the group, never by the order in which a file has them.
"""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from scenes.input.virtual_files import read_bytes, shown
from utils.errors import DataError
from utils.parsing import damage_as_value_error, parse_json

ENDINGS = (".json", ".txt", ".xml")
"""In the order in which they are taken where several are there: they hold the same."""

_FIRST = ("PRODUCT_CONTENTS", "IMAGE_ATTRIBUTES", "PRODUCT_METADATA", "METADATA_FILE_INFO")
"""Groups that speak of the product itself, in Collection 2 and 1."""
_NOTHING = ("", "null", "none", "n/a")


class Entry(NamedTuple):
    """One value of an MTL."""

    group: str
    name: str
    value: str

    @property
    def rank(self) -> int:
        """Which of two values of one name counts: the lower."""
        if self.group in _FIRST:
            return _FIRST.index(self.group)
        return len(_FIRST) + self.group.startswith("LEVEL1")


def read_mtl(path: Path) -> dict[str, str]:
    """All values of an MTL file by name; of names that occur in several groups, that of the product itself.

    Raises:
        DataError: naming the file, when it cannot be read or holds no values.
    """
    fix = "fetch it again, or move it away to go on without"
    try:
        with damage_as_value_error():
            text = _decoded(read_bytes(path))
            entries = list(_READERS.get(path.suffix.lower(), _of_text)(text))
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise DataError(f"{shown(path)}: cannot be read ({error}); {fix}") from error
    values: dict[str, str] = {}
    for entry in sorted(entries, key=lambda entry: entry.rank):
        if entry.value.lower() not in _NOTHING:
            values.setdefault(entry.name, entry.value)
    if not values:
        raise DataError(f"{shown(path)}: cannot be read (it holds no values of an MTL); {fix}")
    return values


def _decoded(data: bytes) -> str:
    """Text in UTF-8, with or without its mark, or in the Latin-1 that some tools write."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _of_json(text: str) -> Iterator[Entry]:
    def walk(entry: dict[str, Any], group: str) -> Iterator[Entry]:
        for name, value in entry.items():
            if isinstance(value, dict):
                yield from walk(value, name)
            elif value is not None and not isinstance(value, list):
                yield Entry(group, name, str(value).strip())

    found = parse_json(text)
    return walk(found, "") if isinstance(found, dict) else iter(())


def _of_text(text: str) -> Iterator[Entry]:
    groups: list[str] = []
    for line in text.splitlines():
        name, equals, value = (part.strip() for part in line.partition("="))
        if name == "GROUP":
            groups.append(value)
        elif name == "END_GROUP":
            groups = groups[:-1]
        elif equals:
            yield Entry(groups[-1] if groups else "", name, value.strip('"').strip())


def _of_xml(text: str) -> Iterator[Entry]:
    if "<!DOCTYPE" in text:
        raise ValueError("it declares a document type, which no MTL does")
    text = re.sub(r"^\s*<\?xml.*?\?>", "", text)  # its encoding was that of the bytes
    for group in ElementTree.fromstring(text).iter():
        for element in group:
            if not len(element):
                yield Entry(group.tag, element.tag, (element.text or "").strip())


_READERS = {".json": _of_json, ".xml": _of_xml}
