"""A run's outputs: replaced as a set or not at all, announced where they take long, and drawn on the same ground."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from scene_files import CLEAR, CLOUD, embed, some_numbers, write_band, write_probe, write_product
from scripts import left_behind

from scenes.embed import SceneEmbedder
from scenes.input.product import find_scene
from scenes.outputs import KNOWN, OutputSet
from scenes.products.embedding_file import EmbeddingMap, map_statistics
from scenes.products.geotiffs import Layer, write_cog
from scenes.products.land_cover import class_colours, plot_land_cover
from scenes.products.pictures import edges_of
from scenes.products.quick_look import plot_quick_look
from utils.errors import ConfigError, UserError
from utils.threads import torch_threads

SIDE = (90, 130)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    qa = np.full(SIDE, CLEAR)
    qa[40:80, 60:100] = CLOUD
    return write_product(tmp_path_factory.mktemp("scene") / "a", some_numbers(SIDE), qa)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_nothing_of_an_earlier_run_stays(tmp_path, folder, checkpoint, capsys) -> None:
    """Another stride without a probe: the first run's map, names and pictures go; what is not ours stays."""
    out = tmp_path / "out"
    probe = write_probe(out / "mine.npz", checkpoint)
    (out / "notes.txt").write_text("mine")
    embed(folder, checkpoint, out, "--probe", probe, "--reconstruct")
    first = set(contents(out))
    assert first >= {
        "land_cover.tif",
        "land_cover.tif.aux.xml",
        "land_cover.qml",
        "land_cover.png",
        "reconstruction.tif",
    }
    embed(folder, checkpoint, out, "--stride", 20)
    record = json.loads((out / "scene.json").read_text())
    assert set(contents(out)) == {*record["files"], "scene.json", "mine.npz", "mine.json", "notes.txt"}
    assert set(record["files"]) == {"embeddings.tif", "quick_look.png"}
    assert "land_cover.tif" in capsys.readouterr().out.partition("removed")[2]
    assert not (out / ".unfinished").exists()
    assert set(KNOWN) >= first - {"mine.npz", "mine.json", "notes.txt"}


