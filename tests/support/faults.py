"""Fault campaigns: numbered tries with seeds of their own, counted, the input of a try that fails kept.

    campaign("flips of a checkpoint", 100, 1000).run(one_try)

`one_try` makes its damage from `attempt.random`, registers it with `attempt.keep`, and returns how it ended. The
environment variable MOEMAE_FAULTS sets the length: unset as for CI, `release`, or `moonshot` (ten times that). At these
lengths a campaign counts in `outputs/faults`, and goes on from there when it is started again; remove the folder to
begin anew. `make fault-counts` prints the counts. What made a try fail lies in `outputs/faults/failed`.
"""

import json
import os
import re
import shutil
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from conftest import ROOT

from utils.errors import UserError
from utils.markdown import markdown_table
from utils.provenance import git_revision

VARIABLE = "MOEMAE_FAULTS"
LENGTHS = {"": 0, "release": 1, "moonshot": 10}
FOLDER = ROOT / "outputs" / "faults"
SUMMARY = "summary.json"
SAVE_EVERY_SECONDS = 2.0

REFUSED, USED = "refused", "used"


class Attempt:
    """One try of a campaign.

    Attributes:
        number: from 0.
        random: its own generator; a function of the campaign's name and the number alone.
    """

    def __init__(self, name: str, number: int) -> None:
        self.number = number
        self.random = np.random.default_rng([zlib.crc32(name.encode()), number])
        self.kept: dict[str, bytes | Path] = {}

    def keep(self, content: bytes | str | Path, name: str = "input") -> None:
        """Keep this if the try fails: bytes, text, or a file or folder as it then is."""
        self.kept[name] = content.encode() if isinstance(content, str) else content


class Campaign:
    """Tries of one kind.

    Args:
        name: of the campaign; seeds and files follow from it.
        ci, release: how many tries at these lengths.
        folder: for counters and kept inputs.
        length: a key of `LENGTHS`.
    """

    def __init__(self, name: str, ci: int, release: int, folder: Path = FOLDER, length: str | None = None) -> None:
        self.name, self.folder = name, folder
        length = os.environ.get(VARIABLE, "") if length is None else length
        assert length in LENGTHS, f"{VARIABLE}={length}: give one of {', '.join(filter(None, LENGTHS))}"
        self.tries = release * LENGTHS[length] or ci
        self._slug = re.sub(r"\W+", "-", name).strip("-")
        self._counter = folder / f"{self._slug}.json" if length else None

    def run(self, one_try: Callable[[Attempt], str]) -> Counter[str]:
        """Make all tries that are not done yet; returns how often each ending was seen, earlier ones included."""
        done, endings = self._counted()
        saved = time.monotonic()
        for number in range(done, self.tries):
            attempt = Attempt(self.name, number)
            try:
                ending = one_try(attempt)
            except BaseException as error:
                self._count(number, endings)
                if not isinstance(error, KeyboardInterrupt):
                    error.add_note(f"try {number} of {self.name!r}; its input is in {self._keep(attempt)}")
                raise
            endings[ending] += 1
            if time.monotonic() - saved > SAVE_EVERY_SECONDS:
                self._count(number + 1, endings)
                saved = time.monotonic()
        self._count(max(done, self.tries), endings)
        print(f"{self.name}: {self.tries} tries, {', '.join(f'{n} {ending}' for ending, n in endings.most_common())}")
        return endings

    def _counted(self) -> tuple[int, Counter[str]]:
        if self._counter is None or not self._counter.exists():
            return 0, Counter()
        counted = json.loads(self._counter.read_text(encoding="utf-8"))
        return counted["done"], Counter(counted["endings"])

    def _count(self, done: int, endings: Counter[str]) -> None:
        if self._counter is not None:
            self._counter.parent.mkdir(parents=True, exist_ok=True)
            beside = self._counter.with_suffix(".new")
            counted = {"name": self.name, "done": done, "of": self.tries, "endings": endings}
            beside.write_text(json.dumps(counted), encoding="utf-8")
            beside.replace(self._counter)

    def _keep(self, attempt: Attempt) -> Path:
        folder = self.folder / "failed" / f"{self._slug}-{attempt.number}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, content in attempt.kept.items():
            if isinstance(content, bytes):
                (folder / name).write_bytes(content)
            elif content.is_dir():
                shutil.copytree(content, folder / name)
            elif content.exists():
                shutil.copyfile(content, folder / name)
        return folder


