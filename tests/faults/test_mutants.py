"""The command that scores a module by mutants: what it changes, and that it leaves the module as it was."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from tests.mutants import mutants_of

MODULE = '''"""Says 1."""


def least(a: int | None, b: int = 1) -> int | None:
    if not a < b:
        raise ValueError(a)
    return a + b


if __name__ == "__main__":
    print(1)
'''
CHANGES = {
    "1 -> 2",
    "if not a < b: -> if not not a < b:",
    "not a < b -> a < b",
    "a < b -> a <= b",
    "raise ValueError(a) -> pass",
    "return a + b -> return None",
    "a + b -> a - b",
}
TEST = "from least import least\n\n\ndef test() -> None:\n    assert least(1, 2) == 3\n"


@pytest.fixture
def place(tmp_path) -> Path:
    """A repository with a module and its test."""
    (tmp_path / "least.py").write_text(MODULE)
    (tmp_path / "test_least.py").write_text(TEST)
    (tmp_path / ".gitignore").write_text("__pycache__\n")
    (tmp_path / "torch.py").touch()  # which would take longer to load than all of this
    for words in (["init", "-q"], ["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return tmp_path


def command(place: Path) -> subprocess.Popen:
    """The command on it, with the module alone in Python's path."""
    words = [sys.executable, str(ROOT / "tests/mutants.py"), "least.py", "test_least.py", "--count", "100"]
    return subprocess.Popen(
        words, cwd=place, env={"PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_every_kind_of_change() -> None:
    found = mutants_of(MODULE)
    assert {change.split(": ", 1)[1] for change, _ in found} == CHANGES
    assert all(source.count('"""Says 1."""') == 1 and "print(1)" in source for _, source in found)


def test_what_the_tests_miss_is_named(place) -> None:
    said = command(place).communicate(timeout=120)[0].splitlines()
    assert said[-1] == "least.py: 4 of 7 noticed, of 7 that there are"
    missed = {line.split(": ", 1)[1] for line in said if line.startswith("SURVIVED")}
    assert missed == {"1 -> 2", "a < b -> a <= b", "raise ValueError(a) -> pass"}
    assert (place / "least.py").read_text() == MODULE


def test_a_tree_with_changes_is_refused_and_a_stopped_one_is_put_back(place) -> None:
    (place / "least.py").write_text(MODULE + "\n")
    assert "changes that are not committed" in command(place).communicate(timeout=120)[0]
    (place / "least.py").write_text(MODULE)
    for number in (signal.SIGTERM, signal.SIGINT):
        running = command(place)
        while running.poll() is None and (place / "least.py").read_text() == MODULE:
            time.sleep(0.01)
        running.send_signal(number)
        assert running.wait(timeout=120) != 0
        assert (place / "least.py").read_text() == MODULE
