"""How long an embedding takes: `python -m release.latency --folder outputs/release`.

The model itself and the programs that `export.py` wrote with it, on the same synthetic patches, in turns, on one
thread.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from utils.arguments import user_path
from utils.errors import CheckpointError, ConfigError, run_script
from utils.reporting import reporter

if TYPE_CHECKING:
    import numpy as np

    from release.formats import Run

BATCHES = (1, 64)
TURNS = 9
"""Measured, after one that is not; the median counts."""


def measure(folder: Path, batches: tuple[int, ...] = BATCHES, turns: int = TURNS) -> dict[str, list[float]]:
    """Seconds a call: way of computing to the median for every batch size.

    Args:
        folder: written by `export.py`.
        batches: patches a call.
        turns: calls of each.

    Raises:
        CheckpointError: when it is another folder.
    """
    import numpy as np

    from models.api import DEFAULT_CROP
    from models.inference.digital_numbers import LandsatPatches
    from models.inference.embedding import embed_patches
    from models.inference.patch_input import read_input
    from models.moe_mae import MOEMAE
    from models.weights_folder import read_about
    from release.check import check_patches
    from release.formats import FORMATS
    from utils.metadata import unknown_columns, with_fields

    about = read_about(folder)
    try:
        pool, statistics_name = about["output"]["pool"], about["statistics"]["name"]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{folder}: its config says nothing of programs; give a folder of export.py") from error
    model = MOEMAE.from_pretrained(folder)
    patches = check_patches(model, pool, statistics_name)

    def by_model(pixels: np.ndarray, metadata: np.ndarray) -> np.ndarray:
        stored = LandsatPatches.of(read_input(pixels), model.config, None, DEFAULT_CROP, None)
        columns = with_fields(unknown_columns(len(pixels)), model.config.meta_fields, metadata)
        return embed_patches(model, stored, columns, pool, statistics_name, len(pixels))

    files = {name: folder / f"embed_{pool}{form.ending}" for name, form in FORMATS.items()}
    ways: dict[str, Run] = {"MOEMAE.embed": by_model}
    ways |= {name: FORMATS[name].load(path) for name, path in files.items() if path.exists()}
    medians: dict[str, list[float]] = {name: [] for name in ways}
    for batch in batches:
        rows = np.resize(np.arange(len(patches.pixels)), batch)
        inputs = patches.pixels[rows].astype(np.int32), patches.metadata[rows]
        for name, times in _in_turns(ways, inputs, turns).items():
            medians[name].append(statistics.median(times))
    return medians


def _in_turns(ways: "dict[str, Run]", inputs: "tuple[np.ndarray, np.ndarray]", turns: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name, run in ways.items():
            start = time.perf_counter()
            run(*inputs)
            if turn:
                times[name].append(time.perf_counter() - start)
    return times


def main(argv: list[str] | None = None) -> int:
    """Measure and print one table; returns the exit code."""
    parser = argparse.ArgumentParser(description="Time the model and its exported programs side by side.")
    parser.add_argument("--folder", required=True, type=user_path, metavar="DIR", help="written by export.py")
    parser.add_argument("--turns", type=int, default=TURNS, help="calls of each (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if arguments.turns < 1 or arguments.threads < 1:
        raise ConfigError("--turns and --threads are at least 1")
    import torch

    torch.set_num_threads(arguments.threads)
    medians = measure(arguments.folder, turns=arguments.turns)
    reporter.info(f"{'milliseconds a call':20s}" + "".join(f"{f'{batch} patches':>12s}" for batch in BATCHES))
    for name, seconds in medians.items():
        reporter.info(f"{name:20s}" + "".join(f"{1000 * value:12.1f}" for value in seconds))
    return 0


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
