"""User-fixable errors, and the one place where scripts turn them into an exit code."""

import errno
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from utils.reporting import configure, reporter


class UserError(Exception):
    """A user-fixable error. The message is one line: the file or key, what is wrong with it, and the fix."""

    exit_code = 2


class ConfigError(UserError):
    """A configuration file, override or command-line value is not usable."""


class DataError(UserError):
    """A dataset file is missing, malformed or inconsistent."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, unsafe, or belongs to another model or run."""


class TrainingDiverged(UserError):
    """A loss term or the gradient norm became infinite or NaN during training."""

    exit_code = 3


_OS_FIXES = {
    errno.ENOSPC: "no space left on the device: free some space or write elsewhere",
    errno.EDQUOT: "the disk quota is exhausted: free some space or write elsewhere",
    errno.EFBIG: "the file would exceed the size limit: raise the limit or write elsewhere",
    errno.EROFS: "the file system is read-only: write elsewhere",
    errno.EACCES: "permission denied: check its permissions or choose another path",
    errno.EPERM: "operation not permitted: check its permissions or choose another path",
    errno.ENOTDIR: "a part of this path is a file, not a folder",
    errno.EISDIR: "this is a folder where a file is expected",
    errno.EEXIST: "a file of this name is in the way",
    errno.ENOENT: "no such file or folder",
}


def describe_os_error(error: OSError, path: object = None) -> str:
    """One line for an operating-system error: the path and, where known, the fix."""
    where = path if path is not None else error.filename
    fix = _OS_FIXES.get(error.errno or 0, error.strerror or str(error))
    return f"{where}: {fix}" if where is not None else fix


KILLED_READER = "a reader process was killed (out of memory?); go on with fewer"
"""Workers, by the name of the option."""


def is_killed_reader(error: RuntimeError) -> bool:
    """Whether PyTorch says that a reader process of a `DataLoader` ended; the signal comes wherever the program is."""
    return str(error).startswith("DataLoader worker")


def run_script(main: Callable[[], int | None], several: bool = False) -> None:
    """Run a script's `main` and exit: 0 if fine, the error's code with one line on stderr otherwise.

    `several`: processes started by `torchrun` may share its work. Other scripts then say that they are one process. A
    `UserError` or an `OSError` (no space, read-only, missing) prints one line, and so do a killed reader process and a
    text that the locale has no letters for; an interrupt exits 130; anything else is a defect of this project and keeps
    its traceback.
    """
    _occupy_standard_descriptors()
    configure()
    try:
        if not several:
            _require_one_process()
        code = main() or 0
    except UserError as error:
        reporter.error(f"error: {error}")
        code = error.exit_code
    except KeyboardInterrupt:
        reporter.error("interrupted")
        code = 130
    except BrokenPipeError:
        code = 141
    except OSError as error:
        reporter.error(f"error: {describe_os_error(error)}")
        code = 2
    except UnicodeEncodeError as error:
        cure = "rename it" if error.encoding == "utf-8" else "set PYTHONUTF8=1"
        reporter.error(f"error: {error.object[:200]!a} cannot be written in {error.encoding}; {cure}")
        code = 2
    except RuntimeError as error:
        if not is_killed_reader(error):
            raise
        reporter.error(f"error: {KILLED_READER} num_workers")
        code = 2
    if code and (files := sys.modules.get("utils.files")):  # not imported: nothing was written
        files.remove_empty_folders()
    code = _flushed(code)
    if several and process_count() > 1:
        # A thread of gloo or of autograd that needs Python while it shuts down would abort the process.
        if sys.stderr is not None:
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _flushed(code: int) -> int:
    """The exit code once standard output has taken everything; its own where it does not."""
    if sys.stdout is None:  # closed when the program was started
        return code
    try:
        sys.stdout.flush()
    except OSError as error:
        # Python would flush again at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return code or 141
        reporter.error(f"error: {describe_os_error(error, 'standard output')}")
        return code or 2
    return code


def _occupy_standard_descriptors() -> None:
    """Where a standard stream was closed, put nothing in its place: the next file would get its number, and with it
    whatever a library writes to that stream.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def process_count() -> int:
    """How many processes `torchrun` has started for this run; 1 without it."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def _require_one_process() -> None:
    if process_count() == 1:
        return
    if os.environ.get("RANK", "0") != "0":
        time.sleep(60)  # the first one says it, and ends the others
    raise ConfigError(f"{Path(sys.argv[0]).name} is one process: start it with python instead of torchrun")
