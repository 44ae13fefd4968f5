"""A simulated place on several dates as Collection-2 Level-2 folders, with the truth beside them."""

import json
import shutil
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch

from datasets.simulator.instruments import USUAL, Observation
from datasets.simulator.phenology import NO_TYPE, TYPES
from datasets.simulator.scene import NO_CLASS
from datasets.simulator.scene_writer import COMMAND, PROFILE, write_scene
from datasets.simulator.series import DatedScene, History
from utils.data_config import SIMULATED_MARK
from utils.errors import ConfigError, DataError
from utils.files import replaced_folder, write_text

RECORD = "series.json"
TRUTHS = ("before.tif", "after.tif", "changed.tif", "growth.tif")

README = """{mark}

One **simulated** place on {count} dates: no satellite took it. Every folder named by a date is a scene of its own (its
README.md and truth.tif say what it is). The land is the same on all of them but for what `series.json` states;
moisture, haze, clouds and noise are drawn anew for every date (`datasets/simulator/series.py`).

- `growth.tif` (with --phenology): which crop or kind of wood grows there, an index of the names in its tags
  ({no_type}: neither)
- `before.tif`, `after.tif` (with --changed): land cover as in truth.tif before and since the change; `changed.tif`: 1
  where they differ

Made by

```
{command}
```
"""


def write_series(
    out: Path,
    size: int,
    seed: int,
    dates: list[date],
    history: History | None = None,
    device: torch.device | str = "cpu",
    observation: Observation = USUAL,
) -> list[str]:
    """Write a place on several dates into the folder `out`, a folder named by its date for each.

    Args:
        out: replaced as a whole if it is an earlier simulated series.
        size, seed, device: as for `SimulatedScene`.
        dates: any order; written from the first to the last.
        history: growth types and a change.
        observation: by which sensor the place is seen.

    Returns:
        The names of the folders.

    Raises:
        ConfigError: a date is given twice, or a change has no date before it or since it.
        DataError: `out` holds something else.
        UserError: nothing can be written there. Nothing half-written is left.
    """
    history, dates = history or History(), sorted(dates)
    _check(dates, history)
    _check_target(out)
    command = _command(size, seed, dates, history, observation)
    with replaced_folder(out) as folder:
        for day in dates:
            scene = DatedScene(size, seed, day, history, device, observation=observation)
            write_scene(folder / str(day), scene, command)
        record = {"mark": SIMULATED_MARK, "size": size, "seed": seed, "dates": list(map(str, dates)),
                  "phenology": history.phenology}  # fmt: skip
        if history.phenology:
            _write_growth(folder, DatedScene(size, seed, dates[0], history, device), str(dates[0]))
        if history.change is not None:
            on = history.change.on
            share = _write_change(folder, str(max(day for day in dates if day < on)), str(dates[-1]))
            record |= {"changed_on": str(on), "changed_parcels": history.change.share, "changed_pixels": share}
        write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")
        text = README.format(mark=SIMULATED_MARK, count=len(dates), no_type=NO_TYPE, command=command)
        write_text(folder / "README.md", text)
    return list(map(str, dates))


def _check(dates: list[date], history: History) -> None:
    """Raise on dates that make no series."""
    for first, second in pairwise(dates):
        if first == second:
            raise ConfigError(f"--dates: {first} is given twice")
    change = history.change
    if change is not None and not dates[0] < change.on <= dates[-1]:
        raise ConfigError(f"--changed-on {change.on}: give a day after the first date ({dates[0]}), "
                          f"at the latest the last ({dates[-1]})")  # fmt: skip


def _check_target(out: Path) -> None:
    """Refuse a folder that holds anything but an earlier series."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; --out needs a folder")
    names = {entry.name for entry in out.iterdir()} if out.is_dir() else set()
    foreign = sorted(name for name in names - {"README.md", RECORD, *TRUTHS} if not _is_date(name))
    if foreign or (names and RECORD not in names):
        raise DataError(f"{out}: holds {(foreign or sorted(names))[0]}, which is no part of a simulated series; "
                        "choose another --out or empty it")  # fmt: skip


def _is_date(name: str) -> bool:
    try:
        date.fromisoformat(name)
    except ValueError:
        return False
    return True


def _write_growth(folder: Path, scene: DatedScene, first: str) -> None:
    """growth.tif: the growth type of every pixel, as it is on the first date."""
    assert scene.phenology is not None
    with rasterio.open(folder / first / "truth.tif") as file:
        profile, truth = _profile(file), file.read(1)
    profile["nodata"] = NO_TYPE
    with rasterio.open(folder / "growth.tif", "w", **profile) as file:
        file.write(scene.phenology.types(0, truth), 1)
        file.update_tags(types=json.dumps([kind.name for kind in TYPES]))


def _write_change(folder: Path, before: str, after: str) -> float:
    """before.tif, after.tif and changed.tif; returns the share of the pixels with land cover that have changed."""
    covers = []
    for name, day in (("before.tif", before), ("after.tif", after)):
        shutil.copyfile(folder / day / "truth.tif", folder / name)
        with rasterio.open(folder / name) as file:
            covers.append(file.read(1))
            profile = _profile(file)
    changed = covers[0] != covers[1]
    with rasterio.open(folder / "changed.tif", "w", **profile) as file:
        file.write(changed.astype(np.uint8), 1)
    return float(changed.sum() / max(1, (covers[0] != NO_CLASS).sum()))


def _profile(file: Any) -> dict[str, Any]:
    """Of a raster of one byte a pixel on the grid of `file`."""
    grid = {name: file.profile[name] for name in ("width", "height", "crs", "transform")}
    return {**PROFILE, **grid, "count": 1, "dtype": "uint8"}


def _command(size: int, seed: int, dates: list[date], history: History, observation: Observation) -> str:
    """The command that writes the series again."""
    command = COMMAND.format(size=size, seed=seed, seen=observation._replace(year=None).options)
    command += f" --dates {' '.join(map(str, dates))}"
    command += " --phenology" if history.phenology else ""
    if history.change is not None:
        command += f" --changed {history.change.share:g} --changed-on {history.change.on}"
    return command
