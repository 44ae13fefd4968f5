"""Writing a pack: pixels and table only ever grow, and a journal says up to where they are whole.

A run that is killed leaves a journal; the next one cuts pixels and table back to its last line and goes on from there,
so that the finished pack has the same bytes as if nothing had happened. The header comes last.
"""

import io
import os
import shutil
import signal
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from torch.utils.data import DataLoader
from tqdm import tqdm

from datasets.pack.format import (
    BAD_FILES,
    CHECKSUMS,
    COLUMNS,
    FORMAT,
    HEADER,
    JOURNAL,
    LABEL_NAMES,
    PIXELS,
    TABLE,
    FileRecord,
    Header,
    Source,
    file_record,
    open_header,
)
from datasets.pack.journal import (
    NOTHING,
    Entry,
    append_entry,
    digest_of,
    entry_of,
    ids_digest,
    require_current,
    require_usable,
    resume,
)
from datasets.pack.source import Chunk, PackSource, SourceChunks, table_lines
from utils.data_config import DATASETS
from utils.errors import KILLED_READER, DataError, UserError, describe_os_error, is_killed_reader
from utils.files import atomic_path, check_writable, sync, write_json, write_text
from utils.locks import held_alone
from utils.reporting import size_text

CHECKSUM_BYTES = 4

MOST_BAD_NAMED = 3
"""Bad files that are in the error itself; the list on disk has all."""


def write_pack(source: PackSource, out: Path, skip_bad: bool, num_workers: int) -> tuple[Header, int]:
    """Make a pack, or go on making it.

    Args:
        source: what to pack.
        out: the folder; absent, empty, or with a pack of the same source, finished or not.
        skip_bad: leave unreadable patches out instead of stopping once all files have been looked at.
        num_workers: reader processes; 0 reads in this one.

    Returns:
        The header, and how many files were read: 0 where a finished pack of them was there already.

    Raises:
        DataError: listing all bad files, or naming what `out` holds that is in the way.
    """
    require_usable(out)
    check_writable(out)
    with held_alone(out, "packing into it; wait for it, or stop it"):
        if (out / HEADER).exists():
            header = open_header(out)
            require_current(source, header, out)
            (out / JOURNAL).unlink(missing_ok=True)
            return header, 0
        _require_split_names(source)
        entries = resume(source, out, skip_bad)
        done = entries[-1] if entries else NOTHING
        try:
            with _appending(source, out, done) as files:
                entries += _write_chunks(source, done, files, num_workers)
        except OSError as error:
            cause = describe_os_error(error, error.filename or out)
            raise UserError(f"{cause}; the same command goes on from here") from error
        return _finish(source, out, entries, skip_bad), len(source.ids) - done.asked


def _require_split_names(source: PackSource) -> None:
    """Split files are copied into the pack by name, so the names must be free and different."""
    files: dict[str, Path] = {}
    for split in source.splits:
        if split.name in (HEADER, PIXELS, TABLE, CHECKSUMS, JOURNAL, BAD_FILES):
            raise DataError(f"{split}: a pack has a file {split.name} of its own; rename the split file")
        if files.setdefault(split.name, split) != split:
            raise DataError(f"{split}: has the same name as {files[split.name]}; rename one of them")


# --------------------------------------------------------------------------- reading and appending


class _Files(NamedTuple):
    """Open for appending."""

    pixels: BinaryIO
    table: BinaryIO
    checksums: BinaryIO
    journal: BinaryIO


@contextmanager
def _appending(source: PackSource, out: Path, done: Entry) -> Iterator[_Files]:
    """Pixels, table and checksums, cut back to an entry and open at their ends, and the journal."""
    header, row = _npy_header(source, len(source.ids)), source.recipe.patch_bytes
    missing = (len(source.ids) - done.patches) * row - shutil.disk_usage(out).free
    if missing > 0:
        raise UserError(f"{out}: the pack needs {size_text(missing)} more than the disk has; write elsewhere")
    if done.asked:
        _cut_to(out / PIXELS, len(header) + done.patches * row)
        _cut_to(out / TABLE, done.table_bytes)
        if not (out / CHECKSUMS).exists():  # begun before there were any
            _write_checksums_of(out, len(header), row)
        _cut_to(out / CHECKSUMS, CHECKSUM_BYTES * done.patches)
    else:
        (out / PIXELS).write_bytes(header)
        (out / TABLE).write_bytes(table_lines([COLUMNS]))
        (out / CHECKSUMS).write_bytes(b"")
    with ExitStack() as stack:
        names = (PIXELS, TABLE, CHECKSUMS, JOURNAL)
        yield _Files(*(stack.enter_context((out / name).open("ab")) for name in names))


def _write_checksums_of(out: Path, header_bytes: int, row: int) -> None:
    """Of the patches that are there."""
    with (out / PIXELS).open("rb") as pixels, (out / CHECKSUMS).open("wb") as checksums:
        pixels.seek(header_bytes)
        while patch := pixels.read(row):
            checksums.write(_checksum(patch))


def _checksum(patch: bytes | memoryview) -> bytes:
    return zlib.crc32(patch).to_bytes(CHECKSUM_BYTES, "little")


def _cut_to(path: Path, length: int) -> None:
    if not path.exists() or path.stat().st_size < length:
        raise DataError(f"{path}: holds less than {JOURNAL} says; remove {path.parent} and pack again")
    os.truncate(path, length)


