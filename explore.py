"""A dataset's embeddings as one interactive page.

    python explore.py --embeddings outputs/embeddings/a_train.npz … --out explore.html [--dataset_path DIR]

The page is one file without any request to elsewhere: patches on a plane by principal components (and t-SNE with
--projection tsne), coloured by label; with --dataset_path their pictures and places.
"""

import argparse
import sys
from typing import TYPE_CHECKING

from utils.arguments import ArgumentParser, user_path
from utils.errors import run_script
from utils.reporting import reporter

if TYPE_CHECKING:
    from explorer.points import Points

MOST = {"pca": 20_000, "tsne": 8_000}
"""Patches on a page, unless asked otherwise."""
LARGEST_SEED = 2**32 - 1
"""That scikit-learn takes."""
TSNE_SECONDS = 0.01
"""About how long t-SNE takes a patch on one core: 13 s for 2,000, 83 s for 8,000, well over linear beyond."""


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(description="One interactive page of a dataset's embeddings.")
    add = parser.add_argument
    add(
        "--embeddings",
        type=user_path,
        nargs="+",
        required=True,
        metavar="NPZ",
        help="one file or several, of one dataset",
    )
    add("--out", type=user_path, required=True, metavar="HTML", help="the page")
    add("--dataset_path", metavar="DIR", help="the dataset's folder or pack, for pictures and places")
    add("--projection", choices=("pca", "tsne"), default="pca",
        help="principal components (default), or t-SNE beside them (minutes)")  # fmt: skip
    add("--most", type=int, metavar="N",
        help="patches on the page; of more, N are drawn (default 20000, with tsne 8000)")  # fmt: skip
    add("--seed", type=int, default=0, help="of the draw and of t-SNE (default 0)")
    options = parser.parse_args(arguments)
    from explorer.points import FEWEST

    if options.most is None:
        options.most = MOST[options.projection]
    if options.most < FEWEST or not 0 <= options.seed <= LARGEST_SEED:
        parser.error(f"--most needs at least {FEWEST}, --seed 0 to {LARGEST_SEED}")
    if options.out.suffix not in (".html", ".htm"):
        parser.error(f"--out {options.out}: expected a file name that ends in .html")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Read, project, draw, write; returns the exit code."""
    options = _parse(arguments)
    from explorer.page import write_page
    from explorer.pictures import make_pictures
    from explorer.points import read_points
    from utils.files import check_writable

    check_writable(options.out.parent)
    points = read_points(options.embeddings, options.most, options.seed)
    if len(points.x) < points.total:
        reporter.info(f"{len(points.x):,} of {points.total:,} patches drawn; --most shows more")
    if points.averaged:
        reporter.info("all tokens of a patch in the file: averaged")
    wants_pictures = _wants_pictures(points, options.dataset_path)
    if options.projection == "tsne":
        reporter.info(
            f"t-SNE of {len(points.x):,} patches: about {TSNE_SECONDS * len(points.x) / 60:.1f} minutes on one core"
        )
    pictures = make_pictures(points, options.dataset_path) if wants_pictures else None
    path = write_page(options.out, points, pictures, options.projection, options.seed)
    kind = "simulated patches" if points.simulated else "patches"
    reporter.info(f"{path}: {len(points.x):,} {kind}, {path.stat().st_size / 1e6:.1f} MB")
    return 0


def _wants_pictures(points: "Points", dataset_path: str | None) -> bool:
    """Whether pictures can be made; says why not, where they are asked for."""
    if dataset_path is None:
        reporter.info("no --dataset_path: the page has no pictures and no places")
    elif points.ids is None:
        reporter.info("no pictures: the file holds no ids, so nothing says which row is which patch")
    elif points.dataset is None:
        reporter.info("no pictures: they are made of BigEarthNet-Landsat and EuroSAT-Landsat only")
    else:
        return True
    return False


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