def counts(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """What the campaigns have counted so far: name, tries that are done, of how many, and how they ended."""
    files = [path for path in sorted(folder.glob("*.json")) if path.name != SUMMARY]
    return [json.loads(path.read_text(encoding="utf-8")) for path in files]


def summarise(tests: Counter[str], folder: Path = FOLDER) -> dict[str, Any]:
    """Write the counts, and how the tests of this session ended, to one file; sessions before it are added up."""
    path = folder / SUMMARY
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"revisions": []}
    found = counts(folder)
    summary = {
        "revisions": sorted({*before["revisions"], str(git_revision())}),
        "tests_of_the_last_session": dict(tests),
        "tries": sum(one["done"] for one in found),
        "campaigns": found,
    }
    path.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return summary


def lines_of(summary: dict[str, Any]) -> list[str]:
    """A summary as a table in Markdown."""

    def said(endings: dict[str, int]) -> str:
        return ", ".join(f"{number:,} {ending}" for ending, number in endings.items())

    rows = [(one["name"], f"{one['done']:,} of {one['of']:,}", said(one["endings"])) for one in summary["campaigns"]]
    total = ("all", f"{summary['tries']:,}", f"tests: {said(summary['tests_of_the_last_session'])}")
    table = markdown_table(("campaign", "tries", "ended"), [*rows, total])
    return [f"revisions: {', '.join(summary['revisions'])}", *table.splitlines()]


def ending(work: Callable[[], object]) -> str:
    """How a piece of work ends for a user: `used`, or `refused` with one line. Anything else is a traceback: raised."""
    try:
        work()
    except UserError as error:
        assert "\n" not in str(error), error
        return REFUSED
    return USED


# --------------------------------------------------------------------------- damage


def flipped(data: bytes, random: np.random.Generator, bits: int = 1) -> bytes:
    """The bytes with so many different bits flipped."""
    damaged = np.frombuffer(data, np.uint8).copy()
    for bit in random.choice(8 * len(data), bits, replace=False):
        damaged[bit // 8] ^= np.uint8(1 << (bit % 8))
    return damaged.tobytes()


def truncated(data: bytes, random: np.random.Generator) -> bytes:
    """The bytes without their end, or none."""
    return data[: random.integers(len(data))]


def damaged(data: bytes, random: np.random.Generator) -> bytes:
    """A bit flipped, a few bits flipped, or the end missing; never the same bytes."""
    kind = random.integers(4)
    return (
        truncated(data, random) if kind == 0 else flipped(data, random, 1 if kind < 3 else int(random.integers(2, 9)))
    )


def mutated(data: bytes, random: np.random.Generator, words: tuple[bytes, ...] = ()) -> bytes:
    """The bytes changed as a fuzzer does it: flips, other bytes, pieces removed, repeated, moved or put in.

    Args:
        data: a file that is whole.
        random: decides everything.
        words: of the format, to put in or to overwrite with.
    """
    result = bytearray(data)
    for _ in range(int(random.integers(1, 5))):
        at = int(random.integers(len(result) + 1))
        until = min(len(result), at + int(random.integers(1, 65)))
        piece = bytes(result[at:until])
        match random.integers(7):
            case 0:
                result = bytearray(damaged(bytes(result), random)) if result else result
            case 1:
                del result[at:until]
            case 2:
                result[at:at] = piece * int(random.integers(1, 4))
            case 3:
                result[at:until] = random.bytes(until - at)
            case 4:
                result[at:until] = (b"\x00", b"\xff", b"\x7f", b"9", b"-")[random.integers(5)] * (until - at)
            case 5 if words:
                result[at : at + int(random.integers(2)) * (until - at)] = words[random.integers(len(words))]
            case _:
                to = int(random.integers(len(result) + 1))
                result[to:to] = piece
    return bytes(result)


if __name__ == "__main__":
    print("\n".join(lines_of(json.loads((FOLDER / SUMMARY).read_text(encoding="utf-8")))))
