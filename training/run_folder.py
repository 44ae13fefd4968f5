"""What a pretraining run leaves in its folder, and how it finds it again after being killed at any moment.

A checkpoint is a pair: `checkpoint_S.pth` and a `.json` with its SHA-256. A new pair is written beside the current one
and read back; the current one, if it verifies, becomes `checkpoint_S.prev.pth`; then the new one takes its place, the
`.json` first. Whatever the moment of a kill, a pair verifies, or nothing has been saved yet.
"""

import csv
import json
import os
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from models.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from models.moe_mae import MOEMAE
from utils.errors import CheckpointError, UserError, describe_os_error
from utils.files import make_folder, sha256, sync, write_json
from utils.reporting import reporter

CSV_COLUMNS = ("epoch", "train_loss", "train_m_loss", "train_um_loss", "train_moe_loss", "avg_lr")
"""As published."""
VALIDATION_COLUMNS = ("val_loss", "val_m_loss")
"""Added when there is a validation split."""


class RunFolder:
    """The files of one run, of one model size, in one folder."""

    def __init__(self, folder: str | Path, size: str, with_validation: bool) -> None:
        self.folder = Path(folder)
        self.columns = CSV_COLUMNS + (VALIDATION_COLUMNS if with_validation else ())
        self.checkpoint = self.folder / f"checkpoint_{size}.pth"
        self.previous = self.folder / f"checkpoint_{size}.prev.pth"
        self.best = self.folder / f"pretrained_{size}_best.pth"
        self.last = self.folder / f"pretrained_{size}_last.pth"
        self.metrics = self.folder / f"training_metrics_{size}.csv"
        self.log = self.folder / f"training_log_{size}.jsonl"
        self.curve = self.folder / f"loss_curve_{size}.png"
        self.config = self.folder / f"config_{size}.yaml"
        self.manifest = self.folder / f"manifest_{size}.json"
        self._fresh = self.folder / f".checkpoint_{size}.new.pth"

    # ------------------------------------------------------------------ checkpoints

    def save(self, model: MOEMAE, record: dict[str, Any], **content: Any) -> None:
        """Write a checkpoint pair by the protocol above.

        Args:
            model: the weights.
            record: what goes into the `.json`, besides size and hash.
            content: arguments of `write_checkpoint`.

        Raises:
            UserError: when it cannot be written or does not read back; the earlier ones are then untouched.
        """
        written = write_checkpoint(self._fresh, model, **content)
        write_json(record_path(self._fresh), {"sha256": written, "bytes": self._fresh.stat().st_size, **record})
        if problem := verify(self._fresh):
            raise CheckpointError(f"{self._fresh}: {problem} right after writing; check the disk")
        if verify(self.checkpoint) is None:
            for current, older in _pair(self.checkpoint, self.previous):
                _link(current, older)
        for fresh, current in _pair(self._fresh, self.checkpoint):
            fresh.replace(current)
        sync(self.folder)

    def newest(self) -> tuple[Checkpoint, dict[str, Any]] | None:
        """The newest checkpoint that verifies and its record, saying which; None when nothing has been saved.

        Raises:
            CheckpointError: when there are checkpoints and none verifies.
        """
        present = [path for path in (self.checkpoint, self.previous) if path.exists()]
        for path in present:
            if problem := verify(path):
                reporter.info(f"{path}: {problem}; looking for another")
                continue
            reporter.info(f"resuming from {path}")
            return read_checkpoint(path), json.loads(record_path(path).read_text(encoding="utf-8"))
        if present:
            raise CheckpointError(_why_not(present[0]))
        return None

    # ------------------------------------------------------------------ the folder

    def start_afresh(self) -> None:
        """Make room for a new run: an earlier one is moved into a subfolder, never deleted."""
        make_folder(self.folder)
        self.remove_leftovers()
        earlier = [path for path in self._files() if path.exists()]
        worth_keeping = (self.checkpoint, self.previous, self.best, self.last)
        if not any(path in earlier for path in worth_keeping):  # killed before anything was saved
            for path in earlier:
                path.unlink()
        elif earlier:
            target = self.folder / f"replaced_{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"
            make_folder(target)
            for path in earlier:
                path.replace(target / path.name)
            reporter.info(f"an earlier run was in {self.folder}; moved to {target} (use --resume to continue one)")

    def remove_leftovers(self) -> None:
        """Delete temporary files that a killed process left behind."""
        names = [path.stem for path in (*self._files(), self._fresh)]
        unfinished = [path for name in names for path in self.folder.glob(f".{name}.*.tmp.*")]
        for path in [*unfinished, self._fresh, record_path(self._fresh)]:
            path.unlink(missing_ok=True)

    def _files(self) -> Iterable[Path]:
        pairs = [self.checkpoint, self.previous]
        outputs = [self.best, self.last, self.metrics, self.log, self.curve, self.config, self.manifest]
        return [*pairs, *map(record_path, pairs), *outputs]

    # ------------------------------------------------------------------ metrics and log

    def offsets(self) -> dict[str, int]:
        """Sizes of the metrics and the log, to which a resumed run cuts them."""
        return {path.name: path.stat().st_size if path.exists() else 0 for path in (self.metrics, self.log)}

    def cut_to(self, offsets: dict[str, int]) -> None:
        """Cut metrics and log back to a checkpoint's offsets.

        Raises:
            CheckpointError: when a file is shorter than the checkpoint knows it.
        """
        for path in (self.metrics, self.log):
            size = path.stat().st_size if path.exists() else 0
            if size < offsets[path.name]:
                raise CheckpointError(
                    f"{path}: is shorter than the checkpoint recorded; restore it, or start afresh without --resume"
                )
            if path.exists():
                os.truncate(path, offsets[path.name])

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Add one epoch to the CSV, with a header in a new file."""
        header = not self.metrics.exists() or self.metrics.stat().st_size == 0
        lines = [self.columns] if header else []
        _append(self.metrics, [*lines, [row[column] for column in self.columns]])

    def append_log(self, entry: dict[str, Any]) -> None:
        """Add one JSON line to the log."""
        _append(self.log, json.dumps(entry) + "\n")


def record_path(checkpoint: Path) -> Path:
    """The `.json` beside a checkpoint."""
    return checkpoint.with_suffix(".json")


def verify(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint pair, in a few words; None when its bytes are those that were recorded."""
    if not checkpoint.exists():
        return "is missing"
    try:
        record = json.loads(record_path(checkpoint).read_text(encoding="utf-8"))
        same = record["bytes"] == checkpoint.stat().st_size and record["sha256"] == sha256(checkpoint)
    except (OSError, ValueError, KeyError, TypeError):
        return f"has no readable {record_path(checkpoint).name} beside it"
    return None if same else f"does not match {record_path(checkpoint).name}"


def _pair(source: Path, target: Path) -> list[tuple[Path, Path]]:
    return [(record_path(source), record_path(target)), (source, target)]


def _link(source: Path, target: Path) -> None:
    """Give `source` a second name, atomically; a copy where the file system has no hard links."""
    temporary = target.with_name(f".{target.name}.tmp.link")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    temporary.replace(target)


def _append(path: Path, content: str | list) -> None:
    try:
        with path.open("a", encoding="utf-8", newline="") as file:
            if isinstance(content, str):
                file.write(content)
            else:
                csv.writer(file, lineterminator="\n").writerows(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(f"cannot write {describe_os_error(error, path)}") from error


def _why_not(path: Path) -> str:
    """Why no run can be resumed from a checkpoint that does not verify."""
    try:
        published = not record_path(path).exists() and read_checkpoint(path).published
    except UserError:
        published = False
    if not published:
        return f"{path}: no checkpoint here verifies; start afresh without --resume"
    return (
        f"{path}: is a checkpoint of the published code, whose runs cannot be resumed (it keeps neither random state "
        "nor recipe); to start from its weights, name it in model.checkpoint_path, without --resume"
    )
