"""Tables by their headers, and what images say of themselves: labelled folders and patches."""

import numpy as np
import pytest
import rasterio
from scene_files import some_numbers, write_band

from datasets.bigearthnet import BigEarthNetDatasetLS
from datasets.image_bands import band_names
from datasets.labelled_folder import FolderOptions, LabelledFolderDataset
from datasets.labelled_table import read_table, split_rows
from utils.errors import DataError

SIDE = (44, 44)
NAMES = [f"SR_B{number}" for number in range(1, 8)]


@pytest.fixture
def folder(tmp_path):
    for name in "abcd":
        (tmp_path / "sub").mkdir(exist_ok=True)
        (tmp_path / f"{name}.tif").write_bytes(b"")
    (tmp_path / "sub" / "e.png").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    "lines",
    [
        "file,lat,lon,label\na.tif,48,11,forest\nb.tif,48,11,water\n",
        "path,split,class\na.tif,train,forest\nb.tif,test,water\n",
        ",image_path,class_name\n0,a.tif,forest\n1,b.tif,water\n",
        "Unnamed: 0,label,Filename\n0,forest,a.tif\n1,water,b.tif\n",
        "0,a.tif,forest\n1,b.tif,water\n",
        "file;label\na.tif;forest\nb.tif;water\n",
        "file\tlabel\na.tif\tforest\nb.tif\twater\n",
        "id,label\na,forest\nb,water\n",
        "file,forest,water\na.tif,1,0\nb.tif,0,1\n",
        "filename,biome\n{here}/a.tif,forest\n./b.tif,water\n",
        "file,label\n,forest\na.tif,forest\nb.tif,water\n",
    ],
)
def test_a_table_is_read_by_its_header(folder, lines, caplog) -> None:
    (folder / "t.csv").write_text(lines.replace("{here}", str(folder)))
    table = read_table(folder / "t.csv")
    assert (table.files, table.classes, table.labels) == (["a.tif", "b.tif"], ("forest", "water"), [(0,), (1,)])
    assert not table.multilabel
    assert ("1 lines without a file name left out" in caplog.text) == (
        ",forest\na.tif" in lines and "\n,forest" in lines
    )


@pytest.mark.parametrize(
    "cells",
    [
        "forest;water",
        "forest|water",
        '"forest,water"',
        "\"['forest', 'water']\"",
        '"[forest, water]"',
        '"forest, water"',
    ],
)
def test_several_labels_in_the_usual_forms(folder, cells) -> None:
    (folder / "t.csv").write_text(f"file,label\na.tif,{cells}\nb.tif,water\n")
    table = read_table(folder / "t.csv")
    assert table.multilabel and table.label_array([0, 1]).tolist() == [[1, 1], [0, 1]]


def test_a_comma_inside_a_class_name_separates_nothing(folder) -> None:
    (folder / "t.csv").write_text('file,label\na.tif,"Transitional woodland, shrub"\nb.tif,"Moors, heathland"\n')
    assert read_table(folder / "t.csv").classes == ("Moors, heathland", "Transitional woodland, shrub")


def test_a_column_names_the_splits(folder) -> None:
    (folder / "t.csv").write_text("file,split,label\na.tif,Train,x\nb.tif,test,y\nc.tif,train,y\nd.tif,,x\n")
    table = read_table(folder / "t.csv")
    assert (split_rows(table, "train", 0), split_rows(table, "test", 0)) == ([0, 2], [1])
    with pytest.raises(DataError, match=r"neither a file nor one of the table's splits \(Train, test, train\)"):
        split_rows(table, "val", 0)
    (folder / "s.csv").write_text(",file\n0,c\n1,a.tif\n")
    assert split_rows(table, "s.csv", 0) == [2, 0]


def test_tables_that_do_not_say_what_is_the_label(folder) -> None:
    (folder / "t.csv").write_text("file,colour,mood\na.tif,red,good\nb.tif,blue,bad\n")
    with pytest.raises(DataError, match="no label column among colour, mood; call it label"):
        read_table(folder / "t.csv")


