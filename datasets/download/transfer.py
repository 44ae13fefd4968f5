"""A dataset on its way from the hub into a folder, and what is said of it once it is there."""

import os
import shutil
from pathlib import Path

from datasets.download.archive import DamagedArchive, unpack
from datasets.download.check import Checked, summary
from datasets.download.hub import RemoteFile, fetch, has_checksum, locate, part_of
from datasets.download.source import RECORD, REPORT, Published
from utils.data_utils import list_some
from utils.errors import DataError, UserError
from utils.files import check_writable, sync, write_json, write_text
from utils.parsing import parse_json
from utils.reporting import reporter, size_text

WORK = ".download"
"""The folder in DIR where everything unfinished lies."""
STATE = "state.json"
"""In it: which revision the unfinished files are of."""


class Download:
    """One dataset on its way into a folder.

    Args:
        source: what the hub holds.
        out: the folder.
        revision: branch, tag or commit.
        endpoint: see `locate`.
    """

    def __init__(self, source: Published, out: Path, revision: str, endpoint: str | None) -> None:
        self.source, self.out, self.work = source, out, out / WORK
        self.revision, self.endpoint = revision, endpoint
        self.tree = self.work / source.top

    def execute(self, keep_archive: bool) -> None:
        """Fetch and unpack what is not there; see the module.

        Raises:
            UserError, DataError: with everything that came so far left for the next try.
        """
        has_tree = (self.out / self.source.top).is_dir()
        wanted = [name for name in self.source.files if not (self.out / name).exists()]
        if has_tree:
            wanted = [name for name in wanted if name != self.source.archive]
        if wanted or not has_tree:
            check_writable(self.work)
            files = self._located(wanted)
            self._require_space(files, unpacks=not has_tree)
            for file in files:
                if not (self.work / file.name).exists():
                    fetch(file, self.work)
            if not has_tree:
                self._unpack(files)
            self._settle(files, keep_archive)
        shutil.rmtree(self.work, ignore_errors=True)

    def _located(self, wanted: list[str]) -> list[RemoteFile]:
        """Where the files are; the hub is not asked again once all of them have come."""
        state = self._read_state()
        if state.keys() >= set(wanted) and all((self.work / name).exists() for name in wanted):
            return [state[name] for name in wanted]
        files = locate(self.source.repo, wanted, self.revision, self.endpoint)
        for file in files:
            if file.name not in state or state[file.name].etag != file.etag:
                (self.work / file.name).unlink(missing_ok=True)
                part_of(self.work / file.name).unlink(missing_ok=True)
                if file.name == self.source.archive:
                    shutil.rmtree(self.tree, ignore_errors=True)
        write_json(self.work / STATE, {"revision": self.revision, "files": [file._asdict() for file in files]})
        return files

    def _read_state(self) -> dict[str, RemoteFile]:
        """The unfinished files by name; empty where there are none, or of another revision than asked for."""
        try:
            state = parse_json((self.work / STATE).read_text(encoding="utf-8"))
            files = [RemoteFile(**entry) for entry in state["files"]]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return {file.name: file for file in files} if state.get("revision") == self.revision else {}

    def _require_space(self, files: list[RemoteFile], unpacks: bool) -> None:
        """Refuse to begin what the disk cannot hold."""
        there = sum(_size(self.work / file.name) + _size(part_of(self.work / file.name)) for file in files)
        missing = max(0, sum(file.bytes for file in files) - there)
        files_left = 0
        if unpacks:
            count, size = _tree_size(self.tree)
            missing += max(0, self.source.unpacked_bytes - size)
            files_left = max(0, self.source.unpacked_files - count)
        room = os.statvfs(self.out)
        free = room.f_bavail * room.f_frsize
        if missing > free:
            raise UserError(
                f"{self.out}: {size_text(missing)} are needed to fetch and unpack, the disk has {size_text(free)}; "
                "free some space or give another --out"
            )
        if room.f_files and files_left > room.f_favail:  # some file systems have no such limit and say 0
            raise UserError(
                f"{self.out}: {files_left:,} files are to be unpacked, the file system takes {room.f_favail:,} more; "
                "give another --out"
            )

    def _unpack(self, files: list[RemoteFile]) -> None:
        lying = self.out / self.source.archive
        archive = lying if lying.exists() else self.work / self.source.archive
        try:
            unpack(archive, self.tree, self.source.top)
        except DamagedArchive as error:
            if archive == lying:
                raise DataError(f"{error}; remove it and run the same command again") from error
            if any(file.name == archive.name and has_checksum(file.etag) for file in files):
                raise DataError(
                    f"{error}, though it is as published: tell the authors of {self.source.repo}, and remove "
                    f"{self.work} once they have corrected it"
                ) from error
            archive.unlink()
            shutil.rmtree(self.tree, ignore_errors=True)
            raise DataError(f"{error}; removed, run the same command again to fetch it again") from error

    def _settle(self, files: list[RemoteFile], keep_archive: bool) -> None:
        """Move everything to where it belongs; the dataset's folder comes last."""
        os.sync()  # half a million files have to be on the disk before the folder's new name is
        names = [file.name for file in files if keep_archive or file.name != self.source.archive]
        if files:
            self._record(files)
        for name in names:
            (self.work / name).replace(self.out / name)
        if self.tree.exists():
            self.tree.replace(self.out / self.source.top)
        sync(self.out)

    def _record(self, files: list[RemoteFile]) -> None:
        """Write down where the files came from, beside what is known of those fetched earlier."""
        path = self.out / RECORD
        try:
            known = parse_json(path.read_text(encoding="utf-8"))["files"]
        except (OSError, ValueError, KeyError, TypeError):
            known = {}
        known |= {file.name: {"commit": file.commit, "etag": file.etag, "bytes": file.bytes} for file in files}
        write_json(path, {"dataset": self.source.dataset, "repo": self.source.repo, "files": known})


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _tree_size(folder: Path) -> tuple[int, int]:
    """Files below a folder, and the disk they take."""
    count = size = 0
    for parent, _, names in os.walk(folder):
        count += len(names)
        size += sum(os.lstat(os.path.join(parent, name)).st_blocks for name in names) * 512  # noqa: PTH118 (a million)
    return count, size


def announce(checked: Checked, source: Published, out: Path, report: Path) -> None:
    """Print what was found; list all findings in a file, if there are any.

    Raises:
        DataError: when the dataset cannot be used as it is.
    """
    splits = ", ".join(f"{split} {count:,}" for split, count in checked.counts.items())
    reporter.info(
        f"{out}: {source.dataset}, {sum(checked.counts.values()):,} patches ({splits}), {checked.read:,} read whole"
    )
    for line in (*summary(checked.problems), *summary(checked.notes)):
        reporter.info(f"  {line}")
    if not checked.report:
        (out / REPORT).unlink(missing_ok=True)
        return
    write_text(report, checked.report)
    reporter.info(f"  all are listed in {report}")
    if checked.problems:
        kinds = list_some(dict.fromkeys(finding.kind for finding in checked.problems))
        raise DataError(
            f"{out}: {len(checked.problems):,} files are not as published ({kinds}); to begin anew, remove "
            f"{out / source.top} and run without --check"
        )
