"""Options that the commands on scenes share, and how their values are read from a command line."""

import argparse
import math
import re
from datetime import time

from models.pooling import MAP_POOLINGS
from transformation.cross_sensor import ETM_TO_OLI
from utils.data_config import DATASETS
from utils.sensors import TAKEN

DEFAULT_BATCH = 64


def pair(text: str) -> tuple[float, float]:
    """Two numbers A,B."""
    try:
        first, second = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected two numbers A,B, got {text!r}") from None
    return first, second


def whole_numbers(text: str) -> tuple[int, ...]:
    """Whole numbers N,N,…"""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected whole numbers such as 2,3,4,5,6,7,8, got {text!r}") from None


def bands_of(text: str) -> tuple[int, ...] | tuple[str, ...]:
    """Whole numbers N,N,… or names of bands."""
    if not any(map(str.isdigit, text)) or re.search(r"[A-Za-z]", text):
        return tuple(part.strip() for part in text.split(","))
    return whole_numbers(text)


def clock_of(text: str) -> time:
    """A time of day (UTC)."""
    try:
        clock = time.fromisoformat(text.removesuffix("Z"))
    except ValueError:
        clock = None
    if clock is None or clock.tzinfo is not None:
        raise argparse.ArgumentTypeError(f"expected a time of day (UTC) such as 09:52, got {text!r}")
    return clock


def share_of(text: str) -> float:
    """A number above 0 and up to 1."""
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0 and up to 1, got {text!r}")
    return share


def joined(argv: list[str], options: tuple[str, ...]) -> list[str]:
    """`--similar-to -8.3,37.6` as one word for some options, since argparse takes the second for an option."""
    words: list[str] = []
    for word in argv:
        if words and words[-1] in options and re.fullmatch(r"-[\d.]+(e-?\d+)?,.*", word):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def add_cell_options(parser: argparse.ArgumentParser) -> None:
    """What decides which cells a scene has."""
    add = parser.add_argument
    add("--stride", type=int, default=40, metavar="PIXELS", help="4, 8, 20 or 40 (default) pixels between windows")
    add("--cell", type=int, metavar="PIXELS", help="side of an output cell (default: 40 for stride 40, else 4)")
    add(
        "--pool",
        choices=MAP_POOLINGS,
        help="what a cell holds (default: the probe's, else the weights' own, or summary)",
    )
    add("--batch-size", type=int, default=DEFAULT_BATCH, metavar="N", help="windows at once (default: %(default)s)")
    add(
        "--min-clear",
        type=share_of,
        default=0.5,
        metavar="SHARE",
        help="of a cell that must be visible (default: 0.5)",
    )


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """How files are to be read that do not say it themselves."""
    add = parser.add_argument
    add("--bands", type=bands_of, metavar="N,…", help="which bands of a stack are those of the sensor, counted from 1; "
        "or the names of all its bands: blue,green,red,nir08,…, other for those that are not to be taken")  # fmt: skip
    add("--sensor", choices=[sensor.name for sensor in TAKEN], help="of a scene whose files do not say it: oli "
        "(Landsat 8 and 9), etm (7), tm (4 and 5)")  # fmt: skip
    add("--adjust-to-oli", choices=ETM_TO_OLI, help="turn reflectance of ETM+ and TM into OLI's by lines of Roy et al. "
        "2016 (default: not)")  # fmt: skip
    add("--scale", type=pair, metavar="A,B", help="reflectance = value * A + B, where it is not Collection 2's")


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """How the model is fed and run."""
    add = parser.add_argument
    add("--statistics", choices=DATASETS, help="whose mean and spread to normalise with (default: the probe's, "
        "else bigearthnet_ls)")  # fmt: skip
    add(
        "--metadata",
        choices=("auto", "none"),
        default="auto",
        help="none: do not condition the model on time and place",
    )
    add("--device", default="auto", help="auto (default), cpu, cuda, cuda:N or mps")
    add("--amp", choices=("false", "bf16"), default="false", help="mixed precision (default: false)")
    add("--compile", choices=("auto", "on", "off"), default="auto", help="compile the model (default: auto)")
    add("--backend", default="torch", metavar="NAME", help="what computes on a CPU: torch (default), folded, "
        "onnxruntime, onnxruntime-int8, openvino or auto")  # fmt: skip


def check_options(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse values that no option says by its type. Raises ConfigError."""
    if arguments.batch_size < 1:
        parser.error(f"argument --batch-size: expected 1 or more, got {arguments.batch_size}")
    if arguments.scale and not (arguments.scale[0] > 0 and all(map(math.isfinite, arguments.scale))):
        stated = ",".join(f"{number:g}" for number in arguments.scale)
        parser.error(f"argument --scale: expected a finite factor above 0 and a finite offset, got {stated}")
