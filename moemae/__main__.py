"""The command `moemae`: every script by a short name. `moemae pretrain …` is `python pretrain_mae.py …`."""

import difflib
import sys
from typing import NamedTuple

from utils.entry_points import load_named
from utils.errors import ConfigError, run_script
from utils.reporting import reporter


class Command(NamedTuple):
    """A script."""

    main: str
    """Module and function, which takes the command line and returns the exit code."""
    about: str
    several: bool = False
    """Whether processes started by `torchrun` may share its work."""


COMMANDS = {
    "pretrain": Command("pretrain_mae:main", "pretrain the masked autoencoder", several=True),
    "finetune": Command("finetune:main", "heads on labels of images or pixels, and maps"),
    "evaluate": Command("eval_mae:main", "reconstruction losses, baselines and panels"),
    "embed": Command("embed.compute_embed:main", "a dataset to embeddings", several=True),
    "probe": Command("train_logistic_regression:main", "fit and score a linear probe"),
    "scene": Command("embed_scene:main", "a Landsat scene to embeddings and maps"),
    "series": Command("embed_series:main", "several dates of one place to embeddings on one lattice"),
    "temporal": Command("temporal.pretrain:main", "pretrain the module that reads series"),
    "explore": Command("explore:main", "embeddings as one interactive page"),
    "reproduce": Command("reproduce:main", "every stage from data to one report"),
    "export": Command("export:main", "weights to a folder for others"),
    "weights": Command("models.weights_command:main", "check weights, or list those with a name"),
    "download": Command("datasets.download.__main__:main", "fetch a dataset from the Hugging Face hub"),
    "pack": Command("datasets.packed:main", "a dataset's images to one file"),
    "simulate": Command("datasets.simulated:main", "simulated patches and scenes"),
    "split": Command("eval.split_by_area:main", "split files by area"),
}


def main(argv: list[str]) -> int:
    """Start the script that the first word names, with the rest of the command line.

    Raises:
        ConfigError: for a word that names none.
    """
    name, *rest = argv or ["--help"]
    if name in ("-h", "--help"):
        reporter.info("usage: moemae COMMAND …; moemae COMMAND --help says what it takes\n")
        for known, command in COMMANDS.items():
            reporter.info(f"  {known:10s} {command.about}")
        return 0
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        nearest = f"did you mean {close[0]}? " if close else ""
        raise ConfigError(f"moemae {name}: no such command; {nearest}use one of {', '.join(COMMANDS)}")
    sys.argv = [f"moemae {name}", *rest]  # what help texts and records of results call this process
    return load_named(COMMANDS[name].main)(rest)


def command() -> None:
    """What an installation starts for `moemae`."""
    words = sys.argv[1:]
    several = bool(words) and words[0] in COMMANDS and COMMANDS[words[0]].several
    run_script(lambda: main(words), several=several)


if __name__ == "__main__":
    command()