def _npy_header(source: PackSource, count: int) -> bytes:
    """What stands before the numbers in a `.npy` file; its length does not depend on `count`."""
    header = io.BytesIO()
    form = {"descr": "<u2", "fortran_order": False, "shape": source.recipe.pixels_shape(count)}
    np.lib.format.write_array_header_1_0(header, form)
    return header.getvalue()


def _write_chunks(source: PackSource, done: Entry, files: _Files, num_workers: int) -> list[Entry]:
    """Append what is not there yet; returns the new entries."""
    entries, group = [], []
    asked, patches = done.asked, done.patches
    with tqdm(total=len(source.ids), initial=asked, desc="packing", unit=" files", leave=False, disable=None) as bar:
        for chunk in _read(source, asked, num_workers):
            pixels = chunk.pixels.numpy().astype("<u2", copy=False)
            files.pixels.write(pixels.data)
            files.checksums.write(b"".join(_checksum(patch.data) for patch in pixels))
            files.table.write(chunk.table)
            patches += len(chunk.pixels)
            asked += len(chunk.pixels) + len(chunk.bad)
            bar.update(asked - bar.n)
            group.append(chunk._replace(pixels=None))
            if asked % source.entry == 0 or asked == len(source.ids):
                entries.append(entry_of(group, asked, patches, files.table.tell()))
                append_entry(files.journal, entries[-1], files.pixels, files.table, files.checksums)
                group = []
    return entries


def _read(source: PackSource, start: int, num_workers: int) -> Iterator[Chunk]:
    """The chunks from patch `start` on, in order, a few ahead of the writer."""
    chunks = SourceChunks(source)
    left = range(start // source.chunk, len(chunks)) if start < len(source.ids) else range(0)
    loader = DataLoader(
        chunks,
        batch_size=None,
        sampler=left,
        num_workers=min(num_workers, len(left)),
        collate_fn=_as_it_is,
        worker_init_fn=_ignore_interrupt,
    )
    try:
        yield from loader
    except RuntimeError as error:
        if not is_killed_reader(error):
            raise
        raise UserError(f"{KILLED_READER} --num_workers") from error


def _as_it_is(chunk: Any) -> Any:
    return chunk


def _ignore_interrupt(worker: int) -> None:
    """Ctrl-C reaches the whole process group; it is the main process's to answer, and readers end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


# --------------------------------------------------------------------------- finishing


def _finish(source: PackSource, out: Path, entries: list[Entry], skip_bad: bool) -> Header:
    """Settle the bad files, then write what readers look at: split files and, last, the header."""
    bad = [item for entry in entries for item in entry.bad]
    _settle_bad(source, out, bad, skip_bad)
    count, left_out = entries[-1].patches, [patch_id for patch_id, _ in bad]
    with (out / PIXELS).open("r+b") as pixels:
        pixels.write(_npy_header(source, count))
        pixels.flush()
        os.fsync(pixels.fileno())
    splits = {split.name: split for split in source.splits}
    for name, split in splits.items():
        _copy_split(source, split, out / name, set(left_out))
    header = Header(
        format=FORMAT,
        recipe=source.recipe,
        simulated=source.simulated,
        count=count,
        bands=list(DATASETS[source.recipe.dataset].SENSOR.bands),
        label_names=list(LABEL_NAMES[source.recipe.dataset]),
        source=Source(
            ids=ids_digest(source.ids), listing=digest_of(entry.listing for entry in entries), left_out=left_out
        ),
        splits=list(splits),
        files=_file_records(out, [PIXELS, TABLE, CHECKSUMS, *splits, *([BAD_FILES] if bad else [])]),
    )
    write_json(out / HEADER, header.model_dump())
    (out / JOURNAL).unlink()
    sync(out)
    return header


def _file_records(out: Path, names: list[str]) -> dict[str, FileRecord]:
    total = sum((out / name).stat().st_size for name in names)
    with tqdm(total=total, desc="checksums", unit="B", unit_scale=True, leave=False, disable=None) as bar:
        return {name: file_record(out / name, bar) for name in names}


def _settle_bad(source: PackSource, out: Path, bad: list[list[str]], skip_bad: bool) -> None:
    """Write the list of bad files; refuse to go on with any, unless they are to be left out."""
    listed = out / BAD_FILES
    if not bad:
        listed.unlink(missing_ok=True)
        return
    write_text(listed, "".join(f"{reason}\n" for _, reason in bad))
    if skip_bad and len(bad) < len(source.ids):
        return
    some = "; ".join(reason for _, reason in bad[:MOST_BAD_NAMED])
    more = f" and {len(bad) - MOST_BAD_NAMED} more" if len(bad) > MOST_BAD_NAMED else ""
    raise DataError(
        f"{source.root}: {len(bad)} of {len(source.ids)} files cannot be used: {some}{more}; all are listed in "
        f"{listed}. Fix them and run the same command again, or leave them out with --skip-bad"
    )


def _copy_split(source: PackSource, split: Path, target: Path, left_out: set[str]) -> None:
    """A split file as it is, or as a list of its patches without those that were left out."""
    names = source.layout.split_names(split)
    kept = [name for name in names if name not in left_out]
    with atomic_path(target) as temporary:
        if len(kept) == len(names):
            temporary.write_bytes(split.read_bytes())
        else:
            temporary.write_text("".join(f"{name}\n" for name in kept), encoding="utf-8")
