"""Files that are either whole or absent: write beside the target, flush to disk, rename."""

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from utils.errors import UserError, describe_os_error
from utils.row_checksums import RowChecksums, crc_of, row_slices
from utils.temporary import remove_leftovers, temporary_file, temporary_folder


def make_folder(path: str | Path) -> Path:
    """Create `path` and its parents; raises `UserError` naming the path if it cannot be done."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create folder {describe_os_error(error, folder)}") from error
    return folder


_made: list[Path] = []
"""Folders that this process has created for results: of several in one another, the topmost."""


def check_writable(folder: str | Path) -> Path:
    """Create `folder` and prove that a file can be written in it, before any long work starts.

    What killed runs left unfinished there is removed. Where the command fails before it has written anything,
    `utils.errors.run_script` removes what was created here.
    """
    places = (Path(folder), *Path(folder).parents)
    missing = [place for place in places if not os.path.exists(place)]  # noqa: PTH110 - raises nothing
    folder = make_folder(folder)
    _made.extend(missing[-1:])
    remove_leftovers(folder)
    with atomic_path(folder / "writable", keep=False) as probe:
        probe.write_bytes(b"")
    return folder


def remove_empty_folders() -> None:
    """Remove folders that this process has created for results, where nothing but folders is in them.

    What was made by then stays: the next run goes on from it. So does what another process is at work in, which holds
    a file there, or a folder with a temporary name.
    """
    while _made:
        folder = _made.pop()
        with suppress(OSError):
            within = list(folder.rglob("*"))
            if all(place.is_dir() and not place.name.startswith(".") for place in within):
                for place in (*sorted(within, reverse=True), folder):
                    place.rmdir()


@contextmanager
def atomic_path(path: str | Path, keep: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed onto `path`.

    Args:
        path: the final file; its folder is created.
        keep: False removes the temporary file instead of renaming it.

    Raises:
        UserError: naming `path`, when the folder or file cannot be written. The target is then unchanged.
    """
    path = Path(path)
    make_folder(path.parent)
    temporary = None
    try:
        temporary = temporary_file(path)
        yield temporary
        if keep:
            sync(temporary)
            temporary.chmod(0o666 & ~umask())
            temporary.replace(path)
            sync(path.parent)
    except OSError as error:
        ours = error.filename is None or str(error.filename) in (str(temporary), str(path))
        raise UserError(f"cannot write {describe_os_error(error, path if ours else error.filename)}") from error
    finally:
        if temporary is not None and temporary.exists():
            temporary.unlink()


@contextmanager
def replaced_folder(path: str | Path) -> Iterator[Path]:
    """Yield a fresh folder beside `path` that takes its place when everything is written, and vanishes otherwise.

    Raises:
        UserError: naming `path`, when it cannot be written. What was there is then unchanged. A kill leaves the one
            or the other, or, between two renames, neither.
    """
    target = Path(path).resolve()
    remove_leftovers(make_folder(target.parent))
    folder = None
    try:
        folder = temporary_folder(target)
        folder.chmod(0o777 & ~umask())
        yield folder
        _take_place(folder, target)
    except OSError as error:
        raise UserError(f"cannot write {describe_os_error(error, target)}") from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _take_place(folder: Path, target: Path) -> None:
    """Rename a folder to `target`; what is there goes aside first, so that it is never there in part."""
    if not target.exists():
        folder.replace(target)
        return
    aside = temporary_folder(target)
    try:
        earlier = target.replace(aside / target.name)
        try:
            folder.replace(target)
        except OSError:
            earlier.replace(target)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_text(path: str | Path, text: str) -> Path:
    """Write `text` (UTF-8) atomically and return the path."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def write_json(path: str | Path, value: Any) -> Path:
    """Write `value` as indented JSON, atomically; NaN and infinity are refused (they are not JSON)."""
    return write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_npz(path: str | Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """Write arrays as an uncompressed `.npz`, atomically and the same bytes for the same arrays.

    Memory maps are streamed, so the arrays may be larger than memory.
    """
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with _member(archive, name) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
    return Path(path)


def write_checked_npz(path: str | Path, name: str, array: np.ndarray, others: Mapping[str, np.ndarray]) -> RowChecksums:
    """The same of an array `name` and others; returns checksums of the first by blocks of rows."""
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        with _member(archive, name) as file:
            checksums = _write_checked(file, array)
        for other, values in others.items():
            with _member(archive, other) as file:
                np.lib.format.write_array(file, np.asanyarray(values), allow_pickle=False)
    return checksums


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    return archive.open(zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0)), "w", force_zip64=True)


def _write_checked(file: IO[bytes], array: np.ndarray) -> RowChecksums:
    """The bytes that `np.lib.format.write_array` writes of an array of numbers in C order, and their checksums."""
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
    found, rows = [], 1
    for block in row_slices(array):
        data = np.ascontiguousarray(array[block])
        file.write(data.data)
        found.append(crc_of(data))
        rows = max(rows, len(data))
    return RowChecksums(array.dtype.str, list(array.shape), rows, found)


def sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes, read in pieces."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Have the system put a file's bytes, or a folder's names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def umask() -> int:
    """The rights that new files and folders do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