def test_images_below_a_class_count_and_others_are_said(tmp_path, caplog) -> None:
    for path in ("x/a.png", "x/2019/b.png", "y/c.tif", "y/._c.tif", "y/d.jp2", "loose.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"")
    assert read_table(tmp_path).files == ["x/2019/b.png", "x/a.png", "y/c.tif"]
    assert (
        "1 images that are in no class's folder left out" in caplog.text and "1 files that are none of" in caplog.text
    )
    for split in ("train", "test"):
        (tmp_path / "s" / split / "x").mkdir(parents=True)
        (tmp_path / "s" / split / "x" / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="its folders are splits"):
        read_table(tmp_path / "s")


# --------------------------------------------------------------------------- images


def images(root, numbers, **profile):
    for name in "ab":
        write_band(root / name / "1.tif", numbers, **profile)
    return root


def labelled(root, **options):
    return LabelledFolderDataset(root, "0-100%", options=FolderOptions(train_split="0-100%", **options), crop="center")


@pytest.mark.parametrize(
    ("descriptions", "bands"),
    [
        (["blue", "green", "red"], ("blue", "green", "red")),
        (["B4_median", "NIR", "QA_PIXEL"], ("red", "nir08", "other")),
        (["swir_1", "SR_B5", "coastal aerosol"], ("swir16", "nir08", "coastal")),
        (None, ("red", "green", "blue")),
    ],
)
def test_names_of_bands_count(tmp_path, descriptions, bands) -> None:
    dataset = labelled(images(tmp_path, some_numbers(SIDE)[:3], descriptions=descriptions))
    assert dataset.options.bands == band_names(bands)


def test_names_and_config_have_to_agree(tmp_path) -> None:
    root = images(tmp_path, some_numbers(SIDE)[:3], descriptions=["blue", "green", "red"])
    with pytest.raises(DataError, match=r"a band for SR_B4 \(red\) that the file calls blue"):
        labelled(root, bands=("SR_B4", "SR_B3", "SR_B2")).batch([0])
    root = images(tmp_path / "s2", some_numbers(SIDE)[:4], descriptions=["B04", "B05", "B8A", "B11"])
    with pytest.raises(DataError, match="Sentinel-2's"):
        labelled(root)


@pytest.mark.parametrize("fill", [-9999.0, -0.2, np.inf, np.nan, 77.0])
@pytest.mark.parametrize("bands", [slice(0, 1), slice(0, 7)])
def test_hidden_pixels_of_reflectances(tmp_path, fill, bands) -> None:
    numbers = (some_numbers(SIDE) * 2.75e-5 - 0.2).astype(np.float32)
    numbers[bands, :, :22] = fill
    root = images(tmp_path, numbers, nodata=77.0)
    valid = labelled(root, bands=tuple(NAMES), scale=1.0).batch([0]).valid[0]
    assert not valid[:, :20].any() and valid[:, 20:].all()


def test_scales_in_tags_count(tmp_path) -> None:
    root = images(tmp_path, some_numbers(SIDE))
    for path in root.rglob("*.tif"):
        with rasterio.open(path, "r+") as file:
            file.scales, file.offsets = [0.0000275] * 7, [-0.2] * 7
    dataset = labelled(root)
    assert (dataset.options.scale, dataset.options.offset) == (0.0000275, -0.2)
    assert np.array_equal(dataset.read([0]).pixels[0], some_numbers(SIDE)[:, 2:42, 2:42])
    with pytest.raises(DataError, match=r"tags say .*data\.scale 0\.0001"):
        labelled(root, scale=0.0001)


PATCH = "S2A_MSIL2A_20170613T101031_11_66"


@pytest.mark.parametrize(
    ("change", "profile", "reason"),
    [
        (65535, {"nodata": 65535}, None),
        (0, {}, None),
        (None, {"descriptions": NAMES[::-1]}, "calls its SR_B1 SR_B7"),
        (None, {"transform": rasterio.Affine.identity()}, "no usable coordinate reference system"),
    ],
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_patches(tmp_path, change, profile, reason) -> None:
    numbers = some_numbers(SIDE)
    if change is not None:
        numbers[3, :, :22] = change
    write_band(tmp_path / "images" / f"{PATCH}.tif", numbers, **profile)
    (tmp_path / "s.csv").write_text(PATCH)
    dataset = BigEarthNetDatasetLS(tmp_path, "s.csv")
    if reason is None:
        valid = dataset[0].valid
        assert not valid[:, :20].any() and valid[:, 20:].all()
        return
    with pytest.raises(DataError, match=reason):
        dataset.batch([0])
