"""The code blocks of a Markdown page, run as a reader would: Python in one session, commands in the folder."""

import itertools
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple

import warm_python

SHELL = ("", "bash")
PYTHON_RUNNER = """
import pathlib, sys
names = {"__name__": "__main__"}
for path in sys.argv[1:]:
    exec(compile(pathlib.Path(path).read_text(), path, "exec"), names)
"""


class Block(NamedTuple):
    """A fenced block."""

    language: str
    text: str


class Command(NamedTuple):
    """One command of a block, with variables replaced."""

    words: list[str]
    may_fail: bool = False
    """Whether the block says what comes after a failure (`||`)."""


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [Block(*found) for found in re.findall(r"^```(\w*)\n(.*?)^```", page, re.DOTALL | re.MULTILINE)]


def commands(text: str) -> list[Command]:
    """The commands of a block for a shell: one a line, without comments, with variables of the block replaced."""
    variables: dict[str, str] = {}
    found = []
    for line in text.replace("\\\n", " ").split("\n"):
        for part in line.split(";") if re.match(r"\w+=", line) else [line]:
            for name, value in variables.items():
                part = re.sub(rf"\$\{{{name}\}}|\${name}\b", value, part)
            first, _, other = part.partition("||")
            words = shlex.split(first, comments=True)
            if len(words) == 1 and (assigned := re.fullmatch(r"(\w+)=(\S*)", words[0])):
                variables[assigned[1]] = assigned[2]
            elif words:
                found.append(Command(words, may_fail=bool(other)))
    return found


def run_command(command: Command, folder: Path) -> None:
    """Run it; a target of make is only looked up, and of an installation, whether its files are there."""
    name, *rest = command.words
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "."}
    if name == "make":
        done = subprocess.run(["make", "-n", *rest], cwd=folder, capture_output=True, text=True)
    elif name == "pip":
        assert all((folder / file).exists() for option, file in itertools.pairwise(rest) if option == "-r")
        return
    else:
        start = {"python": [], "moemae": ["-m", "moemae"], "torchrun": ["-m", "torch.distributed.run"]}[name]
        done = warm_python.run([*start, *rest], cwd=folder, env=environment, timeout=900)
    assert "Traceback" not in done.stderr, done.stderr
    assert (done.returncode == 0) != command.may_fail, f"{shlex.join(command.words)}: {done.stderr}"


def run_python(texts: list[str], folder: Path) -> None:
    """Run blocks of Python one after another in one session."""
    files = []
    for number, text in enumerate(texts):
        files.append(folder.parent / f"block_{number}.py")
        files[-1].write_text(text, encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "."}
    done = warm_python.run(["-c", PYTHON_RUNNER, *files], cwd=folder, env=environment, timeout=900)
    assert done.returncode == 0, done.stderr
