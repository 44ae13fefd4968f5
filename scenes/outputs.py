"""The files of a run: made aside, and put in place together, so that a folder never mixes two runs.

While a run works, what an earlier one left stays as it is. When all is made, a note of what belongs together is
written, and the files take their places; a run that dies in between is completed from the note by the next one.
`scene.json` goes first and comes last: where it is, all that it names is there and of one run.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

from utils.errors import UserError, describe_os_error
from utils.files import make_folder, sync, write_json
from utils.parsing import parse_json
from utils.temporary import remove_leftovers

SCRATCH = ".unfinished"
"""Folder inside --out for rows and files that are not finished; gone when all is done."""
RECORD = "scene.json"
KNOWN = (
    "embeddings.tif", "quick_look.png", "labelled_cells.npz", "labelled_cells.json", "labels_probe.npz",
    "labels_probe.json", "land_cover.tif", "land_cover.tif.aux.xml", "land_cover.qml", "land_cover.png",
    "land_cover_legend.png", "probabilities.tif", "similarity.tif", "reconstruction.tif", "cells.parquet",
    "stac_item.json", "similarity.qml", "reconstruction.qml", "embeddings.zarr", RECORD,
)  # fmt: skip
"""All that a run can write: those of an earlier run that this one does not make again go."""
_NOTE = "complete.json"


class OutputSet:
    """The outputs of a run in a folder.

    Args:
        folder: `--out`.
        inputs: files that are read; they stay whatever their names.
        record: the file that goes first and comes last.
        known: all that a run can write; what an earlier one left of them goes.
    """

    def __init__(
        self, folder: Path, inputs: Iterable[Path] = (), record: str = RECORD, known: Iterable[str] = KNOWN
    ) -> None:
        self.folder, self.scratch, self.record, self.known = folder, folder / SCRATCH, record, set(known)
        self.staged = self.scratch / "files"
        self._inputs = {path.resolve() for path in inputs}
        self._kept: set[str] = set()
        for place in (self.scratch, self.staged):
            remove_leftovers(place)
        if (self.scratch / _NOTE).is_file():
            self._take_places()

    def new(self, name: str) -> Path:
        """Where to write a file."""
        return make_folder(self.staged) / name

    def existing(self, name: str) -> list[Path]:
        """Places where an earlier run may have left a file, the unfinished run's first."""
        return [self.staged / name, self.folder / name]

    def keep(self, path: Path) -> Path:
        """Let a file of an earlier run be one of this run's."""
        if path.parent == self.folder:
            self._kept.add(path.name)
        return path

    def discard(self) -> None:
        """Leave nothing of a run that came to nothing; what an earlier one left stays."""
        shutil.rmtree(self.scratch, ignore_errors=True)

    def publish(self, record: dict[str, object]) -> list[str]:
        """Put everything in place, the record with it.

        Returns:
            Names of files of an earlier run that are gone.

        Raises:
            UserError: when a file cannot be moved; the next run completes what is left to do.
        """
        write_json(self.new(self.record), record)
        made = sorted(path.name for path in self.staged.iterdir())
        note = {"kept": sorted(self._kept), "made": made, "known": sorted(self.known)}
        write_json(self.scratch / _NOTE, note)
        return self._take_places()

    def _take_places(self) -> list[str]:
        try:
            note = parse_json((self.scratch / _NOTE).read_text(encoding="utf-8"))
            staged = {path.name for path in self.staged.iterdir()} if self.staged.is_dir() else set()
            if self.record in staged:
                (self.folder / self.record).unlink(missing_ok=True)
            gone = []
            # By the note: of what was made, a run that died in here has moved some already.
            stays = staged | set(note.get("made", ())) | set(note["kept"]) | {self.record}
            for name in set(note.get("known", self.known)) - stays:
                path = self.folder / name
                if path.exists() and path.resolve() not in self._inputs and self.record in staged:
                    _remove(path)
                    gone.append(name)
            for name in sorted(staged, key=lambda name: name == self.record):
                if (self.folder / name).is_dir():  # no folder takes the place of another that is not empty
                    _remove(self.folder / name)
                (self.staged / name).replace(self.folder / name)
            sync(self.folder)
            shutil.rmtree(self.scratch, ignore_errors=True)
        except (OSError, ValueError, KeyError) as error:
            reason = describe_os_error(error, self.folder) if isinstance(error, OSError) else f"{self.folder}: {error}"
            raise UserError(f"cannot put the results in place: {reason}") from error
        return sorted(gone)


def _remove(path: Path) -> None:
    """Remove a file, or the folder of a Zarr group."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
