"""Rows of results on disk as they are made, so that a killed run goes on where it was."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import DTypeLike

from utils.files import make_folder, sync, write_json
from utils.parsing import parse_json
from utils.temporary import remove_leftovers


class RowStore:
    """A file of equal records and a journal that says how many of them are whole: a context manager.

    Args:
        folder: where both files go.
        name: of the files.
        shape, dtype: of a record.
        fingerprint: of everything that the records depend on; records of another one are dropped.
    """

    def __init__(self, folder: Path, name: str, shape: tuple[int, ...], dtype: DTypeLike, fingerprint: str) -> None:
        self.path, self.journal = folder / f"{name}.rows", folder / f"{name}.json"
        self.shape, self.dtype, self.fingerprint = shape, np.dtype(dtype), fingerprint
        self.record_bytes = int(np.prod(shape)) * self.dtype.itemsize
        self.done = 0
        """Records that are on disk."""
        self.notes: dict[str, int] = {}
        """What the journal says beside: counts that belong to the records on disk."""

    def __enter__(self) -> "RowStore":
        remove_leftovers(make_folder(self.path.parent))
        self.done = self._journalled()
        self._file = self.path.open("r+b" if self.done else "wb")
        self._file.truncate(self.done * self.record_bytes)
        self._file.seek(self.done * self.record_bytes)
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def append(self, record: np.ndarray) -> None:
        """Write a record, then the journal."""
        self._file.write(np.ascontiguousarray(record, self.dtype).tobytes())
        self._file.flush()
        sync(self.path)
        self.done += 1
        write_json(self.journal, {"fingerprint": self.fingerprint, "records": self.done, "notes": self.notes})

    def records(self) -> Iterator[np.ndarray]:
        """The whole records one by one; a mapped file would count as memory."""
        with self.path.open("rb") as file:
            for _ in range(self.done):
                yield np.fromfile(file, self.dtype, int(np.prod(self.shape))).reshape(self.shape)

    def _journalled(self) -> int:
        try:
            journal = parse_json(self.journal.read_text(encoding="utf-8"))
            whole = self.path.stat().st_size // self.record_bytes
            if journal["fingerprint"] != self.fingerprint:
                return 0
            self.notes = dict(journal.get("notes", {}))
            return min(int(journal["records"]), whole)
        except (OSError, ValueError, KeyError, TypeError):
            return 0
