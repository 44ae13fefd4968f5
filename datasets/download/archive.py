"""Unpacking an archive that is not trusted: plain files and folders only, and nothing outside the folder.

Files are written one by one from their bytes, so that no mode, owner, link or date of the archive's reaches the disk.
Interrupted, the same call goes on: what is there already is compared with the archive's bytes and kept.
"""

import gzip
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any, NamedTuple

from tqdm import tqdm

from utils.errors import DataError, UserError, describe_os_error

MOST_BYTES = 1 << 26
"""In one file; a patch has some 27,000."""
BLOCK = 1 << 20
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, gzip.BadGzipFile, EOFError, NotImplementedError)


class DamagedArchive(DataError):
    """An archive ends early, or its bytes contradict its own checksums."""


class _Member(NamedTuple):
    """An entry of an archive."""

    name: str
    kind: str
    """"file", "folder", or what else it is."""
    size: int
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, folder: Path, top: str) -> int:
    """Unpack a `.tar.gz` or `.zip` into `folder`, which becomes what the archive calls `top`.

    Args:
        archive: the archive, with or without the folder `top` around its contents.
        folder: created; may hold part of the same archive already.
        top: see above.

    Returns:
        Number of files.

    Raises:
        DamagedArchive: when the archive cannot be read to its end.
        DataError: naming the member that is a link or device, too large, or leads out of the folder.
        UserError: when the disk does not take a file.
    """
    members = _zip_members if archive.suffix == ".zip" else _tar_members
    made: set[Path] = set()
    files = 0
    try:
        with closing(members(archive)) as found:
            for member in found:
                target = folder / _inside(member, archive, top)
                parent = target if member.kind == "folder" else target.parent
                if parent not in made:
                    parent.mkdir(parents=True, exist_ok=True)
                    made.add(parent)
                if member.kind == "file":
                    _place(member, target)
                    files += 1
    except _DAMAGE as error:  # before OSError, which a bad gzip file is one of
        raise DamagedArchive(f"{archive}: is damaged ({str(error) or type(error).__name__})") from error
    except OSError as error:
        raise UserError(f"cannot write {describe_os_error(error)}") from error
    return files


def _inside(member: _Member, archive: Path, top: str) -> PurePosixPath:
    """A member's path below the folder. Raises DataError for one that has no business there."""
    name = member.name
    parts = [part for part in name.split("/") if part not in ("", ".")]
    outside = name.startswith("/") or ".." in parts or "\\" in name or PureWindowsPath(name).drive or "\0" in name
    if outside or not (parts or member.kind == "folder"):
        raise DataError(f"{archive}: the member {name!r} leads out of the folder; this archive is not to be trusted")
    if member.kind not in ("file", "folder"):
        raise DataError(f"{archive}: the member {name!r} is a {member.kind}; this archive is not to be trusted")
    if member.size > MOST_BYTES:
        raise DataError(
            f"{archive}: the member {name!r} has {member.size:,} bytes, more than any patch ({MOST_BYTES:,} at most); "
            "this archive is not to be trusted"
        )
    return PurePosixPath(*(parts[1:] if parts[:1] == [top] else parts))


def _place(member: _Member, target: Path) -> None:
    with member.open() as source:
        data = source.read()
    if not (target.is_file() and target.stat().st_size == len(data) and target.read_bytes() == data):
        target.write_bytes(data)


def _tar_members(archive: Path) -> Generator[_Member, None, None]:
    """The members in order, in one pass; ends by reading the compressed bytes to their checksum."""
    kinds = {tarfile.LNKTYPE: "link", tarfile.SYMTYPE: "link", tarfile.FIFOTYPE: "pipe", tarfile.DIRTYPE: "folder"}
    with archive.open("rb") as file, _unpacking(archive, archive.stat().st_size, "B") as progress:
        with gzip.open(file) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
            while (info := tar.next()) is not None:
                kind = "file" if info.isreg() else kinds.get(info.type, "device")
                yield _Member(info.name, kind, info.size, partial(_tar_file, tar, info))
                # A million of them would take a gigabyte. The stubs leave this attribute out.
                tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]
                progress.update(file.tell() - progress.n)
            while plain.read(BLOCK):
                pass


def _tar_file(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    """The bytes of a member that is a file."""
    file = tar.extractfile(info)
    if file is None:
        raise tarfile.ReadError(f"{info.name} has no bytes")
    return file


def _zip_members(archive: Path) -> Generator[_Member, None, None]:
    """The members in order; every one is checked against its CRC-32 as it is read."""
    with zipfile.ZipFile(archive) as opened, _unpacking(archive, len(opened.infolist()), " files") as progress:
        for info in opened.infolist():
            mode = info.external_attr >> 16
            kind = "folder" if info.is_dir() else "file"
            if mode and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) and stat.S_IFMT(mode):
                kind = "link" if stat.S_ISLNK(mode) else "device"
            if info.flag_bits & 1:
                kind = "encrypted file"
            yield _Member(info.filename, kind, info.file_size, partial(opened.open, info))
            progress.update()


def _unpacking(archive: Path, total: int, unit: str) -> tqdm:
    scaled: dict[str, Any] = {"unit_scale": True, "unit_divisor": 1024} if unit == "B" else {}
    return tqdm(total=total, desc=f"unpacking {archive.name}", unit=unit, leave=False, disable=None, **scaled)
