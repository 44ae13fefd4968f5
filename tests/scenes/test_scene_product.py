"""What is taken for a scene and what is refused, each with its reason and cure; time and place are never made up."""

import json

import numpy as np
import pytest
import rasterio
import torch
from metadata_pairs import pairs
from rasterio.warp import transform
from scene_files import CLEAR, ORIGIN, PRODUCT, embed, read, some_numbers, tiny_checkpoint, write_band, write_product

from embed_scene import main
from models.config import ModelConfig
from scenes.embed import WindowMetadata
from scenes.input.checks import check_numbers
from scenes.input.grids import SceneGrid
from scenes.input.mtl import read_mtl
from scenes.input.product import SceneOptions, find_scene
from scenes.input.reader import SceneReader, hidden_pixels
from scenes.windows import make_frame
from utils.errors import CheckpointError, ConfigError, DataError
from utils.metadata import AcquisitionTime

SIDE = (60, 70)


def check(path, **options) -> None:
    """Everything that is checked before a model runs."""
    with SceneReader(find_scene(path, SceneOptions(**options))) as reader:
        check_numbers(reader)


def refused(path, reason: str, **options) -> str:
    with pytest.raises((DataError, ConfigError), match=reason) as caught:
        check(path, **options)
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value) or ":" in str(caught.value)
    return str(caught.value)


def level1_numbers() -> np.ndarray:
    """Light at the sensor over the same ground: air adds to the blue; number = (reflectance + 0.1) / 0.00002."""
    air = np.array([0.11, 0.085, 0.05, 0.03, 0.012, 0.004, 0.002])[:, None, None]
    vegetation = np.array([0.015, 0.02, 0.05, 0.03, 0.35, 0.18, 0.08])[:, None, None]
    return np.broadcast_to(((vegetation + air + 0.1) / 0.00002).round(), (7, *SIDE)).astype(np.uint16)


def test_products_of_other_levels_sensors_and_collections(tmp_path) -> None:
    for product, reason in (
        ("LC08_L1TP_193024_20180704_20200831_02_T1", "Level-1.*L2SP"),
        ("LM05_L1TP_193024_19840704_20200831_02_T1", "its sensor is none that the model knows"),
        ("LC08_L2SP_193024_20180704_20200831_01_T1", "Collection 1"),
    ):
        refused(write_product(tmp_path / product, some_numbers(SIDE), product=product), reason)
        refused(write_band(tmp_path / f"{product}.tif", some_numbers(SIDE)), reason)
    for name, reason in (
        ("LC08_L1TP_193024_20180704_20200831_02_T1_B1.TIF", "Level-1"),
        ("LC08_L1TP_193024_20180704_20180716_01_T1_sr_band1.tif", "Level-1"),
        ("unnamed_B1.TIF", "Level-1 or another sensor"),
        ("unnamed_sr_band1.tif", "Collection-1"),
        ("notes.txt", r"no \*_SR_B1.TIF"),
    ):
        folder = tmp_path / f"folder of {name}"
        folder.mkdir()
        (folder / name).write_bytes(b"")
        refused(folder, reason)


def test_missing_bands_and_another_sensors_bands_are_named(tmp_path) -> None:
    folder = write_product(tmp_path / "a", some_numbers(SIDE))
    for number in (3, 5):
        (folder / f"{PRODUCT}_SR_B{number}.TIF").unlink()
    refused(folder, f"{PRODUCT}_SR_B3.TIF, {PRODUCT}_SR_B5.TIF missing")
    folder = write_product(tmp_path / "b", some_numbers(SIDE), product="mine", time=None)
    (folder / "mine_SR_B6.TIF").unlink()
    refused(folder, "bands of Landsat 4, 5 or 7.*L2SP")
    write_product(tmp_path / "c", some_numbers(SIDE))
    refused(write_product(tmp_path / "c", some_numbers(SIDE), product="mine", time=None), "several scenes")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"size": 60.0}, "60 m wide.*gdalwarp"),
        ({"size": 10.0}, "10 m wide.*gdalwarp"),
        ({"size": 0.00027, "origin": (13.0, 50.0), "crs": rasterio.CRS.from_epsg(4326)}, "degrees.*gdalwarp"),
        ({"transform": rasterio.Affine(30, 5, 0, 5, -30, 0)}, "rotated.*gdalwarp"),
        ({"transform": rasterio.Affine(30, 0, 0, 0, 30, 0)}, "not north up.*gdalwarp"),
    ],
)
def test_other_grids(tmp_path, options, reason) -> None:
    refused(write_product(tmp_path / "a", some_numbers(SIDE), **options), reason)


