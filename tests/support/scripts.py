"""Scripts as a user starts them, run in this process: a start of Python costs seconds of imports, and tests no more."""

import contextlib
import io
import os
import runpy
import signal
import sys
from subprocess import CompletedProcess

from conftest import ROOT


def run(script: str, *arguments: object) -> CompletedProcess:
    """Run a script or module as `__main__` from the repository's folder.

    Args:
        script: a file such as `explore.py`, or a module such as `datasets.simulated`.
        arguments: of the command line.

    Returns:
        The exit code and what was written to stdout and stderr.
    """
    out, err = io.StringIO(), io.StringIO()
    argv, here = sys.argv, os.getcwd()  # noqa: PTH109
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    module = None if script.endswith(".py") else sys.modules.pop(script, None)  # runpy warns of a loaded one
    code = 0
    try:
        sys.argv = [str(ROOT / script) if script.endswith(".py") else script, *map(str, arguments)]
        os.chdir(ROOT)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                if script.endswith(".py"):
                    runpy.run_path(str(ROOT / script), run_name="__main__")
                else:
                    runpy.run_module(script, run_name="__main__", alter_sys=True)
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        os.chdir(here)
        sys.argv = argv
        if module is not None:
            sys.modules[script] = module
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return CompletedProcess([script, *map(str, arguments)], code, out.getvalue(), err.getvalue())


def is_one_clear_line(done: CompletedProcess, *named: str) -> None:
    """It ended with exit code 2 and one line on stderr that names what is wrong."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    for name in named:
        assert name in done.stderr
