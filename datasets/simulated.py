"""Simulated Landsat patches in the published layouts of BigEarthNet-Landsat and EuroSAT-Landsat, and whole scenes.

    python -m datasets.simulated --kind bigearthnet --out DIR --patches 2000 --seed 0
    python -m datasets.simulated --kind eurosat --out DIR --patches 500 --seed 0
    python -m datasets.simulated --kind scene --out DIR --size 7700 --seed 0
    python -m datasets.simulated --kind scene --out DIR --size 600 --dates 12 --phenology --changed 0.1
    python -m datasets.simulated --kind scene --out DIR --size 7700 --seed 0 --sensor tm --year 1984
    python -m datasets.simulated --kind bigearthnet --out DIR --patches 2000 --seed 0 --sensor msi
    python -m datasets.simulated --kind bigearthnet --out DIR --patches 2000 --seed 0 --variant realistic

No satellite took these patches. They exist so that the whole pipeline can be tried, tested and timed without the
downloads, on data with the same files, the same difficulties and about the same answers to simple predictors.

What they are made of, each part with its constants in `simulated_constants.py`:

- scenes with a place, a date and their own mix of land cover (`simulator/overpasses.py`, `simulator/places.json`);
- land cover laid out in coherent fields, with class spectra calibrated on 120 real patches (`simulator/spectra.json`;
  classes seen in fewer than 10 of them have assumed spectra, marked so);
- season by week and latitude, light by hour, week and latitude, soil and moisture, texture by class, haze, snow, cloud
  and sensor noise (`simulated_landscape.py`);
- the sensor: OLI, or what TM and ETM+ see of the same land, ETM+ with its gaps as well (`simulator/instruments.py`), or
  the 12 bands of Sentinel-2's MSI at 30 m, where red edge is assumed (`simulator/sentinel2.py`);
- labels from the map, which is not always what the ground shows (`draw_surfaces`);
- for `--variant realistic`, other pixels of the same land (`simulator/realistic.py`).

Micro mAP of logistic regression (C = 1, standardised, one-vs-rest on the 19 classes), 2,000 patches to fit and 2,000
others to test, by `python -m datasets.simulated --baselines --seed 0`; "real" is of 80 held-out real patches with 119
others to fit:

    predictor                            simulated   real
    prior                                     32.4   33.2
    28 image statistics                       52.0   53.7
    metadata                                  51.1   53.7
    statistics + metadata                     64.2   63.1
    oracle: true surfaces + metadata          80.3
    oracle: mapped cover                      99.6

The first oracle sees what covers the ground, as a perfect pixel classifier would, beside place and time: the room that
a good encoder has. The second sees the map that the labels follow. Filling in masked parts is about as hard as on real
patches too (`eval_mae.py`; squared error summed over the 112 values of a 4 x 4 patch, mask 0.75, 2,000 patches of seed
0): dataset mean 101, each image's visible mean 28, interpolation 17; on 119 real patches 137, 33 and 23.

`--calibrate DIR` recomputes `simulator/spectra.json` from real patches in DIR/images and DIR/labels.
"""

import argparse
import time
from datetime import date
from typing import TYPE_CHECKING

from datasets.simulator.constants import STANDARD, VARIANTS
from datasets.simulator.instruments import MISSIONS, USUAL, Observation
from utils.arguments import day_of, user_path
from utils.data_config import DATASETS
from utils.entry_points import lazy_names
from utils.errors import ConfigError, run_script
from utils.reporting import reporter
from utils.sensors import MSI

if TYPE_CHECKING:
    import torch

    from datasets.simulator.patches import SimulatedPatches, simulate, simulate_chunks

__all__ = ["SimulatedPatches", "main", "simulate", "simulate_chunks", "split_counts"]

_PATCHES = "datasets.simulator.patches"
__getattr__ = lazy_names(
    __name__, f"{_PATCHES}:SimulatedPatches", f"{_PATCHES}:simulate", f"{_PATCHES}:simulate_chunks"
)

DATASET_OF = {info.SIMULATOR: info for info in DATASETS.values() if info.SIMULATOR}
"""Kind to the dataset in whose layout patches are written."""

KINDS = (*DATASET_OF, "scene")
MOST_DATES = 1000
SMALLEST_SCENE = 64
"""Pixels; less is no scene."""
OF_SERIES = ("phenology", "changed", "changed_on")
"""Options that need --dates."""
BASELINE_PATCHES = 2000
"""Patches to fit the baselines on, and as many others to test them on."""


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    options = _parser().parse_args(arguments)
    if options.calibrate:
        from datasets.simulator.calibration import calibrate

        for name, count in calibrate(options.calibrate).items():
            reporter.info(f"{count:4d} real patches  {name}")
    elif options.baselines:
        from datasets.simulator.baselines import baseline_inputs, baseline_table
        from datasets.simulator.patches import simulate_chunks

        chunks = simulate_chunks(2 * BASELINE_PATCHES, options.seed, _device(options.device), variant=options.variant)
        for name, score in baseline_table(*baseline_inputs(chunks).split(BASELINE_PATCHES)).items():
            reporter.info(f"{name:35s} {score:5.1f}")
    elif options.kind == "scene":
        _write_scene(options) if options.dates is None else _write_series(options)
    else:
        _write(options)
    return 0


