"""Messages of a run: the logger `moemae` of Python's `logging`, configured by scripts only.

    from utils.reporting import reporter

    reporter.info(f"written: {path}")

Messages are `info`, on standard output; warnings, errors and the `progress` of a command whose output is its result go
to standard error. Without `configure`
(a notebook, another program) `info` is silent, and a program can attach handlers of its own.
"""

import logging
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

reporter = logging.getLogger("moemae")

PROGRESS = "progress"
"""Attribute of a record that goes to standard error although nothing is wrong."""


def size_text(count: int) -> str:
    """A number of bytes for a message, rounded up: "1.3 GB", "45.1 kB"."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{math.ceil(10 * count / size) / 10:.1f} {unit}"
    return f"{count} bytes"


def progress(message: str) -> None:
    """What a command is at, beside the result on its standard output."""
    reporter.info(message, extra={PROGRESS: True})


_COMMANDS = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), 127, *range(128, 160))}
"""Control characters but for tabulator and line feed, as names of files may hold them."""


class _ConsoleHandler(logging.Handler):
    """Bare messages to the standard stream that is current when they come, so that redirections hold."""

    def emit(self, record: logging.LogRecord) -> None:
        aside = record.levelno >= logging.WARNING or getattr(record, PROGRESS, False)
        stream = sys.stderr if aside else sys.stdout
        if stream is not None:  # there is none under pythonw
            encoding = getattr(stream, "encoding", None) or "utf-8"
            # What a terminal has no letters for, or takes for a command, is shown as an escape.
            message = record.getMessage().translate(_COMMANDS)
            stream.write(message.encode(encoding, "backslashreplace").decode(encoding) + "\n")
            stream.flush()


def configure(level: int = logging.INFO) -> None:
    """Show messages from `level` on the console; called by every script, any number of times."""
    if not any(isinstance(handler, _ConsoleHandler) for handler in reporter.handlers):
        reporter.addHandler(_ConsoleHandler())
    reporter.setLevel(level)
    reporter.propagate = False


@contextmanager
def reporting_into(path: Path) -> Iterator[None]:
    """Append `info` messages to a file instead of showing them; warnings and errors are shown as well."""
    file = logging.FileHandler(path, encoding="utf-8")
    level, handlers = reporter.level, list(reporter.handlers)
    raised = [(handler, handler.level) for handler in handlers]
    for handler in handlers:
        handler.setLevel(max(handler.level, logging.WARNING))
    reporter.addHandler(file)
    reporter.setLevel(min(level, logging.INFO) or logging.INFO)
    try:
        yield
    finally:
        reporter.removeHandler(file)
        reporter.setLevel(level)
        for handler, before in raised:
            handler.setLevel(before)
        file.close()
