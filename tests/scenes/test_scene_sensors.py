"""Scenes of Landsat 4 to 7: six bands in any form, a coastal band that influences nothing, gaps, one lattice."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from scene_files import embed, read, some_numbers, tiny_checkpoint, write_band, write_probe, write_product

from datasets.simulated import main as simulate
from models import MOEMAE
from scenes.input.checks import check_numbers
from scenes.input.product import SceneOptions, find_scene
from scenes.input.reader import SceneReader
from transformation.cross_sensor import ETM_TO_OLI, along
from transformation.present_bands import PresentBands
from transformation.transformer import ZScoreNormalize
from utils.data_config import BigEarthNetInfo
from utils.errors import ConfigError, DataError
from utils.sensors import ETM, OLI, TM, UNSTATED

SIDE = (60, 70)
ETM_ID = "LE07_L2SP_193024_20020704_20200831_02_T1"
SIX = ("blue", "green", "red", "nir08", "swir16", "swir22")


def six(side=SIDE, seed: int = 0) -> np.ndarray:
    return some_numbers(side, seed)[1:]


def write_six(folder: Path, numbers: np.ndarray, product: str = ETM_ID) -> Path:
    """A folder of ETM+ or TM: SR_B1 is blue, and there is no SR_B6."""
    for number, band in zip((1, 2, 3, 4, 5, 7), numbers, strict=True):
        write_band(folder / f"{product}_SR_B{number}.TIF", band[None])
    return folder


def pixels(path: Path, **options) -> np.ndarray:
    scene = find_scene(path, SceneOptions(**options))
    with SceneReader(scene) as reader:
        check_numbers(reader)
        return reader.read(0, 0, scene.grid.height, scene.grid.width)


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, Path]:
    """One simulated place as several sensors see it."""
    home = tmp_path_factory.mktemp("place")
    options = {
        "oli": ["--year", "2025"],
        "etm": ["--sensor", "etm"],
        "gaps": ["--sensor", "etm", "--slc-off"],
        "tm": ["--sensor", "tm", "--year", "1984"],
    }
    for name, extra in options.items():
        assert simulate(["--kind", "scene", "--size", "200", "--seed", "5", "--out", str(home / name), *extra]) == 0
    return {name: home / name for name in options}


@pytest.fixture(scope="module")
def token_weights(tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("weights") / "tiny.pth", missing_bands="token")


# --------------------------------------------------------------------------- which sensor, which bands


@pytest.mark.parametrize(
    ("product", "sensor"),
    [(ETM_ID, ETM), ("LT05_L2SP_193024_19840704_20200831_02_T1", TM), ("LT04_L2SP_193024_19890704_20200831_02_T1", TM)],
)
def test_products_of_six_bands_are_read_by_their_id(tmp_path, product, sensor) -> None:
    folder = write_six(tmp_path / "a", six(), product)
    scene = find_scene(folder)
    assert scene.sensor is sensor and len(scene.bands) == 6 and scene.time.day.year == int(product[17:21])
    assert np.array_equal(pixels(folder), six())
    assert np.array_equal(pixels(folder / f"{product}_SR_B4.TIF"), six()), "a band stands for the folder"
    with pytest.raises(DataError, match=r"the product id says .*--sensor says OLI.*leave --sensor out"):
        find_scene(folder, SceneOptions(sensor="oli"))
    (folder / f"{product}_SR_B7.TIF").unlink()
    with pytest.raises(DataError, match=f"{product}_SR_B7.TIF missing"):
        find_scene(folder)


def test_nothing_is_guessed_without_an_id(tmp_path) -> None:
    folder = write_six(tmp_path / "a", six(), "mine")
    with pytest.raises(DataError, match=r"bands of Landsat 4, 5 or 7; .*--sensor tm or --sensor etm"):
        find_scene(folder)
    assert find_scene(folder, SceneOptions(sensor="tm")).sensor is TM
    mtl = {"LANDSAT_METADATA_FILE": {"IMAGE_ATTRIBUTES": {"SPACECRAFT_ID": "LANDSAT_7"}}}
    (folder / "mine_MTL.json").write_text(json.dumps(mtl))
    assert find_scene(folder).sensor is ETM and np.array_equal(pixels(folder), six())
    mtl["LANDSAT_METADATA_FILE"]["IMAGE_ATTRIBUTES"]["SPACECRAFT_ID"] = "LANDSAT_3"
    (folder / "mine_MTL.json").write_text(json.dumps(mtl))
    with pytest.raises(DataError, match="LANDSAT_3"):
        find_scene(folder)
    with pytest.raises(ConfigError, match="--sensor msi: choose one of oli, etm, tm"):
        find_scene(folder, SceneOptions(sensor="msi"))


def test_stacks_of_six_bands(tmp_path) -> None:
    unnamed = write_band(tmp_path / "six.tif", six())
    with pytest.raises(DataError, match=r"has 6 bands, expected 7.*--sensor etm"):
        find_scene(unnamed)
    assert np.array_equal(pixels(unnamed, sensor="etm"), six())
    assert find_scene(unnamed, SceneOptions(sensor="etm")).sensor is ETM
    named = write_band(tmp_path / "named.tif", six(), descriptions=SIX)
    assert find_scene(named).sensor == UNSTATED.only(SIX) and np.array_equal(pixels(named), six())
    numbered = write_band(tmp_path / "numbered.tif", six(), descriptions=ETM.bands)
    with pytest.raises(DataError, match="--sensor tm or --sensor etm"):
        find_scene(numbered)
    assert np.array_equal(pixels(numbered, sensor="etm"), six())
    moved = write_band(tmp_path / "moved.tif", np.roll(six(), 1, axis=0), descriptions=np.roll(SIX, 1).tolist())
    with pytest.raises(DataError, match="--bands 2,3,4,5,6,1"):
        find_scene(moved, SceneOptions(sensor="etm"))
    assert np.array_equal(pixels(moved, sensor="etm", bands=(2, 3, 4, 5, 6, 1)), six())
    with pytest.raises(ConfigError, match="give six different numbers"):
        find_scene(moved, SceneOptions(sensor="etm", bands=(1, 2, 3, 4, 5, 6, 7)))
    seven = write_band(tmp_path / f"{ETM_ID}.tif", some_numbers(SIDE))
    with pytest.raises(DataError, match="has 7 bands, expected 6"):
        find_scene(seven)


def test_bands_by_their_names(tmp_path) -> None:
    stack = np.concatenate([some_numbers(SIDE)[[4, 3, 2, 1]], some_numbers(SIDE)[:1]])
    path = write_band(tmp_path / "rgbn.tif", stack)
    names = ("nir", "red", "green", "blue", "other")
    scene = find_scene(path, SceneOptions(bands=names))
    assert scene.sensor.common == ("blue", "green", "red", "nir08") and scene.sensor.name == "unstated"
    assert np.array_equal(pixels(path, bands=names), some_numbers(SIDE)[1:5])
    assert find_scene(path, SceneOptions(bands=names, sensor="etm")).sensor == ETM.only(scene.sensor.common)
    whole = write_band(tmp_path / "seven.tif", some_numbers(SIDE)[::-1])
    assert find_scene(whole, SceneOptions(bands=OLI.common[::-1])).sensor is OLI
    for wrong, reason in (
        (("red", "green"), "2 names, .* has 5 bands"),
        (("nir", "red", "green", "blue", "purple"), "purple is none of"),
        (("nir", "red", "green", "red", "other"), "red is named twice"),
        (("other",) * 5, "names none of"),
        (("B8A", "red", "green", "blue", "other"), "B8A is none of"),
    ):
        with pytest.raises(ConfigError, match=reason):
            find_scene(path, SceneOptions(bands=wrong))
    contradicting = write_band(tmp_path / "r.tif", stack[:2], descriptions=("red", "nir"))
    with pytest.raises(DataError, match=r"takes band 2 for SR_B4 \(red\), the file calls it nir"):
        find_scene(contradicting, SceneOptions(bands=("nir", "red")))


def test_a_stac_item_of_landsat_7(tmp_path) -> None:
    write_six(tmp_path, six())
    assets = {name: {"href": f"{ETM_ID}_{band}.TIF"} for name, band in zip(ETM.common, ETM.bands, strict=True)}
    properties = {"platform": "landsat-7", "datetime": "2002-07-04T09:52:31Z"}
    item = {"type": "Feature", "id": ETM_ID, "properties": properties, "assets": assets}
    (tmp_path / "item.json").write_text(json.dumps(item))
    scene = find_scene(tmp_path / "item.json")
    assert scene.sensor is ETM and np.array_equal(pixels(tmp_path / "item.json"), six())
    properties["platform"] = "landsat-8"
    (tmp_path / "item.json").write_text(json.dumps(item))
    with pytest.raises(DataError, match=r"its platform says OLI.*its id says ETM"):
        find_scene(tmp_path / "item.json")
    properties["platform"] = "landsat-2"
    (tmp_path / "item.json").write_text(json.dumps(item))
    with pytest.raises(DataError, match="Landsat 2"):
        find_scene(tmp_path / "item.json")


def test_an_order_of_bands_is_judged_without_the_missing_ones(tmp_path) -> None:
    waves = 1 + 0.2 * np.sin(np.mgrid[: SIDE[0], : SIDE[1]].sum(0) / 13)
    plants = np.array([0.03, 0.06, 0.04, 0.35, 0.18, 0.08])[:, None, None] * waves
    numbers = ((plants + 0.2) / 0.0000275).astype(np.uint16)
    assert pixels(write_band(tmp_path / "a.tif", numbers), sensor="etm").any()
    with pytest.raises(DataError, match="red is far brighter than nir08"):
        pixels(write_band(tmp_path / "b.tif", numbers[::-1].copy()), sensor="etm")


# --------------------------------------------------------------------------- what the model gets


def test_given_bands_alone_say_what_is_hidden() -> None:
    given, normalize = PresentBands.of(ETM), ZScoreNormalize(BigEarthNetInfo.STATISTICS)
    numbers = torch.from_numpy(six((40, 40))[None].copy())
    numbers[0, :, :4, :4] = 0
    images, valid = given.normalized(numbers, normalize)
    whole = torch.from_numpy(some_numbers((40, 40))[None].copy())
    whole[0, :, :4, :4] = 0
    expected, seen = normalize(whole)
    assert torch.equal(valid, seen) and torch.equal(images[:, 1:], expected[:, 1:])
    assert images[:, 0].abs().max() < 1e-3, "the mean stands there"
    assert given.mask(3, torch.device("cpu")).tolist() == [[False] + [True] * 6] * 3
    assert PresentBands.of(OLI).mask(3, torch.device("cpu")) is None


@pytest.mark.parametrize("missing_bands", ["mean", "token"])
def test_what_stands_for_a_missing_band_influences_nothing(tmp_path, places, missing_bands, monkeypatch) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "tiny.pth", missing_bands=missing_bands)
    usual = embed(places["etm"], checkpoint, tmp_path / "usual", "--stride", 20, "--reconstruct")
    normalized = PresentBands.normalized

    def with_nan(self: PresentBands, numbers: torch.Tensor, normalize: ZScoreNormalize):
        images, valid = normalized(self, numbers, normalize)
        images[:, ~torch.tensor(self.present)] = np.nan
        return type(normalize(torch.ones(1, 7, 4, 4, dtype=torch.uint16)))(images, valid)

    monkeypatch.setattr(PresentBands, "normalized", with_nan)
    other = embed(places["etm"], checkpoint, tmp_path / "other", "--stride", 20, "--reconstruct")
    assert np.isfinite(read(usual)).any()
    for name in ("embeddings.tif", "reconstruction.tif"):
        assert np.array_equal(read(usual.with_name(name)), read(other.with_name(name)), equal_nan=True)


def test_gaps_are_hidden_pixels(tmp_path, places, token_weights) -> None:
    whole = read(embed(places["etm"], token_weights, tmp_path / "etm", "--stride", 20))
    gaps = read(embed(places["gaps"], token_weights, tmp_path / "gaps", "--stride", 20, "--reconstruct"))
    with SceneReader(find_scene(places["gaps"])) as reader:
        seen = (reader.read(0, 0, 200, 200) != 0).all(axis=0)
    assert np.array_equal(seen, (reader_of(places["etm"]) != 0).all(axis=0) & seen)
    lost = np.isfinite(whole[0]) & ~np.isfinite(gaps[0])
    assert 0.02 < lost.mean() < 0.3, "cells in gaps follow --min-clear"
    reconstruction = read(tmp_path / "gaps" / "reconstruction.tif")
    assert len(reconstruction) == 6 and not reconstruction[:, ~seen].any(), "nothing that was not seen is shown as seen"
    assert find_scene(places["gaps"]).bands[0].nodata == 0


def reader_of(path: Path) -> np.ndarray:
    with SceneReader(find_scene(path)) as reader:
        return reader.read(0, 0, 200, 200)


def test_records_name_the_sensor_and_the_missing_bands(tmp_path, places, token_weights) -> None:
    embed(places["etm"], token_weights, tmp_path / "etm", "--stac", "--adjust-to-oli", "rma")
    record = json.loads((tmp_path / "etm" / "scene.json").read_text())
    assert (record["sensor"], record["missing_bands"], record["adjusted_to_oli"]) == ("etm", ["coastal"], "rma")
    item = json.loads((tmp_path / "etm" / "stac_item.json").read_text())["properties"]
    assert item["instruments"] == ["etm"] and item["emb:runtime_parameters"]["missing_bands"] == ["coastal"]
    with rasterio.open(tmp_path / "etm" / "embeddings.tif") as file:
        assert "coastal" in file.tags()["MOEMAE_MISSING_BANDS"]
    embed(places["oli"], token_weights, tmp_path / "oli")
    record = json.loads((tmp_path / "oli" / "scene.json").read_text())
    assert not {"sensor", "missing_bands", "adjusted_to_oli"} & set(record), "as before where all bands are there"


def test_the_user_is_told_what_the_weights_do_not_know(tmp_path, places, token_weights, capsys) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "tiny.pth")
    embed(places["etm"], checkpoint, tmp_path / "a")
    said = capsys.readouterr()
    text = said.out + said.err
    assert "missing to the model: coastal" in text and "not trained with missing bands" in text
    embed(places["etm"], token_weights, tmp_path / "b")
    said = capsys.readouterr()
    assert "not trained with missing bands" not in said.out + said.err
    probe = write_probe(tmp_path / "probe.npz", checkpoint)
    embed(places["etm"], checkpoint, tmp_path / "c", "--probe", probe, "--pool", "mean")
    said = capsys.readouterr()
    assert "probe.npz was fitted on embeddings of all 7 bands, this scene lacks coastal" in said.out + said.err


# --------------------------------------------------------------------------- OLI's reflectance, one lattice


def test_adjustment_is_that_of_the_published_lines(tmp_path, places) -> None:
    plain = reader_of(places["etm"])
    for name, lines in ETM_TO_OLI.items():
        with SceneReader(find_scene(places["etm"], SceneOptions(adjust=name))) as reader:
            assert np.array_equal(reader.read(0, 0, 200, 200), along(plain, lines))
    with pytest.raises(ConfigError, match="is for ETM"):
        find_scene(places["oli"], SceneOptions(adjust="rma"))
    with pytest.raises(ConfigError, match="choose one of rma, ols"):
        find_scene(places["etm"], SceneOptions(adjust="best"))
    stack = write_band(tmp_path / "rgb.tif", plain[:3])
    names = ("blue", "green", "red")
    with SceneReader(find_scene(stack, SceneOptions(bands=names, sensor="etm", adjust="ols"))) as reader:
        assert np.array_equal(reader.read(0, 0, 200, 200), along(plain[:3], ETM_TO_OLI["ols"].only(names)))


def test_1984_and_2025_lie_on_one_lattice(tmp_path, places, token_weights) -> None:
    files = [embed(places[name], token_weights, tmp_path / name, "--stride", 20) for name in ("tm", "oli")]
    with rasterio.open(files[0]) as then, rasterio.open(files[1]) as now:
        assert (then.transform, then.shape, then.crs) == (now.transform, now.shape, now.crs)
    pytest.importorskip("xarray")
    model = MOEMAE.from_pretrained(token_weights)
    series = model.embed_series([places["oli"], places["tm"]], stride=20)
    assert series.sizes["time"] == 2 and [str(time)[:4] for time in series.time.values] == ["1984", "2025"]
    assert np.array_equal(series[0].values.astype(np.float16), read(files[0]), equal_nan=True)
    one = model.embed_map(places["etm"], adjust_to_oli="rma")
    assert one.attrs["missing_bands"] == ["coastal"] and one.attrs["adjusted_to_oli"] == "rma"


def test_a_picture_of_bands_without_true_colour(tmp_path, token_weights) -> None:
    path = write_band(tmp_path / "s.tif", some_numbers((80, 80))[4:6])
    out = embed(path, token_weights, tmp_path / "out", "--bands", "nir08,swir16", "--reconstruct")
    assert (out.parent / "quick_look.png").is_file() and len(read(out.with_name("reconstruction.tif"))) == 2


def test_seven_bands_give_what_they_gave(tmp_path) -> None:
    """The path of missing bands is not taken: numbers, masks and records of OLI are those of before."""
    folder = write_product(tmp_path / "a", some_numbers(SIDE))
    scene = find_scene(folder)
    assert scene.sensor is OLI and scene.adjusted is None
    normalize = ZScoreNormalize(BigEarthNetInfo.STATISTICS)
    numbers = torch.from_numpy(some_numbers((40, 40))[None].copy())
    given, plain = PresentBands.of(OLI).normalized(numbers.clone(), normalize), normalize(numbers)
    assert torch.equal(given.images, plain.images) and torch.equal(given.valid, plain.valid)
