"""A Landsat scene to embeddings and maps.

    python embed_scene.py --scene LC08_L2SP_… --checkpoint weights/….pth --out outputs/scene

Writes `embeddings.tif` (a Cloud-Optimised GeoTIFF on the scene's own map projection), `quick_look.png` and
`scene.json` into --out; with --probe `land_cover.tif`, its picture, names and colours, and `probabilities.tif`; with
--labels a probe fitted on your own labels and its score as well; with --similar-to `similarity.tif`; with --reconstruct
`reconstruction.tif`; with --geoparquet `cells.parquet`; with --zarr `embeddings.zarr`; with --stac `stac_item.json`.
Interrupted, the same command goes on; where the embeddings are there already, only what is derived from them is made.
Files of an earlier run that a run does not make again go.
"""

import argparse
import math
import re
import sys
from contextlib import suppress
from datetime import date, time

from models.pooling import MAP_POOLINGS
from scenes.input.virtual_files import path_of
from scenes.settings import DTYPES, SceneSettings
from utils.arguments import ArgumentParser, user_path
from utils.data_config import DATASETS
from utils.errors import UserError, run_script
from utils.project_files import find_shipped

DEFAULT_BATCH = 64


def _pair(text: str) -> tuple[float, float]:
    try:
        first, second = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected two numbers A,B, got {text!r}") from None
    return first, second


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected whole numbers such as 2,3,4,5,6,7,8, got {text!r}") from None


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a date such as 2019-07-01, got {text!r}") from None


def _clock(text: str) -> time:
    try:
        clock = time.fromisoformat(text.removesuffix("Z"))
    except ValueError:
        clock = None
    if clock is None or clock.tzinfo is not None:
        raise argparse.ArgumentTypeError(f"expected a time of day (UTC) such as 09:52, got {text!r}")
    return clock


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0 and up to 1, got {text!r}")
    return share


def _joined(argv: list[str]) -> list[str]:
    """`--similar-to -8.3,37.6` as one word, since argparse takes the second for an option."""
    words: list[str] = []
    for word in argv:
        if words and words[-1] in ("--similar-to", "--scale") and re.fullmatch(r"-[\d.]+(e-?\d+)?,.*", word):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        ConfigError: for an unknown flag or an impossible value.
    """
    parser = ArgumentParser(description="Embed a Landsat 8 or 9 Collection-2 Level-2 scene and map what it shows.")
    add = parser.add_argument
    add(
        "--scene",
        required=True,
        type=path_of,
        metavar="PATH",
        help="a product's folder, .tar or .zip, a STAC item, a 7-band GeoTIFF; GeoTIFF and item also as https://…",
    )
    add("--checkpoint", required=True, type=user_path, metavar="FILE", help="weights, ours or published")
    add("--out", required=True, type=user_path, metavar="DIR", help="folder for the results")
    add("--stride", type=int, default=40, metavar="PIXELS", help="4, 8, 20 or 40 (default) pixels between windows")
    add("--cell", type=int, metavar="PIXELS", help="side of an output cell (default: 40 for stride 40, else 4)")
    add(
        "--pool",
        choices=MAP_POOLINGS,
        help="what a cell holds (default: the probe's, else the weights' own, or summary)",
    )
    add("--dtype", choices=DTYPES, default="float16", help="how embeddings are stored (default: %(default)s)")
    add("--batch-size", type=int, default=DEFAULT_BATCH, metavar="N", help="windows at once (default: %(default)s)")
    add("--min-clear", type=_share, default=0.5, metavar="SHARE", help="of a cell that must be visible (default: 0.5)")
    add(
        "--probe",
        type=find_shipped,
        metavar="FILE",
        help="a linear probe for a land-cover map: .npz, or .joblib (a pickle: read without running what it says)",
    )
    add(
        "--trust-pickle",
        action="store_true",
        help="run a .joblib that names other classes than a probe's: it can do anything, so only if it is your own",
    )
    add(
        "--truth",
        type=user_path,
        metavar="TIF",
        help="class indices on the scene's grid: scores the map, and gives labelled cells",
    )
    add(
        "--labels",
        type=user_path,
        metavar="FILE",
        help="your own: polygons, points (.csv) or a raster of classes; fits a probe on them, scores it and maps",
    )
    add("--column", metavar="NAME", help="where the classes stand in --labels (default: class, or the only column)")
    add("--similar-to", type=_pair, metavar="LON,LAT", help="map the similarity to the cell there (degrees)")
    add("--reconstruct", action="store_true", help="the reconstruction from a quarter of each window")
    add("--geoparquet", action="store_true", help="a table of the cells (needs pyarrow)")
    add("--zarr", action="store_true", help="the embeddings as a Zarr group (needs zarr)")
    add("--stac", action="store_true", help="a STAC item of the results, for catalogues")
    add(
        "--qa",
        type=path_of,
        metavar="TIF",
        help="QA_PIXEL of a stacked GeoTIFF (default: <name>_QA_PIXEL.tif beside it)",
    )
    add("--bands", type=_numbers, metavar="N,…", help="which bands of a stack are SR_B1..SR_B7, counted from 1")
    add("--scale", type=_pair, metavar="A,B", help="reflectance = value * A + B, where it is not Collection 2's")
    add("--date", type=_day, metavar="YYYY-MM-DD", help="day of acquisition (UTC), where the product does not say it")
    add("--time", type=_clock, metavar="HH:MM", help="time of day of acquisition (UTC), likewise")
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
    arguments = parser.parse_args(_joined(sys.argv[1:] if argv is None else argv))
    if arguments.batch_size < 1:
        parser.error(f"argument --batch-size: expected 1 or more, got {arguments.batch_size}")
    if arguments.scale and not (arguments.scale[0] > 0 and all(map(math.isfinite, arguments.scale))):
        stated = ",".join(f"{number:g}" for number in arguments.scale)
        parser.error(f"argument --scale: expected a finite factor above 0 and a finite offset, got {stated}")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Find, check, embed, derive; returns the exit code."""
    arguments = parse_arguments(argv)
    from scenes.input.product import SceneOptions, find_scene
    from scenes.run import SceneRun

    scene = find_scene(
        arguments.scene, SceneOptions(arguments.bands, arguments.scale, arguments.qa, arguments.date, arguments.time)
    )
    settings = SceneSettings(**{name: getattr(arguments, name) for name in SceneSettings._fields})
    was_there = settings.out.exists()
    try:
        SceneRun(scene, settings).execute()
    except UserError:
        if not was_there:
            with suppress(OSError):  # something has been made by then, which the next run goes on from
                settings.out.rmdir()
        raise
    return 0


if __name__ == "__main__":
    run_script(main)
