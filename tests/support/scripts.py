"""Scripts in processes of their own, and what a failure that the user can fix has to look like."""

import subprocess
from pathlib import Path

import warm_python
from conftest import ROOT

from utils.files import remove_empty_folders


def run(script: str, *arguments: object) -> subprocess.CompletedProcess:
    start = [script] if script.endswith(".py") else ["-m", script]
    return warm_python.run([*start, *arguments], cwd=ROOT)


def left_behind(folder: Path) -> bool:
    """Whether a folder is there after a script's `main` has raised and `run_script` has tidied up."""
    remove_empty_folders()
    return folder.exists()


def is_one_clear_line(done: subprocess.CompletedProcess, *named: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    for name in named:
        assert name in done.stderr