def test_a_run_that_fails_leaves_the_earlier_set(tmp_path, folder, checkpoint, monkeypatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("embeddings.tif", "land_cover.tif", "scene.json"):
        (out / name).write_text("earlier")
    before = contents(out)
    monkeypatch.setattr("scenes.run.plot_quick_look", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        embed(folder, checkpoint, out, "--stride", 20)
    assert contents(out) == before


def test_a_swap_that_was_interrupted_is_completed(tmp_path, monkeypatch) -> None:
    """Killed between two renames: without `scene.json`, and whole again as soon as the folder is used."""
    for name in ("embeddings.tif", "land_cover.tif", "quick_look.png", "scene.json"):
        (tmp_path / name).write_text("old")
    outputs = OutputSet(tmp_path)
    outputs.new("embeddings.tif").write_text("new")
    outputs.new("quick_look.png").write_text("new")
    replace, done = Path.replace, []

    def killed(self, target):
        if Path(target).parent == tmp_path and done:
            raise OSError(28, "full")
        done.append(target)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(UserError, match="cannot put the results in place"):
        outputs.publish({"files": []})
    monkeypatch.undo()
    assert not (tmp_path / "scene.json").exists()
    OutputSet(tmp_path)
    left = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert left.pop("scene.json").startswith("{") and left == {"embeddings.tif": "new", "quick_look.png": "new"}


def test_an_input_with_an_outputs_name_stays(tmp_path) -> None:
    for name in ("labels_probe.npz", "labels_probe.json", "similarity.tif"):
        (tmp_path / name).write_text("mine")
    outputs = OutputSet(tmp_path, [tmp_path / "labels_probe.npz", tmp_path / "labels_probe.json"])
    assert outputs.publish({}) == ["similarity.tif"]
    assert (tmp_path / "labels_probe.npz").is_file() and (tmp_path / "labels_probe.json").is_file()


def test_a_raster_has_the_same_bytes_whatever_number_of_threads_writes_it(tmp_path) -> None:
    random = np.random.default_rng(0)
    crs, transform = rasterio.CRS.from_epsg(32632), rasterio.Affine(30, 0, 300_000, 0, -30, 5_000_000)
    layer = Layer(700, 900, ("a", "b", "c"), "float32", np.nan, crs, transform, {})
    numbers = random.normal(size=(3, 700, 900)).astype(np.float32)
    written = []
    for count in (1, 3):
        with torch_threads(count):
            stripes = [numbers[:, :400], numbers[:, 400:]]
            path = write_cog(tmp_path / f"{count}.tif", layer, stripes, tmp_path / "scratch")
            written.append(path.read_bytes())
    assert written[0] == written[1]
    with rasterio.open(tmp_path / "3.tif") as file:
        assert file.overviews(1) and np.array_equal(file.read(), numbers)


def test_long_work_is_announced(tmp_path, folder, checkpoint, monkeypatch, capsys) -> None:
    monkeypatch.setattr("scenes.embed.LEAST_TIMED", 1)
    monkeypatch.setattr(SceneEmbedder, "seconds_a_window", lambda self: 20.0)
    embed(folder, checkpoint, tmp_path / "long")
    assert "time         about 4 minutes for up to 12 windows" in capsys.readouterr().out


def test_pictures_show_the_same_ground(tmp_path, folder, checkpoint, laid_out) -> None:
    """Both panels have the scene's limits, every image lies where its georeference says, north is up."""
    embeddings = EmbeddingMap(embed(folder, checkpoint, tmp_path / "out"))
    scene = find_scene(folder)
    figure = plot_quick_look(scene, embeddings, map_statistics(embeddings))
    left, bottom, right, top = edges_of(scene.grid)
    images = []
    for axes in figure.axes:
        assert (axes.get_xlim(), axes.get_ylim()) == ((left, right), (bottom, top)) and top > bottom
        images.append(axes.images[0])
    assert images[0].get_extent() == [left, right, bottom, top] and images[0].get_array().shape[:2] == SIDE
    grid = embeddings.transform
    edges = [grid.c, grid.c + grid.a * embeddings.width, grid.f + grid.e * embeddings.height, grid.f]
    assert images[1].get_extent() == edges
    boxes = [axes.get_position() for axes in figure.axes]
    assert boxes[0].height == boxes[1].height and boxes[0].y0 == boxes[1].y0
    assert any(text.get_text() == "500 m" for text in figure.axes[0].texts), "a scale bar of about a fifth"
    assert "easting" in figure.axes[0].get_xlabel() and "32633" in figure.axes[0].get_xlabel()
    figure.savefig(tmp_path / "a.png")


def test_the_legend_has_the_classes_that_are_there(tmp_path, folder, checkpoint) -> None:
    classes = tuple(f"class number {index}" for index in range(5))
    named = np.full((1, 30, 40), 255, np.uint8)
    named[:, :10], named[:, 10:12] = 3, 1
    path = write_band(tmp_path / "land_cover.tif", named, size=120.0, nodata=255)
    shares = dict(zip(classes, (0.0, 1 / 6, 0.0, 5 / 6, 0.0), strict=True))
    scene = find_scene(folder)._replace(simulated=True)
    figure = plot_land_cover(scene, path, classes, shares)
    texts = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert texts == ["class number 3 (83.3%)", "class number 1 (16.7%)"]
    assert any("simulated" in text.get_text() for text in figure.texts)
    image = figure.axes[1].images[0].get_array()
    np.testing.assert_allclose(image[0, 0] * 255, class_colours(classes)[3])


def test_contradicting_options_are_refused(tmp_path, folder, checkpoint) -> None:
    probe = write_probe(tmp_path / "p.npz", checkpoint)
    for options, reason in (
        (["--labels", "x.csv", "--probe", probe], "--labels and --probe exclude each other"),
        (["--column", "kind"], "--column names a column of --labels"),
    ):
        with pytest.raises(ConfigError, match=reason):
            embed(folder, checkpoint, tmp_path / "out", *options)
        assert not left_behind(tmp_path / "out"), "nothing has been made, and no folder for it"
