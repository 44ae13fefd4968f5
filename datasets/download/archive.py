"""Unpacking an archive that is not trusted: plain files and folders only, and nothing outside the folder.

Files are written one by one from their bytes, so that no mode, owner, link or date of the archive's reaches the disk.
Interrupted, the same call goes on: what is there already is compared with the archive's bytes and kept.
"""

import errno
import gzip
import stat
import struct
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
MOST_HEADER = 1 << 16
"""In what a tar says of a member (long names, pax records), which is read into memory before the member is known."""
MOST_RATIO, SMALL = 20, 1 << 26
"""How many times the archive's bytes may come out of it, once more than SMALL do; of patches it is less than three."""
MOST_FOLDERS = 16
"""One in the other."""
BLOCK = 1 << 20
_DAMAGE = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, gzip.BadGzipFile, EOFError, NotImplementedError, RuntimeError,
    ValueError, LookupError, OverflowError, struct.error,
)  # fmt: skip
_HEADERS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip


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
        DataError: naming the member that is a link or device, too large, or leads out of the folder; or where much
            more comes out of the archive than of patches can. Sizes are judged before anything of them is read.
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
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DamagedArchive(f"{archive}: is damaged ({reason[:120]})") from error
    except OSError as error:
        if error.errno == errno.EINVAL and error.filename is None:  # a place that no file has
            raise DamagedArchive(f"{archive}: is damaged (it speaks of bytes that are not there)") from error
        raise UserError(f"cannot write {describe_os_error(error, error.filename or folder)}") from error
    return files


def _inside(member: _Member, archive: Path, top: str) -> PurePosixPath:
    """A member's path below the folder. Raises DataError for one that has no business there."""
    name, shown = member.name, repr(member.name[:120])
    parts = [part for part in name.split("/") if part not in ("", ".")]
    outside = name.startswith("/") or ".." in parts or "\\" in name or PureWindowsPath(name).drive or "\0" in name
    if outside or not (parts or member.kind == "folder"):
        raise DataError(f"{archive}: the member {shown} leads out of the folder; this archive is not to be trusted")
    if len(parts) > MOST_FOLDERS:
        raise DataError(
            f"{archive}: the member {shown} lies in {len(parts)} folders; this archive is not to be trusted"
        )
    if member.kind not in ("file", "folder"):
        raise DataError(f"{archive}: the member {shown} is a {member.kind}; this archive is not to be trusted")
    if member.size > MOST_BYTES:
        raise DataError(
            f"{archive}: the member {shown} has {member.size:,} bytes, more than any patch ({MOST_BYTES:,} at most); "
            "this archive is not to be trusted"
        )
    return PurePosixPath(*(parts[1:] if parts[:1] == [top] else parts))


def _place(member: _Member, target: Path) -> None:
    try:
        with member.open() as source:
            data = source.read()
    except OSError as error:  # of the archive, not of the file to be written
        raise EOFError(error.strerror or str(error)) from error
    if not (target.is_file() and target.stat().st_size == len(data) and target.read_bytes() == data):
        target.write_bytes(data)


def _tar_members(archive: Path) -> Generator[_Member, None, None]:
    """The members in order, in one pass; ends by reading the compressed bytes to their checksum."""
    kinds = {tarfile.LNKTYPE: "link", tarfile.SYMTYPE: "link", tarfile.FIFOTYPE: "pipe", tarfile.DIRTYPE: "folder"}
    with archive.open("rb") as file, _unpacking(archive, archive.stat().st_size, "B") as progress:
        with gzip.open(file) as unlimited:
            plain = _Limited(archive, unlimited)
            with tarfile.open(fileobj=plain, mode="r|", tarinfo=_header_of(archive)) as tar:  # pyright: ignore
                while (info := tar.next()) is not None:
                    kind = "file" if info.isreg() else kinds.get(info.type, "device")
                    yield _Member(info.name, kind, info.size, partial(_tar_file, tar, info))
                    # A million of them would take a gigabyte. The stubs leave this attribute out.
                    tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]
                    progress.update(file.tell() - progress.n)
                while plain.read(BLOCK):
                    pass


class _Limited:
    """What comes out of an archive, as long as it is not more than of patches can come; for tarfile, which reads it."""

    def __init__(self, archive: Path, plain: gzip.GzipFile) -> None:
        self._archive, self._plain, self._bytes = archive, plain, 0

    def read(self, size: int) -> bytes:
        """Raises DataError beyond the limit."""
        found = self._plain.read(size)
        self._bytes += len(found)
        _require_ratio(self._archive, self._bytes)
        return found


def _require_ratio(archive: Path, unpacked: int) -> None:
    packed = archive.stat().st_size
    if unpacked > max(SMALL, MOST_RATIO * packed):
        raise DataError(
            f"{archive}: its {packed:,} bytes unpack to more than {MOST_RATIO} times as many; this archive is not to "
            "be trusted"
        )


def _header_of(archive: Path) -> type[tarfile.TarInfo]:
    """What tarfile makes of a member's header: refused before more of it is read than a header needs."""

    class Header(tarfile.TarInfo):
        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "Header":
            info = super().frombuf(buf, encoding, errors)
            if info.type in _HEADERS and info.size > MOST_HEADER:
                raise DataError(
                    f"{archive}: a header of {info.size:,} bytes, {MOST_HEADER:,} are the most; this archive is not to "
                    "be trusted"
                )
            if info.type == tarfile.GNUTYPE_SPARSE:  # whose map of holes has no end but its own
                raise DataError(
                    f"{archive}: the member {info.name!r} is a sparse file; this archive is not to be trusted"
                )
            return info

    return Header


def _tar_file(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    """The bytes of a member that is a file."""
    file = tar.extractfile(info)
    if file is None:
        raise tarfile.ReadError(f"{info.name} has no bytes")
    return file


def _zip_members(archive: Path) -> Generator[_Member, None, None]:
    """The members in order; every one is checked against its CRC-32 as it is read."""
    with zipfile.ZipFile(archive) as opened, _unpacking(archive, len(opened.infolist()), " files") as progress:
        _require_ratio(archive, sum(info.file_size for info in opened.infolist()))
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
