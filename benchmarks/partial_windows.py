"""How much the cells at the border of a scene change because their windows are cut off there.

python -m benchmarks.partial_windows --scene FOLDER --checkpoint weights/moe_mae_simulated/pretrained_XXS_best.pth

Squares are cut out of a scene, off the grid of 1,200 m, and embedded like scenes of their own. Cells whose window lies
in the square have to be those of the whole scene; at the border, what is compared is the same cell with a part of its
window out of sight.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import embed_scene
from utils.errors import run_script
from utils.reporting import reporter

if TYPE_CHECKING:
    import numpy as np
    import rasterio


class Differences(NamedTuple):
    """Of squares' cells from the same ones of the whole scene, relative to the mean distance between two cells."""

    border: "np.ndarray"
    inner: "np.ndarray"


def cut(scene: Path, top: int, left: int, side: int, folder: Path) -> Path:
    """Write a square of every band of a product's folder."""
    import rasterio
    from rasterio.windows import Window

    folder.mkdir()
    for path in sorted(scene.glob("*.TIF")):
        with rasterio.open(path) as band:
            window = Window(left, top, side, side)  # pyright: ignore[reportCallIssue] - attrs that stubs do not know
            profile = {**band.profile, "height": side, "width": side, "transform": band.window_transform(window)}
            with rasterio.open(folder / path.name, "w", **profile) as file:
                file.write(band.read(window=window))
    return folder


def embed(scene: Path, checkpoint: Path, out: Path, options: list[str]) -> "tuple[np.ndarray, rasterio.Affine]":
    """Cells (rows, columns, D) of a scene, and where they lie."""
    import numpy as np
    import rasterio

    paths = ["--scene", str(scene), "--checkpoint", str(checkpoint), "--out", str(out)]
    embed_scene.main([*paths, *options])
    with rasterio.open(out / "embeddings.tif") as file:
        return np.moveaxis(file.read().astype(np.float64), 0, -1), file.transform


def differences(
    scene: Path, checkpoint: Path, squares: int, side: int, seed: int, work: Path, options: list[str]
) -> Differences:
    """Cut, embed and compare.

    Args:
        scene: folder of a product.
        checkpoint: weights.
        squares: how many, at random places.
        side: of a square, pixels.
        seed: of the places.
        work: an empty folder for what is made.
        options: further ones of `embed_scene.py`.
    """
    import numpy as np
    import rasterio
    from scipy.spatial.distance import pdist

    whole, at = embed(scene, checkpoint, work / "whole", options)
    seen = whole[np.isfinite(whole).all(axis=-1)]
    spread = pdist(seen).mean()
    with rasterio.open(next(scene.glob("*_SR_B1.TIF"))) as band:
        height, width, pixel = band.height, band.width, band.transform
    random = np.random.default_rng(seed)
    border, inner = [], []
    for number in range(squares):
        top, left = int(random.integers(40, height - side - 40)), int(random.integers(40, width - side - 40))
        square = cut(scene, top, left, side, work / f"square{number}")
        cells, transform = embed(square, checkpoint, work / f"cells{number}", options)
        down, across = (round((transform.f - at.f) / at.e), round((transform.c - at.c) / at.a))
        same = whole[down : down + cells.shape[0], across : across + cells.shape[1]]
        apart = np.linalg.norm(cells - same, axis=-1) / spread
        # A window is whole where its cell lies within the square on all sides.
        rows = transform.f + transform.e * np.arange(cells.shape[0] + 1)
        columns = transform.c + transform.a * np.arange(cells.shape[1] + 1)
        high, low = pixel.f + pixel.e * top, pixel.f + pixel.e * (top + side)
        west, east = pixel.c + pixel.a * left, pixel.c + pixel.a * (left + side)
        whole_rows = (rows[:-1] <= high + 20) & (rows[1:] >= low - 20)  # corners lie half a pixel off
        whole_columns = (columns[:-1] >= west - 20) & (columns[1:] <= east + 20)
        inside = whole_rows[:, None] & whole_columns
        known = np.isfinite(apart)
        border.append(apart[known & ~inside])
        inner.append(apart[known & inside])
    return Differences(np.concatenate(border), np.concatenate(inner))


def main(argv: list[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(description="Compare border cells of cut-out squares with those of the scene.")
    add = parser.add_argument
    add("--scene", required=True, type=Path, metavar="DIR", help="folder of a product")
    add("--checkpoint", required=True, type=Path, metavar="FILE")
    add("--squares", type=int, default=6)
    add("--side", type=int, default=403, help="of a square, pixels (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the places (default: %(default)s)")
    arguments, options = parser.parse_known_args(argv)
    with tempfile.TemporaryDirectory() as work:
        found = differences(
            arguments.scene,
            arguments.checkpoint,
            arguments.squares,
            arguments.side,
            arguments.seed,
            Path(work),
            options,
        )
    reporter.info(
        f"border cells {len(found.border):5d}: {found.border.mean():.3f} times as far apart as two cells on average"
    )
    reporter.info(f"inner cells  {len(found.inner):5d}: {found.inner.max():.3g} at most")
    return 0


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
