"""Finding pickles without loading them, since loading a pickle runs code."""

import io
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path

from utils.errors import UserError

_PROTOCOL = b"\x80"
"""First byte of a pickle of protocol 2 or later, which is what every writer of the last decades makes."""


def find_pickles(path: Path) -> list[str]:
    """Names of the pickles in a file: of itself, or of members of an archive, however deep."""
    return list(_find(path.name, path.read_bytes()))


def require_no_pickle(folder: Path) -> None:
    """Raise UserError naming the first pickle among a folder's files."""
    for path in sorted(folder.iterdir()):
        if found := find_pickles(path):
            raise UserError(f"export: {found[0]} would be a pickle; not written (leave out the format with --programs)")


def _find(name: str, content: bytes) -> Iterator[str]:
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.namelist():
                yield from _find(f"{name}/{member}", archive.read(member))
    elif _is_pickle(content):
        yield name


def _is_pickle(content: bytes) -> bool:
    if not content.startswith(_PROTOCOL):
        return False
    try:
        for _ in pickletools.genops(content):  # names the instructions, runs none
            pass
    except (ValueError, IndexError, EOFError):
        return False
    return True
