"""Cached stages of a long computation: each is run once for the same inputs, also after an interruption.

A stage has a folder of its own. Before its work starts, `inputs.json` there records its inputs; when it is finished,
`stage.json` records the result. A stage whose `stage.json` was made from the same inputs, and whose files are as they
were, is not run again; one that was stopped finds its own files again and may go on with them.
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from utils.errors import DataError
from utils.files import make_folder, sha256, write_json
from utils.provenance import git_revision
from utils.reporting import reporter
from utils.temporary import remove_leftovers

STARTED, FINISHED = "inputs.json", "stage.json"

READ_AGAIN = 4 << 20
"""Bytes up to which the files of a finished stage are read whenever it is asked for. Larger ones, packs and embeddings
of gigabytes, would make every start wait; they are read only where their time has changed, as it does in a copy."""

FORMAT = 2
"""Of what stages return: raised when they return something else for the same inputs, so that all are done again."""


class Stage(NamedTuple):
    """A finished stage."""

    name: str
    folder: Path
    result: Any
    """What its work returned: plain values, as JSON holds them."""
    seconds: float
    """That its work took, in the run that finished it."""
    digest: str
    """Hex SHA-256 of its record: give it to the stages that build on this one as one of their inputs."""
    reused: bool
    """Whether it was finished in an earlier run."""
    revision: str | None
    """Of the source tree that did the work; None outside a checkout."""


class StageCache:
    """The folder of a piece of work, and its stages.

    Attributes:
        folder: of the whole work.
        stages: those asked for so far, in order.
        revision: of the source tree.
    """

    def __init__(self, folder: str | Path, report: Callable[[str], None] = reporter.info) -> None:
        self.folder = make_folder(folder)
        self.stages: list[Stage] = []
        self.revision = git_revision()
        self._report = report
        self._asked: dict[str, tuple[dict[str, Any], Stage]] = {}

    def stage(self, name: str, inputs: Mapping[str, Any], work: Callable[[Path], Any], quiet: bool = False) -> Stage:
        """Do `work(folder)` unless it has been done for the same `inputs`.

        Args:
            name: of the stage and, below `stages/`, of its folder; may have parts ("pretrain/seed0").
            inputs: everything the result depends on, as plain values: settings, fingerprints, digests of other stages.
            work: writes its files into the folder and returns plain values. It may find files of its own there from
                a run that was stopped.
            quiet: do not report its name when it is run.

        Raises:
            ValueError: when this name has been used for other inputs before: the two would undo each other's work.
        """
        folder = self.folder / "stages" / name
        wanted = json.loads(json.dumps(dict(inputs), allow_nan=False))
        if name in self._asked:
            earlier, stage = self._asked[name]
            if earlier != wanted:
                raise ValueError(f"two stages are called {name} and differ in their inputs")
            return stage
        record = _read(folder / FINISHED)
        current = isinstance(record, dict) and record.get("format") == FORMAT
        reused = current and record["inputs"] == wanted and _unchanged(folder, record["files"])
        if not reused:
            if not quiet:
                self._report(f"== {name}")
            record = _run(folder, wanted, work, self.revision)
        digest = sha256(folder / FINISHED)
        stage = Stage(name, folder, record["result"], record["seconds"], digest, reused, record["revision"])
        self.stages.append(stage)
        self._asked[name] = (wanted, stage)
        return stage


def _run(folder: Path, inputs: dict[str, Any], work: Callable[[Path], Any], revision: str | None) -> dict[str, Any]:
    """Run a stage's work in its folder and record what came out."""
    if folder.exists() and ((folder / FINISHED).exists() or _read(folder / STARTED) != inputs):
        (folder / STARTED).unlink(missing_ok=True)  # first: what is left after a kill must not be taken for a start
        shutil.rmtree(folder)
    remove_leftovers(make_folder(folder))
    write_json(folder / STARTED, inputs)
    started = time.perf_counter()
    result = work(folder)
    seconds = time.perf_counter() - started
    files = {str(path.relative_to(folder)): _facts(path) for path in _files(folder)}
    record = {"result": result, "seconds": seconds, "revision": revision, "files": files}
    write_json(folder / FINISHED, {"format": FORMAT, "inputs": inputs, **record})
    return json.loads((folder / FINISHED).read_text(encoding="utf-8"))


def _files(folder: Path) -> list[Path]:
    """The stage's own files, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (STARTED, FINISHED))


def _facts(path: Path) -> dict[str, Any]:
    """Size, time and digest, to detect a changed file later."""
    found = path.stat()
    return {"size": found.st_size, "modified": found.st_mtime_ns, "sha256": sha256(path)}


def _unchanged(folder: Path, files: Mapping[str, dict[str, Any] | int]) -> bool:
    return all(_is_as_it_was(folder / name, facts) for name, facts in files.items())


def _is_as_it_was(path: Path, facts: dict[str, Any] | int) -> bool:
    """By its bytes; a file above `READ_AGAIN` that keeps its size and time is not read.

    Args:
        path: of the file.
        facts: its `_facts`; records of old hold the size only, and then the size decides.
    """
    if not path.is_file():
        return False
    known = {"size": facts} if isinstance(facts, int) else facts
    found = path.stat()
    if found.st_size != known["size"]:
        return False
    large = found.st_size > READ_AGAIN and found.st_mtime_ns == known.get("modified")
    return large or "sha256" not in known or sha256(path) == known["sha256"]


def _read(path: Path) -> Any:
    """A record, or None where there is none."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not readable JSON; remove its folder, and the stage is done again") from error
