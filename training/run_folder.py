"""What a pretraining run leaves in its folder, and how it finds it again after being killed at any moment.

A checkpoint is a pair: `checkpoint_S.pth` and a `.json` with its SHA-256 and a checksum of its own. A new pair is
written beside the current one and read back; the current one, if it verifies, becomes `checkpoint_S.prev.pth`; when
that is on the disk, the new one takes its place. Whatever the moment of a kill or a power loss, a pair verifies, or
nothing has been saved yet. One process at a time holds the folder.
"""

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from models.checkpoint import checkpoint_of, read_checkpoint, write_checkpoint
from utils.checked_json import is_changed, write_checked_json
from utils.errors import CheckpointError, UserError, describe_os_error
from utils.files import make_folder, sync
from utils.locks import held_alone
from utils.parsing import parse_json
from utils.reporting import reporter

CSV_COLUMNS = ("epoch", "train_loss", "train_m_loss", "train_um_loss", "train_moe_loss", "avg_lr")
"""As published."""
VALIDATION_COLUMNS = ("val_loss", "val_m_loss")
"""Added when there is a validation split."""


class CheckpointForm(NamedTuple):
    """What a kind of model writes down."""

    write: Callable[..., str]
    """From path, model and more to the SHA-256 of what was written."""
    read: Callable[[Path, bytes], Any]
    """From path and bytes to what they hold."""
    columns: tuple[str, ...]
    """Of the metrics."""
    suffix: str = ".pth"
    """Of weights for use."""


AUTOENCODER = CheckpointForm(write_checkpoint, checkpoint_of, CSV_COLUMNS)


class RunFolder:
    """The files of one run, of one model size, in one folder.

    Args:
        folder: of the run.
        size: in the names of its files.
        with_validation: whether the metrics have columns of a validation split.
        form: how checkpoints are written and read.
    """

    def __init__(
        self, folder: str | Path, size: str, with_validation: bool, form: CheckpointForm = AUTOENCODER
    ) -> None:
        self.folder, self.form = Path(folder), form
        self.columns = form.columns + (VALIDATION_COLUMNS if with_validation else ())
        self.checkpoint = self.folder / f"checkpoint_{size}.pth"
        self.previous = self.folder / f"checkpoint_{size}.prev.pth"
        self.best = self.folder / f"pretrained_{size}_best{form.suffix}"
        self.last = self.folder / f"pretrained_{size}_last{form.suffix}"
        self.metrics = self.folder / f"training_metrics_{size}.csv"
        self.log = self.folder / f"training_log_{size}.jsonl"
        self.curve = self.folder / f"loss_curve_{size}.png"
        self.config = self.folder / f"config_{size}.yaml"
        self.manifest = self.folder / f"manifest_{size}.json"
        self._fresh = self.folder / f".checkpoint_{size}.new.pth"
        self._lock = f".held_{size}"

    # ------------------------------------------------------------------ checkpoints

    def save(self, model: nn.Module, record: dict[str, Any], **content: Any) -> None:
        """Write a checkpoint pair by the protocol above.

        Args:
            model: the weights.
            record: what goes into the `.json`, besides size and hash.
            content: arguments of `CheckpointForm.write`.

        Raises:
            UserError: when it cannot be written or does not read back; the earlier ones are then untouched.
        """
        written = self.form.write(self._fresh, model, **content)
        write_checked_json(record_path(self._fresh), {"sha256": written, "bytes": self._fresh.stat().st_size, **record})
        if problem := verify(self._fresh):
            raise CheckpointError(f"{self._fresh}: {problem} right after writing; check the disk")
        try:
            self._take_place()
        except OSError as error:
            raise UserError(f"cannot write {describe_os_error(error, self.checkpoint)}") from error

    def _take_place(self) -> None:
        """The current pair, if it verifies, becomes the previous one, and the new one the current one."""
        if verify(self.checkpoint) is None:
            for current, older in _pair(self.checkpoint, self.previous):
                _link(current, older)
            # At a power loss any of the renames that are not on the disk yet may be lost: of these two, or of the next.
            sync(self.folder)
        for fresh, current in _pair(self._fresh, self.checkpoint):
            fresh.replace(current)
        sync(self.folder)

    def newest(self) -> tuple[Any, dict[str, Any]] | None:
        """The newest checkpoint that verifies and its record, saying which; None when nothing has been saved.

        Raises:
            CheckpointError: when there are checkpoints and none verifies.
        """
        usual = (self.checkpoint, self.previous)
        for weights, record in self._pairs():
            try:
                about, data = _read_pair(weights, record)
            except _Damaged as problem:
                if weights in usual and record == record_path(weights) and weights.exists():
                    reporter.info(f"{weights}: {problem}; looking for another")
                continue
            reporter.info(f"resuming from {weights}")
            return self.form.read(weights, data), about
        if present := [path for path in usual if path.exists()]:
            raise CheckpointError(_why_not(present[0]))
        return None

    def _pairs(self) -> list[tuple[Path, Path]]:
        """Weights and records that may belong together, the newest first; those of a save that was cut short, too."""
        fresh, current = record_path(self._fresh), record_path(self.checkpoint)
        return [
            (self._fresh, fresh),
            (self._fresh, current),
            (self.checkpoint, fresh),
            (self.checkpoint, current),
            (self.previous, record_path(self.previous)),
        ]

    # ------------------------------------------------------------------ the folder

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run's files against a second process. Raises UserError that says who holds them, since when."""
        otherwise = "training in it; wait for it, stop it, or give another training.weight_path"
        with held_alone(make_folder(self.folder), otherwise, self._lock):
            yield

    def start_afresh(self) -> None:
        """Make room for a new run: an earlier one is moved into a subfolder, never deleted."""
        make_folder(self.folder)
        self.settle()
        earlier = [path for path in self._files() if path.exists()]
        worth_keeping = (self.checkpoint, self.previous, self.best, self.last)
        if not any(path in earlier for path in worth_keeping):  # killed before anything was saved
            for path in earlier:
                path.unlink()
        else:
            target = self.folder / f"replaced_{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"
            make_folder(target)
            for path in earlier:
                path.replace(target / path.name)
            reporter.info(f"an earlier run was in {self.folder}; moved to {target} (use --resume to continue one)")

    def settle(self) -> None:
        """Finish what a killed process left: a new pair that is whole takes its place, what is unfinished goes."""
        whole, half_done, half_lost = [_problem(weights, record) is None for weights, record in self._pairs()[:3]]
        if whole:
            self._take_place()
        elif half_done:
            self._fresh.replace(self.checkpoint)
        elif half_lost:
            record_path(self._fresh).replace(record_path(self.checkpoint))
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
                _cut(path, offsets[path.name])

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
    return _problem(checkpoint, record_path(checkpoint))


