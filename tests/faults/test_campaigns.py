"""The fault suite's own machinery: seeds, counters that resume, and the input of a failing try kept."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from faults import (
    REFUSED,
    USED,
    Attempt,
    Campaign,
    damaged,
    ending,
    flipped,
    lines_of,
    mutated,
    summarise,
    truncated,
)

from utils.errors import UserError

DATA = bytes(range(256))


def test_a_try_depends_on_its_name_and_number_alone() -> None:
    def draw(name: str, number: int) -> bytes:
        return Attempt(name, number).random.bytes(8)

    assert draw("a", 3) == draw("a", 3)
    assert len({draw(name, number) for name in "ab" for number in range(3)}) == 6


def test_lengths_and_counts(tmp_path) -> None:
    for length, tries in (("", 3), ("release", 5), ("moonshot", 50)):
        found = Campaign("x", 3, 5, tmp_path / length, length).run(
            lambda attempt: "odd" if attempt.number % 2 else "even"
        )
        assert found.total() == tries
    with pytest.raises(AssertionError, match="MOEMAE_FAULTS=soon"):
        Campaign("x", 3, 5, tmp_path, "soon")


def test_a_failing_try_keeps_its_input_and_is_the_next_one_again(tmp_path) -> None:
    seen = []

    def one(attempt: Attempt) -> str:
        seen.append(attempt.number)
        attempt.keep(b"bad bytes", "bad.bin")
        attempt.keep(tmp_path / "nothing")
        assert len(seen) != 3
        return USED

    with pytest.raises(AssertionError) as caught:
        Campaign("some kind, of fault", 1, 5, tmp_path, "release").run(one)
    (kept,) = (tmp_path / "failed").iterdir()
    assert (kept / "bad.bin").read_bytes() == b"bad bytes" and str(kept) in caught.value.__notes__[0]
    assert Campaign("some kind, of fault", 1, 5, tmp_path, "release").run(one) == {USED: 5}
    assert seen == [0, 1, 2, 2, 3, 4]
    assert json.loads((tmp_path / "some-kind-of-fault.json").read_text())["done"] == 5
    Campaign("some kind, of fault", 1, 5, tmp_path, "release").run(one)
    assert len(seen) == 6


def test_counts_are_added_up(tmp_path) -> None:
    for name, tries in (("a, first", 3), ("b", 2)):
        Campaign(name, 1, tries, tmp_path, "release").run(lambda attempt: USED if attempt.number else REFUSED)
    for _ in range(2):
        lines = lines_of(summarise(Counter(passed=4), tmp_path))
    assert "| a, first | 3 of 3 | 1 refused, 2 used |" in lines and "| b | 2 of 2 | 1 refused, 1 used |" in lines
    assert "| all | 5 | tests: 4 passed |" in lines and "," not in lines[0], "the same revision"


def test_damage_is_never_none() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        one = flipped(DATA, random)
        assert sum((a ^ b).bit_count() for a, b in zip(DATA, one, strict=True)) == 1
        cut = truncated(DATA, random)
        assert cut != DATA and DATA.startswith(cut)
        assert damaged(DATA, random) != DATA
    assert len({mutated(DATA, random, (b"word",)) for _ in range(50)}) > 45


def test_endings() -> None:
    def refuse(text: str) -> None:
        raise UserError(text)

    assert ending(lambda: 1) == USED
    assert ending(lambda: refuse("one line")) == REFUSED
    with pytest.raises(AssertionError):
        ending(lambda: refuse("two\nlines"))
    with pytest.raises(KeyError):
        ending(lambda: {}["a"])


def test_every_promise_names_its_test() -> None:
    """The guide's tables: each row has files that are there, and each file of this folder has a row."""
    page = (ROOT / "docs" / "guide" / "promises.md").read_text(encoding="utf-8")
    tables = re.findall(r"^\| promise \|.*\n\| --- .*\n((?:\|.*\n)+)", page, re.MULTILINE)
    promises = [line.split(" | ") for table in tables for line in table.splitlines()]
    named = {file for row in promises for file in re.findall(r"`([\w/]+\.py)`", row[2])}
    assert len(promises) > 30 and all(len(row) == 4 and "`" in row[2] for row in promises)
    assert all((ROOT / "tests" / file).is_file() for file in named)
    ours = {f"faults/{path.name}" for path in Path(__file__).parent.glob("test_*.py")}
    assert ours - named == {"faults/test_campaigns.py", "faults/test_mutants.py"}
