"""What `make demo` does: first the weights that come with the project, then a small model that it trains.

    python -m docs.demo --out outputs/demo

`shipped/` holds reconstructions, a map of a simulated scene and a page to look at embeddings, by the shipped weights
of size XXS; `report.html`, `figures/`, `tables/` and `stages/` are of the reproduction, whose model learns for half a
minute.
"""

import argparse
from pathlib import Path

from datasets.simulated import main as simulate
from embed.compute_embed import main as embed
from embed_scene import main as embed_scene
from eval_mae import main as evaluate
from explore import main as explore
from reproduce import main as reproduce
from utils.errors import run_script
from utils.reporting import reporter

SAMPLE = "sample_dataset/bigearthnet-l"
SCENE_SIZE = 320
"""Pixels a side."""
SMALL = ["studies=[]", "protocols=[knn5, strong_probe]", "embed.pools=[cls]"]
"""What the reproduction leaves out."""


def main(argv: list[str] | None = None) -> int:
    """Make everything, and say which picture is whose; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for everything")
    out = parser.parse_args(argv).out
    shipped = out / "shipped"
    reporter.info(
        "== the weights that come with the project (XXS, trained on 8,000 simulated patches and real windows)"
    )
    show_shipped(shipped)
    reporter.info("\n== a small model, trained now on 192 simulated patches: too few to be good")
    settings = [word for setting in [*SMALL, f"out_dir={out}"] for word in ("--set", setting)]
    if code := reproduce(["--config_yaml", "configs/reproduce_sample.yaml", *settings]):
        return code
    reporter.info(
        f"""
The patches are simulated: the scores show that the pipeline works, nothing about the Earth.
By the weights that come with the project:
  reconstructions  {shipped}/reconstructions
  map of a scene   {shipped}/scene/quick_look.png
  embeddings       {shipped}/explore.html
With the model that has just been trained beside them:
  everything       {out}/report.html
  figures, tables  {out}/figures, {out}/tables
  pretraining      {out}/stages/pretrain/main/seed0/run"""
    )
    return 0


def show_shipped(folder: Path) -> None:
    """Reconstructions, a scene's map and a page of embeddings by the shipped weights."""
    panels, vectors, scene = folder / "reconstructions", folder / "embeddings", folder / "simulated_scene"
    evaluate(["--config_yaml", "configs/sample_eval.yaml", "--set", f"eval.reconstructions_dir={panels}"])
    simulate(["--kind", "scene", "--size", str(SCENE_SIZE), "--seed", "0", "--out", str(scene)])
    embed_scene(["--scene", str(scene), "--checkpoint", "xxs", "--stride", "20", "--out", str(folder / "scene")])
    embed(["--config_yaml", "configs/sample_embed.yaml", "--set", f"embed.out_dir={vectors}"])
    files = [str(vectors / f"sample_{split}.npz") for split in ("train", "val", "test")]
    explore(["--embeddings", *files, "--dataset_path", SAMPLE, "--out", str(folder / "explore.html")])


if __name__ == "__main__":
    run_script(main)
