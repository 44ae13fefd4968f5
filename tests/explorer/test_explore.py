"""The interactive page: what is written into it, its pictures, and the command."""

import base64
import io
import json
import re

import numpy as np
import pytest
from conftest import SAMPLE
from embedding_files import clusters, write_embeddings
from explorer_pages import eurosat_file, meta_of, numbers, page_of, sample_file, tile
from packing import EUROSAT, SPLITS, pack
from PIL import Image
from scripts import is_one_clear_line, run

from datasets.bigearthnet import BigEarthNetDatasetLS
from datasets.geotiff import centers_to_lat_lon, read_patch
from explore import main
from explorer.colours import colours
from explorer.pictures import make_pictures, picture
from explorer.points import neighbours, read_points
from utils.data_config import BigEarthNetInfo, EuroSATInfo
from utils.errors import ConfigError, DataError

# --------------------------------------------------------------------------- what is written


def test_the_page_holds_what_the_files_hold(tmp_path) -> None:
    train, val = sample_file(tmp_path, "train"), sample_file(tmp_path, "val")
    meta = meta_of(page_of(tmp_path, train, val))
    ids = [*np.load(train)["ids"], *np.load(val)["ids"]]
    y = np.concatenate([np.load(train)["y_train"], np.load(val)["y_val"]])
    assert meta["ids"] == ids
    bits = np.unpackbits(numbers(meta["labels"], "u1", 240, 3), axis=1, bitorder="little")[:, :19]
    assert (bits == y).all()
    assert meta["classes"] == list(BigEarthNetInfo.CLASSES)
    assert meta["splitNames"] == ["train", "val"]
    assert numbers(meta["splits"], "u1", 240).tolist() == [0] * 192 + [1] * 48
    place = np.array(ids.index("S2A_MSIL2A_20170814T105227_31_76"))
    assert numbers(meta["minutes"], "<i4", 240)[place] == np.datetime64("2017-08-14T10:52").astype(int)
    assert meta["title"] == "240 simulated patches of BigEarthNet-Landsat"
    assert any("No pictures" in line for line in meta["about"])


def test_positions_keep_the_shape_of_the_projection(tmp_path) -> None:
    x = np.random.default_rng(0).normal(size=(50, 6)) * (9, 1, 1, 1, 1, 1)
    file = write_embeddings(tmp_path / "a_train.npz", x, np.arange(50) % 3, None)
    points = read_points([file], 1000, 0)
    from eval.probing.projection import project

    wanted = project(points.x, "pca", 0).points
    got = numbers(meta_of(page_of(tmp_path, file))["views"][0]["xy"], "<u2", 50, 2).astype(float)
    distances = [np.linalg.norm(p[:, None] - p[None], axis=-1) for p in (wanted, got)]
    assert np.allclose(distances[0] / distances[0].max(), distances[1] / distances[1].max(), atol=1e-4)
    assert got.min() == 0 and got.max() == 65535


def test_tsne_comes_first_and_components_beside_it(tmp_path) -> None:
    x, y, ids = clusters(40)
    page = page_of(tmp_path, write_embeddings(tmp_path / "a_train.npz", x, y, ids), options=("--projection", "tsne"))
    names = [view["name"] for view in meta_of(page)["views"]]
    assert [name.split(",")[0] for name in names] == ["t-SNE", "PCA"]


