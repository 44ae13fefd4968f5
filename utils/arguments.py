"""The command line of scripts: what argparse refuses becomes a user-fixable error like any other."""

import argparse
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
