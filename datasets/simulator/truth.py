"""What covers the ground under simulated patches, pixel by pixel: simulated again, since no dataset's files hold it."""

import re
import shlex
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from datasets.patches import find_split, read_split
from datasets.simulator.constants import CENTRE, CHUNK
from datasets.simulator.patch_writer import MARK, SPLITS
from datasets.simulator.patches import simulate_chunk
from utils.data_config import BigEarthNetInfo
from utils.errors import DataError

NO_CLASS = -1
"""Land cover that is none of the 19 classes."""

_COMMAND = re.compile(r"^python -m (?:\w+\.)?datasets\.simulated .*--kind bigearthnet .*$", re.MULTILINE)


def ground_truth(folder: Path, ids: Sequence[str]) -> np.ndarray:
    """The class that covers most of each pixel of simulated patches; under a cloud or snow, what lies below.

    Args:
        folder: as written by `python -m datasets.simulated --kind bigearthnet`, with its split files and README.
        ids: of the patches wanted.

    Returns:
        (n, 40, 40) int16 index of the 19 classes, `NO_CLASS` elsewhere; the centre of the patches, as
        `crop: center` takes it.

    Raises:
        DataError: when the folder does not say how it was made, or holds other patches than that.
    """
    options = _command(folder)
    if options is None:
        raise DataError(f"{folder}: has no README.md with the command that simulated it, so its truth is not known")
    order = [name for split in SPLITS for name in read_split(find_split(f"bigearthnet-{split}.csv", folder))]
    place_of = {name: index for index, name in enumerate(order)}
    if strangers := [name for name in ids if name not in place_of]:
        raise DataError(f"{folder}: its split files do not list {strangers[0]}, so its truth is not known")
    wanted = np.array([place_of[name] for name in ids])
    class_of = np.full(len(BigEarthNetInfo.CORINE), NO_CLASS, np.int16)
    class_of[list(BigEarthNetInfo.CORINE_TO_CLASS)] = list(BigEarthNetInfo.CORINE_TO_CLASS.values())
    side = CENTRE.stop - CENTRE.start
    ground = np.empty((len(ids), side, side), np.int16)
    for number in np.unique(wanted // CHUNK):
        chunk = simulate_chunk(int(number), int(options["--seed"]), options.get("--device", "cpu"))
        rows = np.flatnonzero(wanted // CHUNK == number)
        within = wanted[rows] % CHUNK
        columns, lines = (chunk.places[field][within].tolist() for field in (1, 2))
        for row, column, line in zip(rows.tolist(), columns, lines, strict=True):
            if ids[row].rsplit("_", 2)[1:] != [str(column), str(line)]:
                raise DataError(f"{folder}: {ids[row]} is not what its README's command simulates; write it anew")
        ground[rows] = class_of[chunk.ground[within].cpu().numpy()[:, CENTRE, CENTRE]]
    return ground


def _command(folder: Path) -> dict[str, str] | None:
    """Option to value of the command in a dataset's README, or in that of the folder above."""
    for readme in (folder / "README.md", folder.parent / "README.md"):
        text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
        if text.startswith(MARK) and (found := _COMMAND.search(text)):
            words = shlex.split(found.group())
            return dict(pairwise(words))
    return None