def test_tsne_is_bounded(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("explore.MOST", {"pca": 60, "tsne": 20})
    file = write_embeddings(tmp_path / "a_train.npz", *clusters(60))
    assert meta_of(page_of(tmp_path, file))["count"] == 60
    assert meta_of(page_of(tmp_path, file, options=("--projection", "tsne")))["count"] == 20
    assert "t-SNE of 20 patches: about 0.0 minutes on one core" in capsys.readouterr().out
    assert meta_of(page_of(tmp_path, file, options=("--projection", "tsne", "--most", "30")))["count"] == 30


def test_the_same_input_gives_the_same_bytes(tmp_path) -> None:
    file = sample_file(tmp_path)
    options = ("--dataset_path", str(SAMPLE), "--most", "30")
    first = page_of(tmp_path, file, options=options).read_bytes()
    assert page_of(tmp_path, file, options=options).read_bytes() == first
    assert page_of(tmp_path, file, options=(*options, "--seed", "1")).read_bytes() != first


def test_of_too_many_patches_some_are_drawn(tmp_path, capsys) -> None:
    file = sample_file(tmp_path)
    meta = meta_of(page_of(tmp_path, file, options=("--most", "20")))
    assert meta["count"] == 20 and len(set(meta["ids"])) == 20
    assert set(meta["ids"]) < set(np.load(file)["ids"])
    assert "20 of 48 patches drawn" in capsys.readouterr().out
    assert meta["about"][0] == "20 patches of 48, drawn at random"
    wanted = dict(zip(np.load(file)["ids"], np.load(file)["y_val"], strict=True))
    bits = np.unpackbits(numbers(meta["labels"], "u1", 20, 3), axis=1, bitorder="little")[:, :19]
    assert all((row == wanted[name]).all() for row, name in zip(bits, meta["ids"], strict=True))


def test_neighbours_are_the_nearest_others(tmp_path) -> None:
    x, y, ids = clusters(60)
    x[7] = x[8] = x[9]  # exact copies
    points = read_points([write_embeddings(tmp_path / "a_train.npz", x, y, ids)], 1000, 0)
    found = neighbours(points)
    scaled = (points.x - points.x.mean(axis=0)) / points.x.std(axis=0)
    distance = np.linalg.norm(scaled[:, None] - scaled[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert found.shape == (60, 8)
    assert not (found == np.arange(60)[:, None]).any()
    assert np.allclose(np.take_along_axis(distance, found, 1), np.sort(distance, axis=1)[:, :8], atol=1e-5)
    assert {7, 8} == set(found[9, :2])


def test_a_published_file(tmp_path) -> None:
    """No ids, no record, one-hot labels, all tokens."""
    x = np.random.default_rng(0).normal(size=(12, 105 * 144))
    file = write_embeddings(tmp_path / "eurosat_val.npz", x, np.eye(10)[np.arange(12) % 10], None)
    points = read_points([file], 1000, 0)
    assert points.averaged and points.x.shape == (12, 144)
    assert np.allclose(points.x, x.reshape(12, 105, 144).mean(axis=1), atol=1e-6)
    assert points.classes == EuroSATInfo.CLASSES and not points.multilabel
    meta = meta_of(page_of(tmp_path, file, options=("--dataset_path", str(EUROSAT))))
    assert meta["ids"] is None and meta["sheets"] == 0


def test_files_that_do_not_go_together(tmp_path) -> None:
    x, y, ids = clusters(20)
    a = write_embeddings(tmp_path / "a_train.npz", x, y, ids, checkpoint={"sha256": "1"})
    others = {
        "another checkpoint": write_embeddings(tmp_path / "b_val.npz", x, y, ids, checkpoint={"sha256": "2"}),
        "numbers a patch": write_embeddings(tmp_path / "c_val.npz", x[:, :5], y, ids),
        "labels of another kind": write_embeddings(tmp_path / "d_val.npz", x, np.arange(20) % 4, ids),
    }
    for said, other in others.items():
        with pytest.raises(DataError, match=said):
            read_points([a, other], 1000, 0)
    with pytest.raises(DataError, match="7 patches make no picture"):
        read_points([write_embeddings(tmp_path / "few_val.npz", x[:7], y[:7], ids[:7])], 1000, 0)


def test_colours_are_all_different_and_water_is_blue() -> None:
    for classes in (BigEarthNetInfo.CLASSES, EuroSATInfo.CLASSES, BigEarthNetInfo.CORINE, ("a", "b")):
        texts = colours(classes)
        assert len(set(texts)) == len(classes) == len([t for t in texts if re.fullmatch("#[0-9a-f]{6}", t)])
    red, green, blue = bytes.fromhex(colours(EuroSATInfo.CLASSES)[EuroSATInfo.CLASSES.index("SeaLake")][1:])
    assert blue > green > red


# --------------------------------------------------------------------------- pictures


@pytest.mark.runs
def test_every_tile_is_its_patch(tmp_path) -> None:
    points = read_points([sample_file(tmp_path, "train")], 1000, 0)
    pictures = make_pictures(points, str(SAMPLE))
    dataset = BigEarthNetDatasetLS(SAMPLE, "bigearthnet-train.csv")
    drawn = picture(dataset.read(range(len(dataset))).pixels).astype(float)
    wrong = [np.abs(tile(pictures.sheets, i).mean(axis=(0, 1)) - drawn[i].mean(axis=(0, 1))).max() for i in range(192)]
    assert max(wrong) < 6  # WebP loses a little
    assert min(np.abs(drawn[i] - drawn[(i + 1) % 192]).mean() for i in range(192)) > 2 * np.median(wrong)


def test_more_patches_than_a_sheet_takes(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("explorer.pictures.TILES_A_ROW", 5)
    points = read_points([sample_file(tmp_path)], 1000, 0)
    pictures = make_pictures(points, str(SAMPLE))
    assert len(pictures.sheets) == 2
    sizes = [Image.open(io.BytesIO(base64.b64decode(text))).size for text in pictures.sheets]
    assert sizes == [(200, 200), (200, 200)]
    assert pictures.lat_lon.shape == (48, 2)


def test_fill_is_grey_and_brightness_is_shared() -> None:
    dark, bright = (np.full((7, 4, 4), value, np.uint16) for value in (8000, 16000))
    dark[:, 0] = 0
    shown = picture(np.stack([dark, bright]))
    assert (shown[0, 0] == 153).all()
    assert (shown[0, 1:] < shown[1, 1:]).all()


def test_places_are_those_of_the_files(tmp_path) -> None:
    points = read_points([sample_file(tmp_path)], 1000, 0)
    places = make_pictures(points, str(SAMPLE)).lat_lon
    paths = [SAMPLE / "images" / f"{name}.tif" for name in points.ids]
    lat, lon = centers_to_lat_lon([read_patch(path, 7, 7, 1) for path in paths], [str(path) for path in paths])
    assert np.allclose(places, np.stack([lat, lon], axis=1), atol=1e-4)


def test_a_pack_gives_the_same_pictures(tmp_path) -> None:
    points = read_points([sample_file(tmp_path)], 1000, 0)
    packed = pack(tmp_path / "pack", SAMPLE, SPLITS["bigearthnet_ls"])
    assert make_pictures(points, str(packed)).sheets == make_pictures(points, str(SAMPLE)).sheets


def test_eurosat_has_pictures_and_no_places(tmp_path) -> None:
    pictures = make_pictures(read_points([eurosat_file(tmp_path)], 1000, 0), str(EUROSAT))
    assert len(pictures.sheets) == 1 and pictures.lat_lon is None


def test_another_folder_than_the_one_embedded(tmp_path) -> None:
    x, y, ids = clusters(20)
    points = read_points([write_embeddings(tmp_path / "a_train.npz", x, y, ids)], 1000, 0)
    with pytest.raises(DataError, match=r"--dataset_path .*is not what was embedded .*20 of 20 files are missing"):
        make_pictures(points, str(SAMPLE))


# --------------------------------------------------------------------------- the command


def test_numbers_that_make_no_picture(tmp_path) -> None:
    alike, many = tmp_path / "alike.npz", tmp_path / "many.npz"
    np.savez(alike, x_val=np.ones((9, 5), np.float32), y_val=np.zeros(9, np.int64))
    np.savez(many, x_val=np.eye(9, dtype=np.float32), y_val=np.full(9, 70_000))
    for file, said in ((alike, "the same numbers"), (many, "70,001 classes")):
        with pytest.raises(DataError, match=said):
            main(["--embeddings", str(file), "--out", str(tmp_path / "page.html"), "--projection", "tsne"])


@pytest.mark.parametrize(
    ("record", "named"),
    [
        ({"dataset": ["x"]}, "dataset"),
        ({"checkpoint": "x"}, "checkpoint"),
        ({"checkpoint": {"sha256": 5}}, r"checkpoint\.sha256"),
        ({"config": 5}, "config"),
        ({"config": {"data": 5}}, r"config\.data"),
    ],
)
def test_a_record_of_another_kind(tmp_path, record, named) -> None:
    file = tmp_path / "e.npz"
    np.savez(file, x_val=np.eye(9, dtype=np.float32), y_val=np.zeros(9, np.int64))
    file.with_suffix(".json").write_text(json.dumps(record))
    with pytest.raises(DataError, match=rf"e\.json: `{named}` is of another kind"):
        main(["--embeddings", str(file), "--out", str(tmp_path / "page.html")])


def test_what_a_user_can_mend(tmp_path) -> None:
    file = str(sample_file(tmp_path))
    for arguments, said in (
        (["--embeddings", file, "--out", str(tmp_path / "page.pdf")], "ends in .html"),
        (["--embeddings", file], "--out"),
        (["--embeddings", file, "--out", "x.html", "--most", "3"], "--most needs at least 8"),
        (["--embeddings", file, "--out", "x.html", "--seed", str(2**40)], "--seed 0 to"),
        (["--embeddings", file, "--out", "x.html", "--projection", "umap"], "invalid choice"),
    ):
        with pytest.raises(ConfigError, match=said):
            main(arguments)
    with pytest.raises(DataError, match=r"nowhere\.npz: no such file"):
        main(["--embeddings", str(tmp_path / "nowhere.npz"), "--out", str(tmp_path / "page.html")])
    assert not list(tmp_path.glob("*.html"))


def test_the_script_ends_in_one_line(tmp_path) -> None:
    done = run("explore.py", "--embeddings", tmp_path / "nowhere.npz", "--out", tmp_path / "page.html")
    is_one_clear_line(done, "nowhere.npz", "no such file")
