"""Messages of a run: the logger `moemae` of Python's `logging`, configured by scripts only.

    from utils.reporting import reporter

    reporter.info(f"written: {path}")

Results and progress are `info`, on standard output; warnings and errors go to standard error. Without `configure`
(a notebook, another program) `info` is silent, and a program can attach handlers of its own.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

reporter = logging.getLogger("moemae")


class _ConsoleHandler(logging.Handler):
    """Bare messages to the standard stream that is current when they come, so that redirections hold."""

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stdout if record.levelno < logging.WARNING else sys.stderr
        if stream is not None:  # there is none under pythonw
            stream.write(record.getMessage() + "\n")
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
