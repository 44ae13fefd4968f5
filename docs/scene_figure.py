"""The README's first figure, of a real scene: `python -m docs.scene_figure --scene DIR --out outputs/scene_figure`.

`DIR` holds the bands of LC08_L2SP_043024_20200802_20200914_02_T1 (U.S. Geological Survey, public domain), cut to the
1,001 x 1,001 pixels that `docs/alberta_labels.geojson` lies in, or whole. The labels are 82 rectangles, drawn by eye on
the pictures of that scene in true and false colour. `embed_scene.py` embeds it with the weights that the repository
brings, fits and scores a probe on the labels, and maps; the scores that the caption states are in `scene.json`.
"""

import argparse
import json
from pathlib import Path

from embed_scene import main as embed_scene
from utils.errors import run_script
from utils.reporting import reporter

WEIGHTS = "weights/moe_mae_plus/pretrained_XXS_best.pth"
LABELS = Path(__file__).with_name("alberta_labels.geojson")
LETTERS = 16
"""Points: as large as fits, since the figure is seen on phones as well."""
COLOURS = {
    "water": "#2f6fb2", "forest": "#0b6a37", "rapeseed in flower": "#f2d400", "other crops and grass": "#a3cc7a",
    "cut or bare field": "#d9a066", "river bed and gravel": "#8f8f98",
}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Embed, map and draw; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", required=True, type=Path, metavar="DIR", help="folder of the scene's bands")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for everything")
    given = parser.parse_args(argv)
    embed_scene(["--scene", str(given.scene), "--checkpoint", WEIGHTS, "--labels", str(LABELS), "--stride", "20",
                 "--out", str(given.out)])  # fmt: skip
    reporter.info(f"figure       {draw(given.scene, given.out)}")
    return 0


def draw(scene_folder: Path, results: Path) -> Path:
    """True colour, components of the embeddings and land cover side by side, from what `embed_scene.py` wrote."""
    import numpy as np
    import rasterio
    from matplotlib.colors import to_rgba
    from matplotlib.patches import Patch
    from PIL import Image

    from scenes.input.product import find_scene
    from scenes.products.embedding_file import EmbeddingMap, map_statistics, tag_name
    from scenes.products.pictures import GREY, scene_panels, show_cells
    from scenes.products.quick_look import component_colours
    from utils.analysis_utils import save_figure

    scene = find_scene(scene_folder)
    figure, panels = scene_panels(scene, 3, side=2.9)
    _, middle, right = panels
    embeddings = EmbeddingMap(results / "embeddings.tif")
    colours = component_colours(embeddings, map_statistics(embeddings), 1)
    show_cells(middle, colours, embeddings.transform, scene.grid)
    with rasterio.open(results / "land_cover.tif") as file:
        classes, transform, names = file.read(1), file.transform, json.loads(file.tags()[tag_name("classes")])
    image = np.full((*classes.shape, 4), (GREY, GREY, GREY, 1.0))
    for index, name in enumerate(names):
        image[classes == index] = to_rgba(COLOURS[name])
    show_cells(right, image, transform, scene.grid)
    handles = [Patch(facecolor=colour, edgecolor="0.3", linewidth=0.5, label=name) for name, colour in COLOURS.items()]
    titles = ("true colour", "embeddings", "land cover")
    for axes, title in zip(panels, titles, strict=True):  # to be read on a phone, too
        axes.set_title(title, fontsize=LETTERS)
        axes.set(xlabel="", ylabel="", xticks=[], yticks=[])
    for text in (*figure.texts, *panels[0].texts):
        text.set_fontsize(LETTERS)
    for axes in panels:
        box = axes.get_position()
        axes.set_position((box.x0 - 0.035, box.y0 + 0.07, box.width, box.height))
    for text in figure.texts:
        text.remove()  # the caption says which scene it is
    figure.legend(
        handles=handles, loc="lower center", ncols=3, frameon=False, fontsize=LETTERS, handlelength=1.2,
        columnspacing=1.2, borderaxespad=0.1,
    )  # fmt: skip
    path = save_figure(figure, results / "scene_figure.png")
    with Image.open(path) as image:  # half the size, for the repository
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    return path


if __name__ == "__main__":
    run_script(main)
