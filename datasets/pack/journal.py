"""What a pack's folder holds already: a finished pack of these files, an unfinished one to go on with, or nothing.

The journal's first line says what the pack is to be; every further one, up to where pixels and table are whole. Files
count as unchanged while size and time of change are the same, or else by their bytes.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from tqdm import tqdm

from datasets.pack.format import FORMAT, HEADER, JOURNAL, TABLE, Header, read_rows, read_table
from datasets.pack.source import Chunk, PackSource
from utils.data_utils import list_some
from utils.errors import DataError
from utils.files import write_text
from utils.parsing import parse_json

_CRC = "crc32"
"""The checksum's key in a line."""

_FIX = "choose another --out, or remove it and pack again"


class Begun(NamedTuple):
    """The first line: what the pack is to be."""

    format: int
    ids: str
    """SHA-256 of the ids asked for."""
    recipe: dict[str, Any]


class Entry(NamedTuple):
    """Something that is whole on the disk once this is there."""

    asked: int
    """Patches looked at since the beginning."""
    patches: int
    """Rows of pixels and table since the beginning: those that could be read."""
    table_bytes: int
    """Length of the table."""
    listing: str
    """SHA-256 of the listing of this entry's files."""
    bad: list[list[str]]
    """Id and reason of this entry's unreadable patches."""


NOTHING = Entry(0, 0, 0, "", [])


def require_usable(out: Path) -> None:
    """Refuse a folder that holds anything but a pack."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; --out needs a folder")
    if not out.is_dir() or (out / HEADER).exists() or (out / JOURNAL).exists():
        return
    if any(not path.name.startswith(".") for path in out.iterdir()):
        raise DataError(f"{out}: is not empty and holds no pack to go on with; choose another --out or empty it")


def require_current(source: PackSource, header: Header, out: Path) -> None:
    """Refuse a finished pack that was made otherwise, or from files that have changed since."""
    _require_same(header.recipe.model_dump(), header.source.ids, source, f"{out}: is a pack")
    if header.source.listing == digest_of(tqdm(_listings(source), desc="comparing", leave=False, disable=None)):
        return
    checksums = {row.id: row.source for row in read_table(out, header.count)}
    still_bad = {patch_id for patch_id, _ in source.read_chunk(header.source.left_out).bad}
    stale = source.changed(checksums) + [name for name in header.source.left_out if name not in still_bad]
    if stale:
        raise DataError(
            f"{out}: {len(stale)} patches in {source.root} have changed since they were packed ({list_some(stale)}); "
            f"{_FIX}"
        )


def resume(source: PackSource, out: Path, skip_bad: bool) -> list[Entry]:
    """The entries of the journal that still hold; begins a journal where there is none.

    Entries are dropped from the first one on with bad files that are to be tried again.

    Raises:
        DataError: when the pack was begun otherwise, or with other files.
    """
    journal = out / JOURNAL
    begun = Begun(FORMAT, ids_digest(source.ids), source.recipe.model_dump())
    kept: list[Entry] = []
    if journal.exists():
        was, entries = _read_journal(journal)
        if was.format != FORMAT:
            raise DataError(f"{out}: was begun by another version of this code; {_FIX}")
        _require_same(was.recipe, was.ids, source, f"{out}: was begun")
        kept = _unchanged(source, out, entries, skip_bad)
    write_text(journal, "".join(map(_line, (begun, *kept))))
    return kept


def append_entry(journal: BinaryIO, entry: Entry, *files: BinaryIO) -> None:
    """Write an entry to the disk, after the files it speaks of."""
    for file in files:
        file.flush()
        os.fsync(file.fileno())
    journal.write(_line(entry).encode())
    journal.flush()
    os.fsync(journal.fileno())


def entry_of(group: Sequence[Chunk], asked: int, patches: int, table_bytes: int) -> Entry:
    """The entry after some chunks; the numbers as in `Entry`."""
    listing = hashlib.sha256(b"".join(chunk.listing for chunk in group)).hexdigest()
    return Entry(asked, patches, table_bytes, listing, [list(item) for chunk in group for item in chunk.bad])


def digest_of(parts: Iterable[str]) -> str:
    """SHA-256 of texts in order."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def ids_digest(ids: Iterable[str]) -> str:
    """SHA-256 of ids in order."""
    return digest_of(ids)


def _require_same(recipe: dict[str, Any], ids: str, source: PackSource, what: str) -> None:
    for key, now in source.recipe.model_dump().items():
        if recipe.get(key) != now:
            raise DataError(f"{what} with {key} {recipe.get(key)}, not {now}; {_FIX}")
    if ids != ids_digest(source.ids):
        raise DataError(f"{what} of other patches than these split files list; {_FIX}")


def _read_journal(journal: Path) -> tuple[Begun, list[Entry]]:
    """The first line and the entries; the last one may have been cut off by an interruption."""
    lines = journal.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    try:
        first, *others = [_checked(line) for line in lines if line.endswith("\n")]
        return Begun(**first), [Entry(**line) for line in others]
    except (ValueError, TypeError) as error:
        raise DataError(f"{journal}: is damaged; remove {journal.parent} and pack again") from error


def _line(record: Begun | Entry) -> str:
    """A record with the CRC-32 of its JSON, as a line."""
    return json.dumps({**record._asdict(), _CRC: _crc_of(record._asdict())}) + "\n"


def _checked(line: str) -> dict[str, Any]:
    """A line's record. Raises ValueError where it is not what was written; lines of before have no checksum."""
    record = parse_json(line)
    if _CRC in record and record.pop(_CRC) != _crc_of(record):
        raise ValueError("a line has changed")
    return record


def _crc_of(record: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(record).encode())


def _listings(source: PackSource) -> Iterator[str]:
    """One for every entry of a finished journal."""
    for start in range(0, len(source.ids), source.entry):
        lines = map(source.listing_line, source.ids[start : start + source.entry])
        yield hashlib.sha256(b"".join(lines)).hexdigest()


def _unchanged(source: PackSource, out: Path, entries: list[Entry], skip_bad: bool) -> list[Entry]:
    """The entries to go on from. Raises DataError where files that are packed already have changed."""
    kept = [NOTHING]
    for entry, listing in zip(entries, _listings(source), strict=False):
        if entry.bad and not (skip_bad and entry.listing == listing):
            break
        if entry.listing != listing:
            rows = islice(read_rows(out / TABLE), kept[-1].patches, entry.patches)
            if stale := source.changed({row.id: row.source for row in rows}):
                where = f"{source.root} ({list_some(stale)})"
                raise DataError(f"{out}: was begun with files that have changed since in {where}; {_FIX}")
        kept.append(entry)
    return kept[1:]