@pytest.mark.parametrize(
    "options", [{"origin": (ORIGIN[0] + 30, ORIGIN[1])}, {"crs": rasterio.CRS.from_epsg(32632)}, {"shorter": True}]
)
def test_mixed_grids_are_refused_by_name(tmp_path, options) -> None:
    folder = write_product(tmp_path / "a", some_numbers(SIDE))
    numbers = some_numbers(SIDE)[4:5, : 50 if options.pop("shorter", False) else 60]
    write_band(folder / f"{PRODUCT}_SR_B5.TIF", numbers, **options)
    refused(folder, "SR_B5.TIF: its .* differs from that of .*SR_B1.TIF")
    folder = write_product(tmp_path / "b", some_numbers(SIDE))
    write_band(folder / f"{PRODUCT}_QA_PIXEL.TIF", np.full((1, 60, 69), CLEAR, np.uint16))
    refused(folder, "QA_PIXEL.TIF: its size differs")


def test_band_count_and_order_of_a_stack(tmp_path) -> None:
    eight = np.concatenate([some_numbers(SIDE), some_numbers(SIDE)[:1]])
    names = [f"SR_B{number}" for number in range(1, 8)]
    refused(write_band(tmp_path / "six.tif", some_numbers(SIDE)[:6]), "has 6 bands, expected 7.*--bands")
    refused(write_band(tmp_path / "eight.tif", eight, descriptions=[*names, "ST_B10"]), "--bands 1,2,3,4,5,6,7")
    reordered = write_band(tmp_path / "order.tif", some_numbers(SIDE)[::-1], descriptions=names[::-1])
    refused(reordered, "SR_B7, SR_B6.*--bands 7,6,5,4,3,2,1")
    check(reordered, bands=(7, 6, 5, 4, 3, 2, 1))
    with SceneReader(find_scene(reordered, SceneOptions(bands=(7, 6, 5, 4, 3, 2, 1)))) as reader:
        assert np.array_equal(reader.read(0, 0, *SIDE), some_numbers(SIDE))
    catalogue = ["blue", "green", "red", "nir08", "swir16", "swir22", "coastal"]
    moved = write_band(tmp_path / "moved.tif", np.roll(some_numbers(SIDE), -1, axis=0), descriptions=catalogue)
    refused(moved, "its bands are blue, green.*--bands 7,1,2,3,4,5,6")
    odd = write_band(tmp_path / "odd.tif", some_numbers(SIDE), descriptions=[f"layer {number}" for number in range(7)])
    assert any("not known here (layer 0, layer 1" in note for note in find_scene(odd).notes)
    refused(reordered, "seven different numbers from 1 to 7", bands=(1, 2, 3, 4, 5, 6, 8))
    refused(reordered, "seven different numbers from 1 to 7", bands=(1, 1, 3, 4, 5, 6, 7))
    refused(write_product(tmp_path / "a", some_numbers(SIDE)), "--bands is for a stacked", bands=(1, 2, 3, 4, 5, 6, 7))


