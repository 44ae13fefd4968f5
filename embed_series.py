"""Several dates of one place to embeddings on one lattice.

    python embed_series.py --scenes SCENE SCENE … --checkpoint weights/….pth --out outputs/series

Scenes are what `embed_scene.py` takes, or one folder that holds several of them. Writes `embeddings_<time>.tif` for
every date (Cloud-Optimised GeoTIFFs with the cells that `embed_scene.py` gives, all on one lattice), `quick_look.png`
and `series.json` into --out; with --format zarr or both one Zarr group of all dates, `embeddings.zarr`. Interrupted,
the same command goes on; dates that are there already are kept, so that a series grows date by date.
"""

import argparse
import sys
from datetime import datetime

from scenes.input.virtual_files import path_of
from scenes.options import add_cell_options, add_model_options, add_reading_options, check_options, joined, share_of
from scenes.series.settings import EXTENTS, FORMATS, SHIPPED_VECTOR, SeriesSettings
from utils.arguments import ArgumentParser, user_path
from utils.errors import run_script


def _moment(text: str) -> datetime | str:
    """A day, kept as text so that no time of day is made up, or a moment (UTC)."""
    try:
        moment = datetime.fromisoformat(text.removesuffix("Z"))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is not None:
        raise argparse.ArgumentTypeError(f"expected a date or a moment (UTC) such as 2019-07-01T09:52, got {text!r}")
    return moment if "T" in text or " " in text else text


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        ConfigError: for an unknown flag or an impossible value.
    """
    parser = ArgumentParser(description="Embed several dates of one place on one lattice.")
    add = parser.add_argument
    add(
        "--scenes",
        required=True,
        nargs="+",
        type=path_of,
        metavar="PATH",
        help="scenes as embed_scene.py takes them, in any order, or one folder that holds several",
    )
    add("--checkpoint", required=True, type=user_path, metavar="FILE", help="weights, ours or published")
    add("--out", required=True, type=user_path, metavar="DIR", help="folder for the results")
    add("--format", choices=FORMATS, default="cog", help="a GeoTIFF a date, one Zarr group, or both (default: cog)")
    add("--extent", choices=EXTENTS, default="union", help="whose ground is in the results (default: union)")
    add("--like", type=user_path, metavar="TIF", help="a raster whose ground is wanted, in the scenes' map projection")
    add(
        "--dates",
        nargs="+",
        type=_moment,
        metavar="DATE",
        help="days or moments (UTC) of acquisition, one a scene in their order, where the scenes do not say them",
    )
    add(
        "--change",
        nargs=2,
        metavar=("BEFORE", "AFTER"),
        help="two dates of the series: a map of what has changed, with p-values",
    )
    add(
        "--null",
        nargs="+",
        metavar="DATE",
        help="dates between which nothing has changed, for the p-values (default: pairs of one season)",
    )
    add(
        "--fdr",
        type=share_of,
        default=0.1,
        metavar="SHARE",
        help="of false discoveries among the cells that are called changed (default: 0.1)",
    )
    add(
        "--vector",
        nargs="?",
        const=SHIPPED_VECTOR,
        metavar="FILE",
        help="one vector a cell for the whole series, by the temporal module (default: the weights that come along)",
    )
    add_cell_options(parser)
    add_reading_options(parser)
    add_model_options(parser)
    words = sys.argv[1:] if argv is None else argv
    arguments = parser.parse_args(joined(words, ("--scale",)))
    check_options(parser, arguments)
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Find, check, embed date by date, derive; returns the exit code."""
    arguments = parse_arguments(argv)
    from scenes.input.product import SceneOptions
    from scenes.series.dates import find_series, stated_times
    from scenes.series.run import SeriesRun

    options = SceneOptions(arguments.bands, arguments.scale, sensor=arguments.sensor, adjust=arguments.adjust_to_oli)
    dates = find_series(arguments.scenes, options, stated_times(arguments.dates))
    settings = SeriesSettings.of(arguments)
    SeriesRun(dates, settings).execute()
    return 0


if __name__ == "__main__":
    run_script(main)
