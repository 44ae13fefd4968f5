"""docs/failures.md has an entry for every message that ends a run, and none that no message bears."""

import re

import pytest
from conftest import ROOT
from messages import VALUE, messages

PAGE = (ROOT / "docs/failures.md").read_text(encoding="utf-8")
PUT_TOGETHER = ("utils/config.py", "utils/locks.py")
"""Where a message can have no words of its own: problems of single keys, and the caller's reason for a lock."""
LEAST_LETTERS = 6


def entries(page: str) -> list[str]:
    """What stands in the first column of the page's tables, between backticks."""
    rows = [line for line in page.split("\n") if line.startswith("| ") and not line.startswith("| ---")]
    return [entry for row in rows for entry in re.findall(r"`+([^`]+)`+", row.split(" | ")[0])]


def missing(found: list[tuple[str, str]], page: str) -> list[tuple[str, str]]:
    """Messages whose words stand in no entry."""
    patterns = [pattern(entry) for entry in entries(page)]
    return [(place, text) for place, text in found if not any(known.search(text) for known in patterns)]


def pattern(entry: str) -> re.Pattern[str]:
    return re.compile(".*?".join(map(re.escape, entry.split(VALUE))))


@pytest.fixture(scope="module")
def found() -> list[tuple[str, str]]:
    return messages(ROOT)


def test_every_message_has_an_entry(found) -> None:
    assert len(found) > 500, "the walk over the sources finds them"
    for place, text in missing(found, PAGE):
        assert text == VALUE and place.split(":")[0] in PUT_TOGETHER, f"{place}: {text}: not in docs/failures.md"


def test_every_entry_is_of_a_message(found) -> None:
    together = "\n".join(text for _, text in found)  # a pattern stays within a line
    assert not [entry for entry in entries(PAGE) if not pattern(entry).search(together)]


def test_entries_say_enough_to_be_found() -> None:
    vague = [entry for entry in entries(PAGE) if sum(map(str.isalpha, entry)) < LEAST_LETTERS]
    assert not vague


def test_a_new_message_is_noticed(tmp_path) -> None:
    (tmp_path / "new.py").write_text(
        "from utils.errors import DataError\n"
        "FIX = 'ask the mountain'\n"
        "class Steep(DataError):\n    pass\n"
        "def climb(height):\n"
        "    why = 'too steep' if height else 'too flat'\n"
        "    raise Steep(f'{height}: is {why}; {FIX}')\n"
        "class DataError(UserError):\n    pass\n",
        encoding="utf-8",
    )
    texts = ["…: is too steep; ask the mountain", "…: is too flat; ask the mountain"]
    assert messages(tmp_path) == [("new.py:7", text) for text in texts]
    assert missing(messages(tmp_path), PAGE) == messages(tmp_path)
    assert not missing(messages(tmp_path), PAGE + "\n| `is too … ask the mountain` | Take another one. |\n")