def test_numbers_that_are_not_collection_2_level_2(tmp_path) -> None:
    numbers = some_numbers(SIDE)
    reflectance = (numbers * 0.0000275 - 0.2).astype(np.float32)
    refused(write_band(tmp_path / "f.tif", reflectance), r"holds reflectance .*--scale 1,0")
    refused(write_band(tmp_path / "d.tif", numbers.astype(np.float32)), "float32 values.*--scale")
    refused(write_band(tmp_path / "i.tif", (reflectance * 10_000).astype(np.int16)), "int16 values.*--scale")
    refused(write_band(tmp_path / "u.tif", (reflectance * 10_000).astype(np.uint16)), "below 7,273.*--scale")
    refused(write_band(tmp_path / "l.tif", level1_numbers()), "Level-1 numbers.*--scale")
    airless = ((reflectance + 0.1) / 0.00002).astype(np.uint16)
    refused(write_band(tmp_path / "a.tif", airless), "SR_B2 is below reflectance 0.*Level-1 numbers.*--scale")
    refused(write_band(tmp_path / "o.tif", numbers[::-1].copy()), "SR_B1 and SR_B2 are far apart.*order.*--bands")
    shifted = np.concatenate([numbers[1:], numbers[:1] + np.uint16(30_000)])  # SR_B2..SR_B7 and temperature
    refused(write_band(tmp_path / "s.tif", shifted), "SR_B4 is far brighter than SR_B5.*order.*--bands")
    refused(write_band(tmp_path / "z.tif", np.zeros((7, *SIDE), np.uint16)), "all of it is fill")
    refused(write_product(tmp_path / "c", numbers, qa=np.full(SIDE, 22280)), "all of it is fill, cloud or shadow")
    check(write_band(tmp_path / "good.tif", numbers))


@pytest.mark.parametrize("fill", [0.0, -9999.0])
def test_fill_that_no_tag_declares_stays_fill_under_a_stated_scale(tmp_path, fill) -> None:
    reflectance = (some_numbers(SIDE) * 0.0000275 - 0.2).astype(np.float32)
    reflectance[:, :, :9] = fill
    scene = find_scene(write_band(tmp_path / "r.tif", reflectance), SceneOptions(scale=(1.0, 0.0)))
    with SceneReader(scene) as reader:
        pixels = reader.read(0, 0, *SIDE)
    assert (pixels[:, :, :9] == 0).all() and (pixels[:, :, 9:] > 0).all()


def test_quality_has_one_band(tmp_path) -> None:
    folder = write_product(tmp_path / "a", some_numbers(SIDE))
    several = write_band(tmp_path / "qa.tif", some_numbers(SIDE))
    refused(folder, "QA_PIXEL is one band", qa=several)


def test_a_folder_of_weights_has_to_be_of_one_model(tmp_path, checkpoint) -> None:
    folder = write_product(tmp_path / "a", some_numbers(SIDE))
    for name, reason in (("none", "holds neither"), ("two", "holds 2 checkpoints")):
        weights = tmp_path / name
        weights.mkdir()
        for copy in ("a.pth", "b.pth", "._a.pth") if name == "two" else ():
            (weights / copy).write_bytes(checkpoint.read_bytes())
        with pytest.raises(CheckpointError, match=reason):
            main(["--scene", str(folder), "--checkpoint", str(weights), "--out", str(tmp_path / "out")])
    (weights / "b.pth").unlink()
    assert embed(folder, weights, tmp_path / "out").is_file()


def test_a_scene_beyond_its_projection(tmp_path, checkpoint) -> None:
    stack = write_band(tmp_path / "far.tif", some_numbers(SIDE), origin=(3e9, 3e9))
    with pytest.raises(DataError, match="outside its map projection"):
        main(["--scene", str(stack), "--checkpoint", str(checkpoint), "--out", str(tmp_path / "out")])


@pytest.mark.runs
def test_every_real_patch_passes(real_patches) -> None:
    for path in sorted((real_patches / "images").glob("*.tif")):
        if (read(path) > 0).all(axis=0).any():
            check(path)


