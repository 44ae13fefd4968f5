"""Any third dataset: which images, which bands, which numbers, and the whole way to a probe."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from conftest import ROOT
from scene_files import six_band_folder, some_numbers
from tiny import TINY_MODEL, write_config

from configs.schema import read_config
from datasets.image_bands import IGNORED, RGB, band_names
from datasets.labelled_folder import EIGHT_BITS, FolderOptions, LabelledFolderDataset
from datasets.labelled_table import read_table, split_rows
from datasets.loader import BatchLoader, build_dataset
from embed.compute_embed import main as embed
from models import build_model
from models.checkpoint import write_checkpoint
from train_logistic_regression import main as probe
from utils.data_config import BigEarthNetInfo
from utils.errors import ConfigError, DataError
from utils.sensors import ETM, OLI

COLOURS = {"forest": (40, 90, 30), "sand": (220, 200, 150), "water": (10, 30, 120)}


def write_image(path: Path, pixels: np.ndarray, **profile: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    driver = {".png": "PNG", ".jpg": "JPEG", ".tif": "GTiff"}[path.suffix.lower()]
    bands, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver=driver, dtype=pixels.dtype.name, count=bands, height=height, width=width, **profile
    ) as file:
        file.write(pixels)
    return path


def picture(colour: tuple[int, ...], seed: int, side: int = 50) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 25, (len(colour), side, side))
    return np.clip(np.array(colour)[:, None, None] + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Ten pictures of each of three classes, TIF, PNG and JPEG, and things that are none."""
    root = tmp_path / "images"
    for number, (name, colour) in enumerate(COLOURS.items()):
        for index in range(10):
            ending = ("tif", "png", "jpg")[index % 3]
            write_image(root / name / f"{name}_{index}.{ending}", picture(colour, 10 * number + index))
    (root / "forest" / "notes.txt").write_text("not an image")
    (root / "empty").mkdir()
    (root / "README.md").write_text("neither")
    return root


def options(**given: object) -> FolderOptions:
    return FolderOptions(**{"train_split": "0-60%", **given})


# --------------------------------------------------------------------------- which images


def test_folders_are_classes(folder) -> None:
    table = read_table(folder)
    assert table.classes == tuple(COLOURS) and not table.multilabel and len(table.files) == 30
    assert table.files[0] == "forest/forest_0.tif" and table.label_array([0, 10, 29]).tolist() == [0, 1, 2]


def test_ranges_divide_every_class_and_repeat(folder) -> None:
    table = read_table(folder)
    parts = [split_rows(table, text, seed=0) for text in ("0-60%", "60 - 80 %", "80-100%")]
    assert sorted(row for part in parts for row in part) == list(range(30))
    assert [np.bincount(table.label_array(part)).tolist() for part in parts] == [[6] * 3, [2] * 3, [2] * 3]
    assert split_rows(table, "0-60%", seed=0) == parts[0] != split_rows(table, "0-60%", seed=1)


def test_split_files_name_images(folder) -> None:
    table = read_table(folder)
    (folder / "train.txt").write_text("file,label\nsand/sand_1.png,sand\nforest_3.tif\n\n")
    assert [table.files[row] for row in split_rows(table, "train.txt", 0)] == ["sand/sand_1.png", "forest/forest_3.tif"]
    for text, problem in (
        ("sand/nowhere.png", "1 lines name no image"),
        ("forest_3.tif\nforest/forest_3.tif", "lists images twice"),
        ("../secret.png", "leads out of the folder"),
        ("", "lists no images"),
    ):
        (folder / "train.txt").write_text(text)
        with pytest.raises(DataError, match=problem):
            split_rows(table, "train.txt", 0)
    for text, problem in (("60-20%", "smaller to a larger"), ("0-1%", "none falls"), ("no.csv", "no such split file")):
        with pytest.raises(DataError, match=problem):
            split_rows(table, text, 0)