class _Damaged(Exception):
    """A pair that does not verify: why, in a few words."""


def _problem(checkpoint: Path, beside: Path) -> str | None:
    try:
        _read_pair(checkpoint, beside)
    except _Damaged as problem:
        return str(problem)
    return None


def _read_pair(checkpoint: Path, beside: Path) -> tuple[dict[str, Any], bytes]:
    """The record of a checkpoint, and the checkpoint's bytes. Raises _Damaged."""
    if not checkpoint.exists():
        raise _Damaged("is missing")
    try:
        record = parse_json(beside.read_text(encoding="utf-8"))
        changed, recorded = is_changed(record), (record["bytes"], record["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _Damaged(f"has no readable {beside.name} beside it") from error
    if changed:
        raise _Damaged(f"has a damaged {beside.name} beside it")
    try:
        data = checkpoint.read_bytes()
    except OSError as error:
        raise _Damaged(f"cannot be read ({error.strerror})") from error
    if recorded != (len(data), hashlib.sha256(data).hexdigest()):
        raise _Damaged(f"does not match {beside.name}")
    return record, data


def _pair(source: Path, target: Path) -> list[tuple[Path, Path]]:
    return [(record_path(source), record_path(target)), (source, target)]


def _link(source: Path, target: Path) -> None:
    """Give `source` a second name, atomically; a copy where the file system has no hard links."""
    if target.exists() and source.samefile(target):  # a killed process came so far; renaming would do nothing
        return
    temporary = target.with_name(f".{target.name}.tmp.link")
    temporary.unlink(missing_ok=True)
    try:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
            sync(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _cut(path: Path, size: int) -> None:
    """Cut a file of lines between two of them."""
    with path.open("r+b") as file:
        file.seek(max(size - 1, 0))
        if size and file.read(1) != b"\n":
            raise CheckpointError(
                f"{path}: has no line that ends where the checkpoint recorded it; restore it, or start afresh without "
                "--resume"
            )
        file.truncate(size)


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
