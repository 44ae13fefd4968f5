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
import sys

from scenes.input.virtual_files import path_of
from scenes.options import (
    add_cell_options,
    add_model_options,
    add_reading_options,
    check_options,
    clock_of,
    joined,
    pair,
)
from scenes.settings import DTYPES, SceneSettings
from utils.arguments import ArgumentParser, day_of, user_path
from utils.errors import run_script
from utils.project_files import find_shipped


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        ConfigError: for an unknown flag or an impossible value.
    """
    parser = ArgumentParser(description="Embed a Landsat 4 to 9 Collection-2 Level-2 scene and map what it shows.")
    add = parser.add_argument
    add(
        "--scene",
        required=True,
        type=path_of,
        metavar="PATH",
        help="a product's folder, .tar or .zip, a STAC item, a GeoTIFF of its bands; GeoTIFF and item also as https://…",
    )
    add("--checkpoint", required=True, type=user_path, metavar="FILE", help="weights, ours or published")
    add("--out", required=True, type=user_path, metavar="DIR", help="folder for the results")
    add_cell_options(parser)
    add("--dtype", choices=DTYPES, default="float16", help="how embeddings are stored (default: %(default)s)")
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
    add("--similar-to", type=pair, metavar="LON,LAT", help="map the similarity to the cell there (degrees)")
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
    add_reading_options(parser)
    add("--date", type=day_of, metavar="YYYY-MM-DD", help="day of acquisition (UTC), where the product does not say it")
    add("--time", type=clock_of, metavar="HH:MM", help="time of day of acquisition (UTC), likewise")
    add_model_options(parser)
    words = sys.argv[1:] if argv is None else argv
    arguments = parser.parse_args(joined(words, ("--similar-to", "--scale")))
    check_options(parser, arguments)
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Find, check, embed, derive; returns the exit code."""
    arguments = parse_arguments(argv)
    from scenes.input.product import SceneOptions, find_scene
    from scenes.run import SceneRun

    stated = (arguments.bands, arguments.scale, arguments.qa, arguments.date, arguments.time)
    scene = find_scene(arguments.scene, SceneOptions(*stated, arguments.sensor, arguments.adjust_to_oli))
    settings = SceneSettings.of(arguments)
    SceneRun(scene, settings).execute()
    return 0


if __name__ == "__main__":
    run_script(main)