def test_a_csv_may_give_several_labels(folder) -> None:
    path = folder / "labels.csv"
    path.write_text("Filename,Label\nsand/sand_0.tif,dry;bright\nwater/water_0.tif,wet\nforest/forest_0.tif,\n")
    table = read_table(path)
    assert table.multilabel and table.classes == ("bright", "dry", "wet")
    assert table.label_array([0, 1, 2]).tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert sorted(split_rows(table, "0-50%", 0) + split_rows(table, "50-100%", 0)) == [0, 1, 2]
    path.write_text("sand/sand_0.tif,dry\nwater/water_0.tif,wet\n")
    assert read_table(path).label_array([0, 1]).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("sand/sand_0.tif,dry\nsand/sand_1.png\n", "line 2 has no label"),
        ("sand/sand_0.tif,dry\nsand/sand_1.png,\n", "line 2 has no label"),
        ("sand/sand_0.tif,dry\nsand/sand_0.tif,wet\n", "lists images twice"),
        ("sand/none.tif,dry\n", "1 of 1 files are not there"),
        ("file,label\n", "lists no images"),
    ],
)
def test_bad_tables(folder, text: str, problem: str) -> None:
    path = folder / "labels.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=problem) as caught:
        read_table(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_without_classes(tmp_path) -> None:
    with pytest.raises(DataError, match="holds no folder with images"):
        read_table(tmp_path)
    with pytest.raises(DataError, match="no such folder or CSV"):
        read_table(tmp_path / "nowhere")


# --------------------------------------------------------------------------- which bands, which numbers


def test_names_of_bands() -> None:
    assert band_names("RGB") == RGB == ("SR_B4", "SR_B3", "SR_B2") and band_names("bgr") == RGB[::-1]
    assert band_names(["Red", "sr_b5", "other"]) == ("SR_B4", "SR_B5", IGNORED)
    for wrong, problem in ((["B8"], "knows no 'B8'"), (["red", "SR_B4"], "a band twice"), (["other"], "no band")):
        with pytest.raises(ValueError, match=problem):
            band_names(wrong)


def test_pictures_are_normalised_by_their_training_split(folder) -> None:
    """Bands go where their names say; those that are not there are exactly 0; the training split has mean 0, std 1."""
    train, test = (LabelledFolderDataset(folder, text, options=options()) for text in ("0-60%", "60-100%"))
    batch = train.batch(range(len(train)))
    assert train.options.bands == RGB and train.missing == ("SR_B1", "SR_B5", "SR_B6", "SR_B7")
    present = [OLI.bands.index(band) for band in RGB]
    absent = [OLI.bands.index(band) for band in train.missing]
    assert batch.images.shape == (18, 7, 40, 40) and batch.valid.all() and batch.meta is None
    assert not batch.images[:, absent].any() and not test.batch([0, 1]).images[:, absent].any()
    torch.testing.assert_close(batch.images[:, present].mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(batch.images[:, present].std(dim=(0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)
    assert test.statistics == train.statistics and test.statistics_name == "train"
    red, green = (OLI.bands.index(band) for band in ("SR_B4", "SR_B3"))
    forest = train.batch([index for index, name in enumerate(train.ids) if name.startswith("forest")]).images
    assert forest[:, green].mean() > forest[:, red].mean(), "a forest is green beside what the others are"


def test_a_picture_cut_from_its_middle_is_what_the_file_holds(folder) -> None:
    dataset = LabelledFolderDataset(folder, "0-100%", options=options(), crop="center")
    pixels = dataset.read([3]).pixels[0]
    with rasterio.open(dataset.path_of(3)) as file:
        expected = np.maximum(file.read()[:, 5:45, 5:45].astype(int) * EIGHT_BITS, 1)
    np.testing.assert_array_equal(pixels[[3, 2, 1]], expected)


def test_reflectances_become_landsats_numbers(tmp_path) -> None:
    """Stored Landsat numbers with Landsat's own factors stay as they are, in another order of bands and with fill."""
    stored = np.random.default_rng(0).integers(7000, 30000, (3, 45, 45), dtype=np.uint16)
    stored[:, 0] = 0  # fill
    write_image(tmp_path / "a" / "one.tif", stored)
    bands = ("SR_B5", IGNORED, "SR_B2")
    dataset = LabelledFolderDataset(
        tmp_path, "0-100%", options=FolderOptions(bands, 0.0000275, -0.2), crop="center", image_size=45
    )
    pixels = dataset.read([0]).pixels[0]
    np.testing.assert_array_equal(pixels[4], stored[0])
    np.testing.assert_array_equal(pixels[1], stored[2])
    batch = dataset.batch([0])
    assert not batch.valid[0, 0].any() and batch.valid[0, 1:].all()
    assert not batch.images[0, [0, 2, 3, 5, 6]].any()
    mean, std = BigEarthNetInfo.STATISTICS.mean[4], BigEarthNetInfo.STATISTICS.std[4]
    expected = (stored[0, 1:].astype(np.float32) - mean) / std
    np.testing.assert_allclose(batch.images[0, 4, 1:], expected, atol=1e-5)
    np.testing.assert_allclose(batch.images[0, 4, 0, 0], expected[:3, :4].mean(), atol=1e-5)  # of its 4 x 4 pixels
    assert dataset.statistics_name == "bigearthnet_ls"


def test_scale_and_offset_by_hand(tmp_path) -> None:
    """Sentinel-2's 2,000 is a reflectance of 0.2, Landsat's 0.4 / 0.0000275; as a float file holds it too."""
    write_image(tmp_path / "a" / "integer.tif", np.full((1, 40, 40), 2000, np.uint16))
    write_image(tmp_path / "a" / "real.tif", np.full((1, 40, 40), 0.2, np.float32))
    for name, scale in (("integer.tif", 0.0001), ("real.tif", 1.0)):
        (tmp_path / "one.csv").write_text(f"a/{name}")
        dataset = LabelledFolderDataset(tmp_path, "one.csv", options=FolderOptions(("SR_B4",), scale))
        assert (dataset.read([0]).pixels[0, 3] == round(0.4 / 0.0000275)).all()


def test_nothing_there_is_fill(tmp_path) -> None:
    """A nodata value, a transparent pixel and NaN are fill; black is not."""
    pixels = picture((100, 100, 100), 0)
    pixels[:, :10] = 0
    write_image(tmp_path / "a" / "nodata.tif", pixels, nodata=0)
    write_image(tmp_path / "a" / "black.png", pixels)
    alpha = np.concatenate([pixels, np.where(np.arange(50)[:, None] < 10, 0, 255).repeat(50, 1)[None].astype(np.uint8)])
    write_image(tmp_path / "a" / "transparent.png", alpha)
    dataset = LabelledFolderDataset(tmp_path, "0-100%", options=options(train_split="0-100%"), crop="center")
    valid = dict(zip(dataset.ids, dataset.batch(range(3)).valid, strict=True))
    assert valid["a/black.png"].all()
    for name in ("a/nodata.tif", "a/transparent.png"):
        assert not valid[name][:5].any() and valid[name][5:].all()
    real = np.full((1, 45, 45), 0.2, np.float32)
    real[:, :20] = np.nan
    write_image(tmp_path / "b" / "real.tif", real)
    (tmp_path / "one.csv").write_text("b/real.tif")
    found = LabelledFolderDataset(tmp_path, "one.csv", options=FolderOptions(("SR_B4",), 1.0), crop="center")
    assert found.batch([0]).valid[0].sum(dim=1).tolist() == [0] * 18 + [40] * 22


def test_the_fingerprint_knows_what_the_numbers_are_taken_for(folder) -> None:
    one, same = (LabelledFolderDataset(folder, "0-60%", options=options()) for _ in range(2))
    other = LabelledFolderDataset(folder, "0-60%", options=options(bands=RGB[::-1]))
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()


BAD_IMAGES = {
    "grey.png": picture((9,), 0),
    "small.png": picture((9, 9, 9), 0, side=5),
    "real.tif": np.zeros((3, 40, 40), np.float32),
}


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("grey.png", "has 1 bands where 3 are expected"),
        ("small.png", "at least 8 are needed"),
        ("real.tif", "holds float32 numbers; give data.scale"),
        ("broken.png", "is not a readable image"),
        ("cut.tif", "cannot be read"),
    ],
)
def test_bad_images_are_named(folder, name: str, problem: str) -> None:
    path = folder / "sand" / name
    if name in BAD_IMAGES:
        write_image(path, BAD_IMAGES[name])
    elif name == "cut.tif":
        path.write_bytes(write_image(path, picture((9, 9, 9), 0)).read_bytes()[:2000])
    else:
        path.write_text("no picture")
    (folder / "one.csv").write_text(f"sand/{name}")
    with pytest.raises(DataError, match=problem) as caught:
        dataset = build_dataset(
            "labelled_folder", str(folder), "one.csv", image_size=40, folder=options(bands=RGB, train_split="one.csv")
        )
        dataset.read([0])
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_numbers_that_cannot_be_normalised(folder, tmp_path) -> None:
    with pytest.raises(DataError, match="name it `train` in"):
        LabelledFolderDataset(folder, "0-60%")
    with pytest.raises(DataError, match="needs reflectances; give"):
        LabelledFolderDataset(folder, "0-60%", options=options(), statistics="eurosat_ls")
    write_image(tmp_path / "flat" / "a" / "x.png", np.full((3, 40, 40), 7, np.uint8))
    with pytest.raises(DataError, match="SR_B2, SR_B3, SR_B4 never changes"):
        LabelledFolderDataset(tmp_path / "flat", "0-100%", options=options(train_split="0-100%"))
    with pytest.raises(DataError, match="give reflectances of"):
        LabelledFolderDataset(folder, "0-60%", options=FolderOptions(RGB, 1.0)).read([0])
    write_image(tmp_path / "four" / "a" / "x.tif", np.zeros((4, 40, 40), np.uint16), photometric="MINISBLACK")
    with pytest.raises(DataError, match="has 4 bands; say what they are"):
        LabelledFolderDataset(tmp_path / "four", "0-100%", options=options(train_split="0-100%"))


# --------------------------------------------------------------------------- the whole way


def configured(folder: Path, out: Path, **data: object) -> Path:
    """A config on tiny weights."""
    numbers = {key: value for key, value in TINY_MODEL.items() if key not in ("size", "device")}
    out.mkdir(parents=True, exist_ok=True)
    write_checkpoint(out / "model.pth", build_model("XXS", seed=0, **numbers), epoch=0, best_train_loss=0.0)
    splits = {"train": "0-60%", "val": "60-80%", "test": "80-100%"}
    return write_config(
        out / "embed.yaml",
        model={"checkpoint_path": str(out / "model.pth"), "device": "cpu"},
        data={"dataset": "labelled_folder", "dataset_path": str(folder), "splits": splits, "batch_size": 8, **data},
        embed={"out_dir": str(out / "out"), "name": "images", "pool": "mean"},
    )


def test_from_pictures_to_a_probe(folder, tmp_path, caplog, monkeypatch) -> None:
    monkeypatch.setattr("datasets.labelled_table._SAID", set())
    config = configured(folder, tmp_path / "run")
    assert embed(["--config_yaml", str(config)]) == 0
    said = [record.message for record in caplog.records if "filled with the mean" in record.message]
    assert len(said) == 1 and "SR_B1, SR_B5, SR_B6, SR_B7 not in the images" in said[0], "once for all three splits"
    out = tmp_path / "run" / "out"
    record = json.loads((out / "images_test.json").read_text())
    assert record["labelled_folder"]["missing_bands"] == ["SR_B1", "SR_B5", "SR_B6", "SR_B7"]
    assert record["labelled_folder"]["statistics"] == record["config"]["data"]["statistics"] == "train"
    assert record["classes"] == list(COLOURS) and record["x_shape"] == [6, 24]
    arguments = ["--train", str(out / "images_train.npz"), "--val", str(out / "images_val.npz")]
    arguments += ["--test", str(out / "images_test.npz"), "--out", str(tmp_path / "probe"), "--scale", "true"]
    assert probe(arguments) == 0
    scores = json.loads(next((tmp_path / "probe").glob("*.json")).read_text())["metrics"]["test"]
    assert scores["accuracy"] == 1.0, "forest, sand and water have colours of their own"
    # The config that the record holds gives the same again.
    again = tmp_path / "again"
    shutil.copytree(tmp_path / "run", again)
    sections = record["config"] | {"embed": {**record["config"]["embed"], "out_dir": str(again / "out2")}}
    assert embed(["--config_yaml", str(write_config(again / "embed.yaml", **sections))]) == 0
    assert (again / "out2" / "images_test.npz").read_bytes() == (out / "images_test.npz").read_bytes()


def test_several_labels_go_the_whole_way(folder, tmp_path) -> None:
    lines = [
        f"{path.relative_to(folder)},{path.parent.name}{';dark' if path.parent.name != 'sand' else ''}"
        for path in sorted(folder.glob("*/*_*.*"))
    ]
    (folder / "labels.csv").write_text("\n".join(lines))
    config = configured(folder / "labels.csv", tmp_path / "run")
    assert embed(["--config_yaml", str(config)]) == 0
    out = tmp_path / "run" / "out"
    assert np.load(out / "images_train.npz")["y_train"].shape == (18, 4)
    arguments = ["--train", str(out / "images_train.npz"), "--test", str(out / "images_test.npz")]
    assert probe([*arguments, "--out", str(tmp_path / "probe"), "--scale", "true"]) == 0


def test_readers_and_batches_agree(folder) -> None:
    dataset = LabelledFolderDataset(folder, "0-60%", options=options())
    one, two = (list(BatchLoader(dataset, 8, workers, torch.device("cpu")).batches()) for workers in (0, 1))
    assert all(torch.equal(a.images, b.images) and a.ids == b.ids for a, b in zip(one, two, strict=True))


def test_what_files_hide_without_a_word_is_said_by_file(tmp_path, caplog) -> None:
    for index, (name, nodata) in enumerate((("a/one", None), ("a/two", None), ("b/meant", np.nan), ("b/none", None))):
        real = np.full((2, 45, 45), 0.2, np.float32)
        real[1, :3, :index], real[0, 0, 0] = np.nan, np.inf if name == "a/one" else 0.2
        write_image(tmp_path / f"{name}.tif", real if name != "b/none" else np.full_like(real, 0.3), nodata=nodata)
    folder = FolderOptions(("SR_B4", "SR_B5"), 1.0)
    for workers, held in ((0, False), (1, False), (0, True)):
        dataset = LabelledFolderDataset(tmp_path, "0-100%", options=folder, image_size=40, crop="center")
        if held:
            dataset.hold_in_memory()
        loader = BatchLoader(dataset, 3, workers, torch.device("cpu"))
        caplog.clear()
        for _ in range(2):
            assert len(list(loader.batches())) == 2
        said = [line for line in caplog.messages if "infinite" in line]
        assert len(said) == 1 and said[0].endswith(
            "4 pixels of 2 files are taken for hidden: a/two.tif (3), a/one.tif (1)"
        )


@pytest.mark.parametrize("order", [slice(None, None, -1), [0, 1, 2, 4, 3, 5, 6], [5, 3, 0, 6, 1, 4, 2]])
def test_bands_in_another_order_are_noticed(tmp_path, caplog, order) -> None:
    """As reflectances they are refused; stored without a scale they may be anything, so that it is a doubt."""
    right = some_numbers((60, 60))
    for name, values in (("right", right), ("wrong", right[order])):
        write_image(tmp_path / name / "a" / "real.tif", (values * 2.75e-5 - 0.2).astype(np.float32))
        write_image(tmp_path / f"{name}_stored" / "a" / "one.tif", values)
    stated = FolderOptions(OLI.bands, 1.0)
    LabelledFolderDataset(tmp_path / "right", "0-100%", options=stated)
    for _ in range(2):
        with pytest.raises(DataError, match=r"wrong: SR_B.* bands in another order; name them in data\.bands"):
            LabelledFolderDataset(tmp_path / "wrong", "0-100%", options=stated)
    for name, doubts in (("right", 0), ("wrong", 1)):
        caplog.clear()
        for _ in range(2):
            LabelledFolderDataset(tmp_path / f"{name}_stored", "0-100%", options=options(train_split="0-100%"))
        assert sum("another order" in line for line in caplog.messages) == doubts


def test_configs_say_what_is_wrong(tmp_path) -> None:
    def read(**data: object) -> None:
        path = write_config(tmp_path / "c.yaml", model={"size": "XXS"}, data=data)
        read_config(str(path), [], ())

    read(dataset="labelled_folder", bands=["red", "nir"], scale=0.0001, statistics="train")
    for wrong, problem in (
        ({"dataset": "labelled_folder", "bands": "B8"}, r"data\.bands: knows no 'B8'"),
        ({"bands": "RGB"}, r"data\.bands: is for data\.dataset: labelled_folder"),
        ({"scale": 1.0}, r"data\.scale: is for data\.dataset"),
        ({"statistics": "train"}, r"data\.statistics: train is for"),
        ({"dataset": "labelled_folder", "scale": 0}, r"data\.scale: should be greater than 0"),
    ):
        with pytest.raises(ConfigError, match=problem):
            read(**wrong)
    read_config(str(ROOT / "configs" / "embed_labelled_folder.yaml"), [], ())


# --------------------------------------------------------------------------- other sensors


@pytest.mark.parametrize("names", [None, ETM.bands, ETM.common])
def test_images_of_landsat_7(tmp_path, names) -> None:
    """SR_B1 is blue there: taken by the sensor's own names, or in its order."""
    six_band_folder(tmp_path / "etm", names)
    given = FolderOptions(scale=2.75e-5, offset=-0.2, sensor="etm")
    dataset = LabelledFolderDataset(tmp_path / "etm", "0-100%", options=given, crop="center")
    assert dataset.bands == OLI.bands[1:] and dataset.missing == ("SR_B1",)
    seven = LabelledFolderDataset(
        tmp_path / "etm", "0-100%", options=FolderOptions(OLI.bands[1:], 2.75e-5, -0.2, sensor="etm"), crop="center"
    )
    assert np.array_equal(dataset.read([0])[0], seven.read([0])[0])
    assert dataset.description()["sensor"] == "etm"
    if names == ETM.bands:
        of_oli = LabelledFolderDataset(tmp_path / "etm", "0-100%", options=FolderOptions(OLI.bands[1:], 2.75e-5, -0.2))
        with pytest.raises(DataError, match="takes a band for SR_B2"):
            of_oli.read([0])
    if names is None:
        with pytest.raises(DataError, match=r"has 6 bands; those of Landsat 4, 5 or 7: data\.sensor: etm"):
            LabelledFolderDataset(tmp_path / "etm", "0-100%", options=FolderOptions(scale=2.75e-5, offset=-0.2))


def test_weights_are_told_of_missing_bands(tmp_path) -> None:
    six_band_folder(tmp_path / "etm")
    said = {"scale": 2.75e-5, "offset": -0.2, "sensor": "etm", "crop": "center", "statistics": "auto"}
    vectors = {}
    for way in ("mean", "token", "rescale"):
        config = configured(tmp_path / "etm", tmp_path / way, **said)
        numbers = {key: value for key, value in TINY_MODEL.items() if key not in ("size", "device")}
        model = build_model("XXS", seed=0, **numbers, missing_bands=way)
        write_checkpoint(tmp_path / way / "model.pth", model, epoch=0, best_train_loss=0.0)
        assert embed(["--config_yaml", str(config)]) == 0
        with np.load(tmp_path / way / "out" / "images_test.npz") as found:
            vectors[way] = found["x_test"]
    np.testing.assert_array_equal(vectors["token"], vectors["rescale"])  # vectors of missing bands start at 0
    assert np.abs(vectors["mean"] - vectors["token"]).max() > 1e-4
    record = json.loads((tmp_path / "token" / "out" / "images_test.json").read_text())
    assert record["labelled_folder"]["missing_bands"] == ["SR_B1"] and record["labelled_folder"]["sensor"] == "etm"