def _parser() -> argparse.ArgumentParser:
    """The command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m datasets.simulated",
        description="Write simulated Landsat patches in the published layout of BigEarthNet-L or EuroSAT-L.",
    )
    parser.add_argument("--kind", choices=KINDS, help="the layout to write")
    parser.add_argument(
        "--out", type=user_path, metavar="DIR", help="folder to write; replaced if it is a simulated one"
    )
    parser.add_argument("--patches", type=int, metavar="N", help="how many patches")
    parser.add_argument("--size", type=int, metavar="PIXELS", help="height and width of a scene (a real one: 7700)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="same seed, same patches (default 0)")
    parser.add_argument("--splits", type=float, nargs=3, metavar=("TRAIN", "VAL", "TEST"),
                        help="counts that sum to N or fractions that sum to 1 (default: published shares)")  # fmt: skip
    parser.add_argument("--device", default="cpu", help="where to generate: cpu (default), cuda, cuda:1, …")
    parser.add_argument("--variant", choices=VARIANTS, default=STANDARD,
                        help="of patches: realistic has the same land in pixels nearer to real ones")  # fmt: skip
    parser.add_argument("--sensor", choices=MISSIONS, default=USUAL.sensor.name,
                        help="what sees scenes and BigEarthNet patches (default: oli)")  # fmt: skip
    parser.add_argument("--year", type=int, metavar="Y",
                        help="the same day in another year (default: 2017 or 2018)")  # fmt: skip
    parser.add_argument("--slc-off", action="store_true", help="ETM+ with the gaps that it has since 31 May 2003")
    parser.add_argument("--dates", nargs="+", metavar="N|DATE",
                        help="the scene's place on N dates over a year or on these: a folder for each")  # fmt: skip
    parser.add_argument("--phenology", action="store_true",
                        help="with --dates: crops and forests with calendars of their own")  # fmt: skip
    parser.add_argument("--changed", type=float, metavar="SHARE",
                        help="with --dates: share of the parcels whose land cover changes")  # fmt: skip
    parser.add_argument("--changed-on", type=day_of, metavar="DATE",
                        help="when they change (default: the middle one of the dates)")  # fmt: skip
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--baselines", action="store_true", help="print the table of baselines and write nothing")
    other.add_argument("--calibrate", type=user_path, metavar="DIR",
                       help="recompute simulator/spectra.json from the real patches in DIR")  # fmt: skip
    return parser


def _write(options: argparse.Namespace) -> None:
    """Simulate and write a dataset."""
    for name in ("kind", "out", "patches"):
        if getattr(options, name) is None:
            raise ConfigError(f"--{name} is required to write patches; see --help")
    for name in ("dates", *OF_SERIES):
        if getattr(options, name):
            raise ConfigError(f"--{name.replace('_', '-')} is for --kind scene; leave it out")
    if options.patches < 3:
        raise ConfigError(f"--patches {options.patches}: give at least 3, one for each split")
    counts = split_counts(options.patches, options.splits, options.kind)
    from datasets.simulator.constants import CONSTANTS
    from datasets.simulator.patch_writer import check_target, write_bigearthnet, write_eurosat
    from datasets.simulator.patches import simulate_chunks
    from datasets.simulator.sentinel2 import NOISELESS

    device, observation = _device(options.device), _observation(options)
    check_target(options.out)
    # MSI has noise of its own.
    constants = NOISELESS if observation.sensor is MSI else CONSTANTS
    if options.variant != STANDARD and observation.sensor is MSI:
        raise ConfigError(f"--variant {options.variant}: is for Landsat's sensors; leave it out or --sensor msi")
    chunks = simulate_chunks(options.patches, options.seed, device, options.kind, constants, variant=options.variant)
    start = time.perf_counter()
    readme = _readme(options, counts, observation)
    if options.kind == "bigearthnet":
        write_bigearthnet(options.out, chunks, counts, readme, observation, options.seed)
    elif observation != USUAL:
        raise ConfigError("--sensor, --year and --slc-off are for scenes and BigEarthNet patches; leave them out")
    else:
        write_eurosat(options.out, chunks, counts, readme)
    reporter.info(f"wrote {options.patches} simulated patches ({' / '.join(map(str, counts))}) to {options.out} "
          f"in {time.perf_counter() - start:.1f} s")  # fmt: skip


def _check_scene(options: argparse.Namespace) -> None:
    """Raise unless the options describe a scene."""
    for name in ("out", "size"):
        if getattr(options, name) is None:
            raise ConfigError(f"--{name} is required to write a scene; see --help")
    for name in ("patches", "splits"):
        if getattr(options, name) is not None:
            raise ConfigError(f"--{name} is for patches; a scene takes --size")
    if options.variant != STANDARD:
        raise ConfigError(f"--variant {options.variant}: is for patches; leave it out")
    if options.sensor == MSI.name:
        raise ConfigError("--sensor msi: is for --kind bigearthnet; no scenes of Sentinel-2 are simulated")
    if options.size < SMALLEST_SCENE:
        raise ConfigError(f"--size {options.size}: give at least {SMALLEST_SCENE} pixels")


def _write_scene(options: argparse.Namespace) -> None:
    """Simulate and write a scene."""
    _check_scene(options)
    for name in OF_SERIES:
        if getattr(options, name):
            raise ConfigError(f"--{name.replace('_', '-')} is for a series; give --dates as well")
    from datasets.simulator.scene import SimulatedScene
    from datasets.simulator.scene_writer import write_scene

    start = time.perf_counter()
    scene = SimulatedScene(options.size, options.seed, _device(options.device), observation=_observation(options))
    product = write_scene(options.out, scene)
    reporter.info(f"wrote the simulated scene {product} to {options.out} in {time.perf_counter() - start:.1f} s")


def _observation(options: argparse.Namespace) -> Observation:
    return Observation.chosen(options.sensor, options.year, options.slc_off)


def _write_series(options: argparse.Namespace) -> None:
    """Simulate and write a place on several dates."""
    _check_scene(options)
    if options.year is not None:
        raise ConfigError("--year: the year of a series is that of its dates; leave it out")
    from datasets.simulator.series import Change, History
    from datasets.simulator.series_writer import write_series

    dates, change = _dates(options.dates), None
    if options.changed is not None:
        if not 0 < options.changed <= 1:
            raise ConfigError(f"--changed {options.changed:g}: expected a share above 0, at most 1")
        change = Change(options.changed, options.changed_on or sorted(dates)[len(dates) // 2])
    elif options.changed_on is not None:
        raise ConfigError("--changed-on: give --changed SHARE as well")
    seen = [Observation.chosen(options.sensor, day.year, options.slc_off) for day in dates]
    start = time.perf_counter()
    history, device = History(options.phenology, change), _device(options.device)
    folders = write_series(options.out, options.size, options.seed, dates, history, device, seen[0])
    reporter.info(f"wrote a simulated place on {len(folders)} dates ({folders[0]} to {folders[-1]}) to {options.out} "
                  f"in {time.perf_counter() - start:.1f} s")  # fmt: skip


def _dates(given: list[str]) -> list[date]:
    """The dates of --dates: their number, or themselves."""
    if len(given) == 1 and given[0].isdecimal():
        if not 1 <= int(given[0]) <= MOST_DATES:
            raise ConfigError(f"--dates {given[0]}: give a number from 1 to {MOST_DATES}")
        from datasets.simulator.series import spread_dates

        return spread_dates(int(given[0]))
    try:
        return [date.fromisoformat(text) for text in given]
    except ValueError:
        raise ConfigError(f"--dates {' '.join(given)}: expected a number or dates such as 2021-07-01") from None


def split_counts(patches: int, splits: list[float] | None, kind: str) -> tuple[int, int, int]:
    """Patches of the train, validation and test split.

    Args:
        patches: how many there are.
        splits: three counts that sum to `patches`, or three fractions that sum to 1; None: the published shares.
        kind: "bigearthnet" or "eurosat".

    Raises:
        ConfigError: they do neither, or a split would be empty.
    """
    from datasets.simulator.patch_writer import SPLITS

    if splits is None:
        published = DATASET_OF[kind].SPLIT_SIZES
        splits = [published[name] / sum(published.values()) for name in SPLITS]
    given = " ".join(f"{value:g}" for value in splits)
    if abs(sum(splits) - 1) < 1e-6:
        train, val = (round(patches * share) for share in splits[:2])
    elif sum(splits) == patches and all(value == int(value) for value in splits):
        train, val = (int(value) for value in splits[:2])
    else:
        raise ConfigError(f"--splits {given}: give three counts that sum to {patches} or three fractions that sum to 1")
    counts = (train, val, patches - train - val)
    if min(counts) < 1:
        raise ConfigError(f"--splits {given}: every split needs at least one of the {patches} patches")
    return counts


def _device(name: str) -> "torch.device":
    """A usable device, tried out."""
    import torch

    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {name}: not usable here; use cpu or cuda") from error
    return device


def _readme(options: argparse.Namespace, counts: tuple[int, int, int], observation: Observation) -> str:
    """README.md of the written folder."""
    import torch

    from datasets.simulator.patch_writer import MARK

    command = f"python -m datasets.simulated --kind {options.kind} --out DIR --patches {options.patches}"
    command += f" --seed {options.seed} --splits {' '.join(map(str, counts))}"
    command += observation.options
    if options.variant != STANDARD:
        command += f" --variant {options.variant}"
    if torch.device(options.device).type != "cpu":
        command += f" --device {options.device}"
    return README.format(mark=MARK, layout=DATASET_OF[options.kind].TITLE, command=command)


README = """{mark}

These {layout} patches are **simulated**: no satellite took them. Positions, dates, land cover and
pixels come from a stated random model (`datasets/simulated.py`). Use them to try the code, not to learn about the
Earth.

Made by

```
{command}
```
"""


if __name__ == "__main__":
    run_script(main)
