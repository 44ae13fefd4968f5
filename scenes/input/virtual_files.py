"""Files that GDAL reads where they are: members of a .tar or .zip, and what an address on the web names.

Such a file has a `Path` as any other, in GDAL's own spelling (`/vsitar/{archive}/member`, `/vsicurl?…url=…`), so that
`rasterio.open` takes it and a name beside it is made as beside any path. What Python has to do with it goes through
this module. Documentation: GDAL, "GDAL Virtual File Systems".
"""

import re
import tarfile
import urllib.error
import urllib.request
import zipfile
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from utils.errors import DataError
from utils.parsing import is_there

ARCHIVE_ENDINGS = (".tar", ".zip")
_ARCHIVE = re.compile(r"/vsi(?P<kind>tar|zip)/\{(?P<archive>.+?)\}(?:/(?P<member>.*))?")
_REMOTE = re.compile(r"/vsicurl\?(?:[a-z_]+=[a-z]+&)*url=(?P<url>.+)")
_ADDRESS = re.compile(r"https?://.+", re.IGNORECASE)
NETWORK_SECONDS = 60
"""How long an answer of a server is waited for."""
GDAL_NETWORK: dict[str, Any] = {
    "GDAL_HTTP_MAX_RETRY": 3,
    "GDAL_HTTP_RETRY_DELAY": 1,
    "GDAL_HTTP_TIMEOUT": NETWORK_SECONDS,
}
"""Options of GDAL for files on the web."""


def path_of(text: str) -> Path:
    """A path as a user writes it; an address keeps its slashes and is not listed by GDAL, which few servers allow."""
    if _ADDRESS.fullmatch(text):
        return Path(f"/vsicurl?empty_dir=yes&url={quote(text, safe='')}")
    return Path(text).expanduser()


def root_of_archive(archive: Path) -> Path:
    """What stands for the top folder of an archive."""
    return Path(f"/vsi{archive.suffix.lower()[1:]}") / f"{{{archive.resolve()}}}"


def address_of(path: Path) -> str | None:
    """The web address that a path stands for; None for any other path."""
    match = _REMOTE.fullmatch(path.as_posix())
    return unquote(match["url"]) if match else None


def plain_name(path: Path) -> str:
    """The last part of a path or address, without what a server wants to know beside it."""
    address = address_of(path)
    return path.name if address is None else unquote(PurePosixPath(urlsplit(address).path).name)


def shown(path: Path) -> str:
    """A path as the user knows it."""
    if address := address_of(path):
        return address.partition("?")[0]  # what follows may be a signature
    member = _member(path)
    return str(path) if member is None else str(member.archive / member.name)


def shown_folder(path: Path) -> str:
    """Where a file lies, as the user knows it."""
    return shown(path).rpartition("/")[0] if address_of(path) else shown(path.parent)


def sibling(path: Path, name: str) -> Path:
    """A file of another name where a file lies; an address keeps what a server wants to know beside it."""
    address = address_of(path)
    if address is None:
        return path.with_name(name)
    parts = urlsplit(address)
    return path_of(urlunsplit(parts._replace(path=parts.path.rpartition("/")[0] + "/" + quote(name))))


def is_file(path: Path) -> bool:
    """Whether there is such a file; of an address, whether its server gives the first byte of it."""
    if address := address_of(path):
        return _about(address) is not None
    member = _member(path)
    return is_there(path) if member is None else member.name in _members(member.archive, *_state(member.archive))


def read_bytes(path: Path) -> bytes:
    """All of a small file. Raises OSError where it cannot be read."""
    if address := address_of(path):
        with urllib.request.urlopen(address, timeout=NETWORK_SECONDS) as answer:
            return answer.read()
    member = _member(path)
    if member is None:
        return path.read_bytes()
    try:
        if member.archive.suffix.lower() == ".zip":
            with zipfile.ZipFile(member.archive) as whole:
                return whole.read(member.name)
        with tarfile.open(member.archive, "r:") as whole:
            entry = next(entry for entry in whole if _plain(entry.name) == member.name)
            inside = whole.extractfile(entry)
            return b"" if inside is None else inside.read()
    except (KeyError, StopIteration, tarfile.TarError, zipfile.BadZipFile) as error:
        raise OSError(f"{shown(path)}: {error}") from error


def names_below(folder: Path, depth: int) -> list[str]:
    """Files of a folder or archive and of its subfolders down to a depth, as relative paths, sorted.

    Hidden files and folders (`._LC08…` of macOS, `__MACOSX`) are nobody's.

    Raises:
        DataError: for an archive that cannot be read.
    """
    member = _member(folder)
    if member is None:
        found = _walk(folder, depth)
    else:
        start = f"{member.name}/" if member.name else ""
        whole = _members(member.archive, *_state(member.archive))
        found = [name[len(start) :] for name in whole if name.startswith(start)]
    parts = [(name, PurePosixPath(name).parts) for name in found]
    return sorted(
        name
        for name, steps in parts
        if len(steps) <= depth + 1 and not any(step.startswith(".") or step == "__MACOSX" for step in steps)
    )


def names_beside(path: Path) -> list[str] | None:
    """Names of the files where a file lies, itself among them; None on the web, where folders are not listed."""
    return None if address_of(path) else names_below(path.parent, 0)


def state_of(path: Path) -> list[object]:
    """What changes with a file's contents: size and time of change, or what a server says of it."""
    if address := address_of(path):
        return list(_about(address) or ())
    member = _member(path)
    return list(_state(path)) if member is None else [member.name, *_state(member.archive)]


class _Member(NamedTuple):
    archive: Path
    name: str


def _member(path: Path) -> _Member | None:
    match = _ARCHIVE.fullmatch(path.as_posix())
    return _Member(Path(match["archive"]), match["member"] or "") if match else None


def _state(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_size, about.st_mtime_ns


@lru_cache(maxsize=8)
def _members(archive: Path, size: int, changed: int) -> tuple[str, ...]:
    """Names of an archive's files; size and time of change, so that a replaced one is read anew."""
    try:
        if archive.suffix.lower() == ".zip":
            with zipfile.ZipFile(archive) as whole:
                return tuple(entry.filename for entry in whole.infolist() if not entry.is_dir())
        with tarfile.open(archive, "r:") as whole:
            return tuple(_plain(entry.name) for entry in whole if entry.isfile())
    except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{archive}: cannot be read ({error}); fetch it again, or unpack it and give the folder"
        ) from error


def _plain(name: str) -> str:
    """A member's name as GDAL spells it."""
    return name.removeprefix("./")


def _walk(folder: Path, depth: int) -> list[str]:
    names = []
    for entry in folder.iterdir():
        if entry.is_file():
            names.append(entry.name)
        elif depth and entry.is_dir() and not entry.name.startswith("."):
            names += [f"{entry.name}/{name}" for name in _walk(entry, depth - 1)]
    return names


@lru_cache(maxsize=64)
def _about(address: str) -> tuple[str, ...] | None:
    """Length, tag and time of change of what an address names, from its first byte; None where there is nothing.

    Raises:
        DataError: when the server cannot be reached.
    """
    request = urllib.request.Request(address, headers={"Range": "bytes=0-0"})
    try:
        with urllib.request.urlopen(request, timeout=NETWORK_SECONDS) as answer:
            ranges = answer.headers.get("Content-Range", "")
            length = ranges.rpartition("/")[2] or answer.headers.get("Content-Length", "")
            return length, answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", "")
    except urllib.error.HTTPError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(
            f"{address.partition('?')[0]}: cannot be reached ({error}); check address and network"
        ) from error