def test_a_stated_scale_gives_the_same_numbers(tmp_path) -> None:
    numbers = some_numbers(SIDE)
    numbers[:, :9, :9] = 0
    reflectance = (numbers * 0.0000275 - 0.2).astype(np.float32)
    reflectance[:, :9, :9] = np.nan
    path = write_band(tmp_path / "f.tif", reflectance)
    check(path, scale=(1.0, 0.0))
    with SceneReader(find_scene(path, SceneOptions(scale=(1.0, 0.0)))) as reader:
        assert np.array_equal(reader.read(0, 0, *SIDE), numbers)
    check(write_band(tmp_path / "l.tif", level1_numbers()), scale=(0.00002, -0.1))


def test_other_paths(tmp_path) -> None:
    refused(tmp_path / "nothing", "no such file or folder")
    for name in ("a.tar", "a.zip", "a.tar.gz"):
        (tmp_path / name).write_bytes(b"")
        refused(tmp_path / name, "unpack it")
    (tmp_path / "a.tif").write_bytes(b"II*\0")
    refused(tmp_path / "a.tif", "cannot be read")
    folder = write_product(tmp_path / "a", some_numbers(SIDE))
    (folder / f"{PRODUCT}_MTL.json").write_text("{")
    refused(folder, "MTL.json: cannot be read")
    other = PRODUCT.replace("193024", "193025")
    text = json.dumps({"LANDSAT_METADATA_FILE": {"PRODUCT_CONTENTS": {"LANDSAT_PRODUCT_ID": other}}})
    (folder / f"{PRODUCT}_MTL.json").write_text(text)
    refused(folder, f"belongs to {other}")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--stride", "6"], "--stride 6: choose one of 4, 8, 20, 40"),
        (["--cell", "12"], "--cell 12: choose one of"),
        (["--batch-size", "0"], "--batch-size"),
        (["--scale", "1"], "--scale"),
        (["--scale", "0,1"], "--scale"),
        (["--scale", "inf,0"], "--scale: expected a finite factor"),
        (["--scale", "1,nan"], "--scale: expected a finite factor"),
        (["--bands", "a,b"], "--bands"),
        (["--min-clear", "0"], "--min-clear"),
        (["--similar-to", "13"], "--similar-to"),
        (["--similar-to", "120.0,10.0"], "outside the scene"),
        (["--similar-to", "13,95"], "outside the scene"),
        (["--similar-to", "inf,nan"], "outside the scene"),
        (["--similar-to", "-8.3,37.6"], "--similar-to -8.3,37.6: outside the scene"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_bad_options_are_one_clear_line(tmp_path, checkpoint, options, reason) -> None:
    folder = write_product(tmp_path / "a", some_numbers(SIDE))
    arguments = ["--scene", str(folder), "--checkpoint", str(checkpoint), "--out", str(tmp_path / "out"), *options]
    with pytest.raises(ConfigError, match=reason) as caught:
        main(arguments)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").glob("*"))


def test_time_comes_from_the_product_or_is_missing(tmp_path, checkpoint, capsys) -> None:
    full = find_scene(write_product(tmp_path / "a", some_numbers(SIDE)))
    assert (full.time.week, full.time.hour) == (27, 9)
    assert full.notes == ("no QA_PIXEL: cloud and shadow are not masked (--qa FILE names one); fill is",)
    dated = find_scene(write_product(tmp_path / "b", some_numbers(SIDE), time=None))
    assert (dated.time.week, dated.time.hour) == (27, None)
    assert any("the hour is given to the model as missing" in note for note in dated.notes)
    bare = find_scene(write_band(tmp_path / "mine.tif", some_numbers(SIDE), crs=None))
    assert (bare.time.week, bare.time.hour) == (None, None)
    embed(tmp_path / "mine.tif", checkpoint, tmp_path / "out")
    said = capsys.readouterr().out
    assert "week and hour are given to the model as missing" in said
    assert "latitude and longitude are given to the model as missing" in said


def test_an_mtl_text_says_the_same(tmp_path) -> None:
    text = f'GROUP = A\n  GROUP = B\n    LANDSAT_PRODUCT_ID = "{PRODUCT}"\n  END_GROUP = B\n'
    text += '  DATE_ACQUIRED = 2018-07-04\n  SCENE_CENTER_TIME = "23:05:00.0Z"\nEND_GROUP = A\nEND\n'
    folder = write_product(tmp_path / "a", some_numbers(SIDE), time=None)
    (folder / f"{PRODUCT}_MTL.txt").write_text(text)
    scene = find_scene(folder)
    assert (scene.time.week, scene.time.hour) == (27, 23)
    assert read_mtl(folder / f"{PRODUCT}_MTL.txt")["LANDSAT_PRODUCT_ID"] == PRODUCT


def test_what_a_window_is_told(tmp_path) -> None:
    scene = find_scene(write_product(tmp_path / "a", some_numbers(SIDE)))
    frame = make_frame(scene.grid, 40, 4, 40)
    tops, lefts = np.array([0, 40]), np.array([0, 80])
    config = ModelConfig.of_size("XXS")
    told = WindowMetadata(scene.time, True).encode(frame, tops, lefts, config)
    xs = ORIGIN[0] + 30 * (lefts - frame.left + 20)
    ys = ORIGIN[1] - 30 * (tops - frame.above + 20)
    lon, lat = transform(scene.crs, "EPSG:4326", xs, ys)
    assert torch.equal(told, torch.from_numpy(pairs([27, 27], [9, 9], lat, lon)))
    missing = WindowMetadata(AcquisitionTime(scene.time.day)).encode(frame, tops, lefts, config)
    assert torch.equal(missing[:, 0], told[:, 0])
    assert not missing[:, 1:].any()


def test_published_weights_get_the_published_hour_and_say_so(tmp_path, capsys) -> None:
    published = tiny_checkpoint(tmp_path / "p.pth", published_behaviour=True)
    embed(write_product(tmp_path / "a", some_numbers(SIDE)), published, tmp_path / "out")
    assert "those of a Sentinel-2 image, not of the Landsat scene" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "scene.json").read_text())["metadata"]["hour"] == 0


