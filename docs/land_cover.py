"""A land-cover map of a simulated scene, from nothing: `python -m docs.land_cover --out outputs/land_cover`.

Simulates a scene, embeds it, fits a linear probe on the cells of its upper half, maps the whole scene with it, and
reports the accuracy over all cells and over those of the lower half, which the probe has not seen. Part of a scene is
held out by setting its truth to 255 (unknown).
"""

import argparse
import json
from pathlib import Path
from typing import Any

from datasets.simulated import main as simulate
from embed_scene import main as embed_scene
from train_logistic_regression import main as fit_probe
from utils.errors import run_script
from utils.reporting import reporter

WEIGHTS = "weights/moe_mae_plus/pretrained_XXS_best.pth"


def halves(truth: Path) -> dict[str, Path]:
    """Write two rasters beside a truth, each with the other half of the rows unknown; "upper" and "lower"."""
    import numpy as np
    import rasterio

    from scenes.products.labelled import UNKNOWN

    with rasterio.open(truth) as file:
        classes, profile, tags = file.read(1), file.profile, file.tags()
    rows = np.arange(len(classes))[:, None]
    upper = rows < len(classes) // 2
    written = {}
    for name, known in {"upper": upper, "lower": ~upper}.items():
        written[name] = truth.with_name(f"truth_{name}.tif")
        with rasterio.open(written[name], "w", **profile) as file:
            file.update_tags(**tags)
            file.write(np.where(known, classes, UNKNOWN), 1)
    return written


def scores(scene: Path, out: Path, stride: str, truth: Path, probe: Path | None = None) -> dict[str, Any]:
    """Embed or, where that is done, only map and score; the scores against the truth in `scene.json`."""
    arguments = ["--scene", str(scene), "--checkpoint", WEIGHTS, "--out", str(out), "--stride", stride]
    arguments += ["--truth", str(truth), *([] if probe is None else ["--probe", str(probe)])]
    embed_scene(arguments)
    return json.loads((out / "scene.json").read_text(encoding="utf-8")).get("truth", {})


def main(argv: list[str] | None = None) -> int:
    """The whole way; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for everything")
    parser.add_argument("--size", default="2000", metavar="PIXELS", help="of the scene (default: %(default)s)")
    parser.add_argument("--stride", default="20", metavar="PIXELS", help="between windows (default: %(default)s)")
    given = parser.parse_args(argv)
    scene, maps = given.out / "scene", given.out / "maps"
    simulate(["--kind", "scene", "--size", given.size, "--seed", "0", "--out", str(scene)])
    parts = halves(scene / "truth.tif")
    scores(scene, maps, given.stride, parts["upper"])
    cells = str(maps / "labelled_cells.npz")
    fit_probe(["--train", cells, "--out", str(given.out), "--name", "upper", "--scale", "true"])
    probe = max(given.out.glob("upper_*.npz"), key=lambda path: path.stat().st_mtime)
    for name, truth in {"all cells": scene / "truth.tif", "cells of the lower half": parts["lower"]}.items():
        found = scores(scene, maps, given.stride, truth, probe)
        reporter.info(
            f"{name}: {found['accuracy']:.1%} of {found['cells']:,} as in the truth; the most frequent class alone "
            f"would be right in {found['most_frequent_class']:.1%}"
        )
    return 0


if __name__ == "__main__":
    run_script(main)
