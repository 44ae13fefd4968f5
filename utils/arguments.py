"""The command line of scripts: what argparse refuses becomes a user-fixable error like any other.

Scripts read it first, and only then import what does the work: `--help` and a mistake are answered without waiting for
PyTorch.
"""

import argparse
from datetime import date
from pathlib import Path
from typing import NoReturn

from utils.errors import ConfigError


class ArgumentParser(argparse.ArgumentParser):
    """argparse, but a mistake on the command line is one line without the usage text."""

    def error(self, message: str) -> NoReturn:
        """Called by argparse.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{message}; see --help")


def user_path(text: str) -> Path:
    """A path as a user writes it; `~` is the home folder, also where a shell leaves it (`--out=~/maps`)."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # `~name` of nobody
        return Path(text)


def day_of(text: str) -> date:
    """A day as a user writes it.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a date such as 2019-07-01, got {text!r}") from None


def config_parser(description: str, reads: str) -> argparse.ArgumentParser:
    """The command line that all YAML scripts share: `--config_yaml FILE`, `--set key.sub=value`, `--help`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config_yaml", required=True, metavar="FILE", help=f"the configuration ({reads})")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY.SUB=VALUE",
        help="replace one value of the configuration; the value counts as written; may be repeated",
    )
    return parser
