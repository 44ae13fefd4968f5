"""Simulated scenes: complete products whose QA and truth say what the pixels show."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from scene_files import read

from datasets.simulated import main
from datasets.simulator.constants import CANVAS, CONSTANTS
from datasets.simulator.patches import simulate
from datasets.simulator.scene import NO_CLASS, SKY, SimulatedScene, scaled_constants
from scenes.input.checks import check_numbers
from scenes.input.product import find_scene
from scenes.input.reader import SceneReader, hidden_pixels
from utils.data_config import BigEarthNetInfo
from utils.errors import ConfigError, DataError

SIZE = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("simulated") / "scene"
    assert main(["--kind", "scene", "--size", str(SIZE), "--seed", "3", "--out", str(out)]) == 0
    return out


def test_it_is_a_complete_product_that_says_it_is_simulated(folder) -> None:
    scene = find_scene(folder)
    assert scene.simulated and scene.product.startswith("LC08_L2SP_999999_")
    assert (scene.grid.height, scene.grid.width, scene.notes) == (SIZE, SIZE, ())
    assert scene.time.day is not None and 8 <= scene.time.hour <= 12
    assert scene.grid.transform.c % 30 == scene.grid.transform.f % 30 == 15, "pixel centres on multiples of 30 m"
    with SceneReader(scene) as reader:
        check_numbers(reader)
    text = next(folder.glob("*_MTL.txt"))
    for path in folder.glob("*_MTL.json"):
        path.rename(folder / "aside")
    try:
        assert find_scene(folder).time == scene.time, text
    finally:
        (folder / "aside").rename(folder / f"{scene.product}_MTL.json")


def test_qa_and_truth_say_what_the_pixels_show(folder) -> None:
    scene = find_scene(folder)
    values = np.concatenate([read(band.path) for band in scene.bands])
    qa, truth = read(scene.qa.path)[0], read(folder / "truth.tif")[0]
    fill = qa == 1
    assert np.array_equal(fill, (values == 0).all(axis=0)) and np.array_equal(fill, (values == 0).any(axis=0))
    assert 0.2 < fill.mean() < 0.35, "the tilted footprint"
    assert (truth[fill] == NO_CLASS).all()
    assert set(np.unique(truth)) - {NO_CLASS} <= set(range(19)) and len(np.unique(truth)) > 4
    with rasterio.open(folder / "truth.tif") as file:
        assert tuple(json.loads(file.tags()["classes"])) == BigEarthNetInfo.CLASSES


@pytest.mark.runs
def test_clouds_are_bright_and_their_shadows_dark() -> None:
    scene = SimulatedScene(700, 4)
    stripes = list(scene.stripes())
    numbers = np.concatenate([stripe.numbers for stripe in stripes], axis=1).astype(int)
    qa = np.concatenate([stripe.qa for stripe in stripes])
    blue = {value: np.median(numbers[1][qa == value]) for value in (21824, 22280, 23888) if (qa == value).sum() > 50}
    assert blue[22280] > 2 * blue[21824] and blue[23888] < blue[21824]
    assert 0.02 < hidden_pixels(qa[qa != 1]).mean() < 0.5


def test_the_land_is_that_of_the_patches() -> None:
    """Means and spreads of the bands over many scenes are about those of simulated patches."""
    patches = simulate(300, 0).images.int().float()
    patches = patches.permute(1, 0, 2, 3).flatten(1)
    patches = patches[:, (patches > 0).all(0)]
    pixels = []
    for seed in range(6):
        for stripe in SimulatedScene(128, seed).stripes():
            pixels.append(stripe.numbers[:, ~hidden_pixels(stripe.qa)].astype(np.float32))
    scenes = torch.from_numpy(np.concatenate(pixels, axis=1))
    gap = (scenes.mean(1) - patches.median(1).values).abs() / patches.std(1)
    assert gap.max() < 1
    scaled = scaled_constants(CONSTANTS, 2 * CANVAS)
    assert scaled.cover_grids == tuple(2 * cells for cells in CONSTANTS.cover_grids)
    assert scaled.parcels == 4 * CONSTANTS.parcels


def test_the_same_seed_gives_the_same_scene_in_any_stripes(folder) -> None:
    again = list(SimulatedScene(SIZE, 3).stripes())
    assert [len(stripe.qa) for stripe in again] == [256, 44]
    scene = find_scene(folder)
    for index, band in enumerate(scene.bands):
        assert np.array_equal(np.concatenate([stripe.numbers[index] for stripe in again]), read(band.path)[0])
    assert not np.array_equal(next(iter(SimulatedScene(SIZE, 4).stripes())).numbers, again[0].numbers)


@pytest.mark.runs
def test_memory_holds_a_few_rows_of_tiles() -> None:
    scene = SimulatedScene(6 * SKY.tile, 0)
    for _ in scene.stripes():
        assert len(scene._rows) <= 4


def test_targets_and_options(tmp_path, folder) -> None:
    (tmp_path / "photo.jpg").write_text("mine")
    with pytest.raises(DataError, match=r"photo\.jpg"):
        main(["--kind", "scene", "--size", "64", "--out", str(tmp_path)])
    assert [entry.name for entry in tmp_path.iterdir()] == ["photo.jpg"]
    for options, named in (
        (["--out", str(tmp_path / "a")], "--size"),
        (["--size", "100"], "--out"),
        (["--size", "20", "--out", str(tmp_path / "a")], "--size 20"),
        (["--size", "100", "--patches", "3", "--out", str(tmp_path / "a")], "--patches is for patches"),
    ):
        with pytest.raises(ConfigError, match=named):
            main(["--kind", "scene", *options])
    out = tmp_path / "b"
    for seed in ("1", "2"):
        assert main(["--kind", "scene", "--size", "64", "--seed", seed, "--out", str(out)]) == 0
    assert len(list(out.glob("*_SR_B*.TIF"))) == 7