def test_quality_bits() -> None:
    hidden = [1, 22280, 21826, 23888, 54596, 22280 | 128]
    seen = [21824, 21952, 30048]  # clear, water, snow
    assert hidden_pixels(np.array(hidden, np.uint16)).all()
    assert not hidden_pixels(np.array(seen, np.uint16)).any()


def test_fill_and_qa_become_fill_for_the_model(tmp_path) -> None:
    numbers, qa = some_numbers(SIDE), np.full(SIDE, CLEAR)
    qa[:5], qa[5:8] = 22280, 23888
    numbers[2, 50, 3] = 0
    with SceneReader(find_scene(write_product(tmp_path / "a", numbers, qa))) as reader:
        pixels = reader.read(-10, -10, SIDE[0] + 20, SIDE[1] + 20)
    inside = pixels[:, 10:-10, 10:-10]
    assert not inside[:, :8].any() and not inside[:, 50, 3].any()
    numbers[:, :8], numbers[:, 50, 3] = 0, 0
    assert np.array_equal(inside, numbers)
    assert pixels.sum() == inside.sum()


def test_the_frame_follows_the_ground() -> None:
    whole = make_frame(SceneGrid(None, rasterio.Affine(30, 0, ORIGIN[0], 0, -30, ORIGIN[1]), 200, 300), 40, 4, 40)
    moved = rasterio.Affine(30, 0, ORIGIN[0] + 50 * 30, 0, -30, ORIGIN[1] - 13 * 30)
    part = make_frame(SceneGrid(None, moved, 150, 200), 40, 4, 40)
    assert (part.output_transform.c - whole.output_transform.c) % 1200 == 0
    assert (part.output_transform.f - whole.output_transform.f) % 1200 == 0
    assert part.global_index(0, 0)[0] % 40 == whole.global_index(0, 0)[0] % 40 == 0
    assert (whole.above, whole.left) == (17, 13)
