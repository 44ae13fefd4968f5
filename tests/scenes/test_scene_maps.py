"""What is made of a scene's embeddings: land cover, similarity, reconstruction, labelled cells, pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from metadata_pairs import pairs
from rasterio.warp import transform
from scene_files import (
    CLEAR,
    CLOUD,
    UTM_33N,
    WIDTH,
    embed,
    read,
    some_numbers,
    tiny_checkpoint,
    write_band,
    write_probe,
    write_product,
)

import scenes.products.parquet
from classification_models.logistic_regression import LogisticRegressionModel
from models.checkpoint import load_model
from models.masking import random_masking, unpatchify
from scenes.products.land_cover import class_colours
from scenes.windows import make_frame
from train_logistic_regression import main as train_main
from transformation.transformer import ZScoreNormalize
from utils.data_config import BigEarthNetInfo
from utils.errors import ConfigError, DataError
from utils.randomness import generator


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    qa = np.full((130, 170), CLEAR)
    qa[60:100, 100:130] = CLOUD
    return write_product(tmp_path_factory.mktemp("scene") / "a", some_numbers(), qa)


@pytest.fixture(scope="module")
def truth(tmp_path_factory) -> Path:
    classes = np.full((1, 130, 170), 255, np.uint8)
    classes[:, :, :60], classes[:, :, 60:120], classes[:, :100, 120:] = 0, 1, 2
    path = write_band(tmp_path_factory.mktemp("truth") / "truth.tif", classes)
    with rasterio.open(path, "r+") as file:
        file.update_tags(classes=json.dumps(["low", "middle", "high"]))
    return path


def test_land_cover_is_what_the_probe_says_of_the_embeddings(tmp_path, folder, checkpoint, truth, capsys) -> None:
    probe = write_probe(tmp_path / "p.npz", checkpoint)
    out = tmp_path / "out"
    cells = read(embed(folder, checkpoint, out, "--probe", probe, "--truth", truth, "--stride", 40, "--cell", 8))
    model = LogisticRegressionModel.load(probe)
    valid = np.isfinite(cells[0])
    expected = model.predict_proba(cells[:, valid].T)
    with rasterio.open(out / "probabilities.tif") as file:
        stored = file.read()
        assert file.descriptions == ("low", "middle", "high")
        np.testing.assert_allclose(stored[:, valid].T * file.scales[0], expected, atol=0.5 / 250 + 1e-6)
        assert (stored[:, ~valid] == 255).all()
    with rasterio.open(out / "land_cover.tif") as file:
        named = file.read(1)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert (file.nodata, file.res) == (255, (240, 240))
        assert file.colormap(1)[1] == class_colours(("low", "middle", "high"))[1]
    assert np.array_equal(named[valid], expected.argmax(1)) and (named[~valid] == 255).all()
    assert (out / "land_cover_legend.png").stat().st_size > 1000
    record = json.loads((out / "scene.json").read_text())
    assert record["pool"] == "mean", "the probe's pooling"
    assert sum(record["land_cover"].values()) == pytest.approx(1)
    arrays = np.load(out / "labelled_cells.npz")
    rows, columns = zip(*(map(int, name.split("_")[-2:]) for name in arrays["ids"]), strict=True)
    assert record["truth"]["accuracy"] == pytest.approx((named[rows, columns] == arrays["y_train"]).mean())
    assert record["truth"]["cells"] == len(rows)
    assert "cells right" in capsys.readouterr().out


def test_a_probe_of_metadata_and_cls_maps_its_own_pool(tmp_path, folder, checkpoint) -> None:
    """Without the pool the reason names the one that its width asks for."""
    probe = write_probe(tmp_path / "p.npz", width=5 * WIDTH)
    with pytest.raises(ConfigError, match="takes 120 features, which --pool meta_cls gives"):
        embed(folder, checkpoint, tmp_path / "refused", "--probe", probe)
    cells = read(embed(folder, checkpoint, tmp_path / "out", "--probe", probe, "--pool", "meta_cls"))
    assert len(cells) == 5 * WIDTH
    assert json.loads((tmp_path / "out" / "scene.json").read_text())["pool"] == "meta_cls"
    assert (tmp_path / "out" / "land_cover.tif").is_file()


def test_the_score_by_hand(tmp_path, folder, checkpoint, truth) -> None:
    """A cell's truth is the class of most of its pixels; hidden cells and cells without a class do not count."""
    out = tmp_path / "out"
    embed(folder, checkpoint, out, "--truth", truth)
    frame = make_frame(rasterio_grid(truth), 40, 4, 40)
    arrays = np.load(out / "labelled_cells.npz")
    found = dict(zip(arrays["ids"].tolist(), arrays["y_train"].tolist(), strict=True))
    visible = np.isfinite(read(out / "embeddings.tif")[0])
    classes, expected = read(truth)[0], {}
    for row in range(visible.shape[0]):
        for column in range(visible.shape[1]):
            top, left = row * 40 - frame.above, column * 40 - frame.left
            part = classes[max(0, top) : top + 40, max(0, left) : left + 40]
            counts = np.bincount(part[part != 255], minlength=3)
            if visible[row, column] and counts.sum() >= 800:
                expected[f"LC08_L2SP_193024_20180704_20200831_02_T1_{row}_{column}"] = int(counts.argmax())
    assert found == expected and len(set(expected.values())) == 3


def rasterio_grid(path: Path):
    from scenes.input.grids import open_raster, scene_grid

    return scene_grid(open_raster(path))


@pytest.mark.runs
def test_labelled_cells_train_a_probe_that_maps(tmp_path, folder, checkpoint, truth) -> None:
    embed(folder, checkpoint, tmp_path / "first", "--truth", truth, "--cell", 20, "--pool", "mean")
    cells = tmp_path / "first" / "labelled_cells.npz"
    assert train_main(["--train", str(cells), "--out", str(tmp_path / "probe"), "--scale", "true"]) == 0
    (probe,) = (tmp_path / "probe").glob("*.npz")
    embed(folder, checkpoint, tmp_path / "second", "--truth", truth, "--probe", probe, "--cell", 20)
    record = json.loads((tmp_path / "second" / "scene.json").read_text())
    assert record["pool"] == "mean"
    assert record["truth"]["accuracy"] > max(0.6, record["truth"]["most_frequent_class"])


def test_probes_and_truths_that_do_not_fit(tmp_path, folder, checkpoint, truth) -> None:
    good = write_probe(tmp_path / "good.npz", checkpoint)
    wide = write_probe(tmp_path / "wide.npz", width=105 * WIDTH)
    other = write_probe(tmp_path / "other.npz", tiny_checkpoint(tmp_path / "o.pth", dropout=0.2))
    shifted = write_band(tmp_path / "shifted.tif", read(truth), origin=(0.0, 0.0))
    signed = write_band(tmp_path / "signed.tif", read(truth).astype(np.int16))
    unsaid = write_probe(tmp_path / "unsaid.npz")
    two = write_probe(tmp_path / "two.npz", checkpoint)
    text = two.with_suffix(".json").read_text().replace('"high"', '"other"')
    two.with_suffix(".json").write_text(text)
    for options, reason in (
        (["--probe", wide], "takes 2,520 features, a cell of this model has 24"),
        (["--probe", other], "another checkpoint"),
        (["--probe", good, "--pool", "cls"], "was fitted on pool mean"),
        (["--probe", unsaid, "--pool", "meta_cls"], "takes 24 features, which --pool cls gives"),
        (["--probe", good, "--truth", shifted], "its grid is not the scene's"),
        (["--truth", signed], "holds int16"),
        (["--probe", two, "--truth", truth], "classes are not the probe's"),
    ):
        with pytest.raises((ConfigError, DataError), match=reason) as caught:
            embed(folder, checkpoint, tmp_path / "out", *options)
        assert "\n" not in str(caught.value)


def test_a_eurosat_probe_is_told_no_time_and_place(tmp_path, folder, checkpoint, capsys) -> None:
    data = {"data": {"statistics": "eurosat_ls"}}
    probe = write_probe(tmp_path / "p.npz", checkpoint, dataset="eurosat_ls", config=data)
    embed(folder, checkpoint, tmp_path / "out", "--probe", probe)
    record = json.loads((tmp_path / "out" / "scene.json").read_text())
    assert record["statistics"] == "eurosat_ls"
    assert record["metadata"] == {"week": None, "hour": None, "place": False}
    assert "at another scale" in capsys.readouterr().out


def test_similarity(tmp_path, folder, checkpoint) -> None:
    path = embed(folder, checkpoint, tmp_path / "out", "--cell", 20)
    with rasterio.open(path) as file:
        cells, grid = file.read(), file.transform
    row, column = 3, 2
    x, y = grid.c + (column + 0.5) * grid.a, grid.f + (row + 0.5) * grid.e
    (lon,), (lat,) = transform(UTM_33N, "EPSG:4326", [x], [y])
    before = path.read_bytes()
    embed(folder, checkpoint, tmp_path / "out", "--cell", 20, "--similar-to", f"{lon},{lat}")
    assert path.read_bytes() == before
    found = read(tmp_path / "out" / "similarity.tif")[0]
    valid = np.isfinite(cells[0])
    standard = (cells - cells[:, valid].mean(1)[:, None, None]) / cells[:, valid].std(1)[:, None, None]
    reference = standard[:, row, column]
    expected = np.einsum("dhw,d->hw", standard, reference) / np.linalg.norm(standard, axis=0)
    np.testing.assert_allclose(found, expected / np.linalg.norm(reference), atol=1e-3)
    assert found[row, column] == pytest.approx(1, abs=1e-5) == np.nanmax(found)
    hidden = np.argwhere(~valid)[0]
    x, y = grid.c + (hidden[1] + 0.5) * grid.a, grid.f + (hidden[0] + 0.5) * grid.e
    (lon,), (lat,) = transform(UTM_33N, "EPSG:4326", [x], [y])
    with pytest.raises(ConfigError, match="fill, cloud or shadow there"):
        embed(folder, checkpoint, tmp_path / "out", "--cell", 20, "--similar-to", f"{lon},{lat}")


def test_the_reconstruction_is_the_models_prediction_of_masked_windows(tmp_path, folder, checkpoint) -> None:
    out = tmp_path / "out"
    embed(folder, checkpoint, out, "--reconstruct")
    with rasterio.open(out / "reconstruction.tif") as file:
        found, grid = file.read(), file.transform
        assert file.dtypes[0] == "uint16" and file.nodata == 0 and file.tags()["MOEMAE_MASK_RATIO"] == "0.75"
    with rasterio.open(next(folder.glob("*_SR_B1.TIF"))) as file:
        assert file.transform == grid and file.shape == found.shape[1:]
    frame, model = make_frame(rasterio_grid(next(folder.glob("*_SR_B1.TIF"))), 40, 4, 40), load_model(checkpoint)
    tops, lefts = np.array([40]), np.array([40])
    top, left = 40 - frame.above, 40 - frame.left
    numbers = torch.from_numpy(some_numbers()[None, :, top : top + 40, left : left + 40].copy())
    normalize = ZScoreNormalize(BigEarthNetInfo.STATISTICS)
    meta = torch.from_numpy(pairs([27], [9], *frame.centres(tops, lefts)))
    noise = torch.rand(100, generator=generator(0, "scene mask", *frame.global_index(40, 40)))
    with torch.no_grad():
        predicted, _ = model(normalize(numbers).images, meta, random_masking(noise[None], 0.75), noise=False)
    expected = normalize.invert(unpatchify(predicted, 4, 7))[0].round().clamp(1, 65535).numpy()
    np.testing.assert_allclose(found[:, top : top + 40, left : left + 40], expected, atol=2)
    assert not found[:, 60:100, 100:130].any(), "hidden pixels are nodata"


@pytest.mark.runs
def test_pictures_and_derived_files_stay_the_same(tmp_path, folder, checkpoint) -> None:
    probe = write_probe(tmp_path / "p.npz", checkpoint)
    for name in ("a", "b"):
        embed(folder, checkpoint, tmp_path / name, "--probe", probe, "--dtype", "int8", "--stride", 20)
    for name in ("embeddings.tif", "land_cover.tif", "probabilities.tif", "quick_look.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_a_missing_optional_package_is_one_line(tmp_path, folder, checkpoint, monkeypatch) -> None:
    monkeypatch.setattr(scenes.products.parquet.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="--geoparquet: needs the package pyarrow"):
        embed(folder, checkpoint, tmp_path / "out", "--geoparquet")


def test_geoparquet(tmp_path, folder, checkpoint) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: an optional extra")
    path = embed(folder, checkpoint, tmp_path / "out", "--geoparquet")
    table = parquet.read_table(tmp_path / "out" / "cells.parquet")
    cells = read(path)
    valid = np.isfinite(cells[0])
    assert table.num_rows == valid.sum()
    np.testing.assert_array_equal(np.array(table["embedding"].to_pylist(), np.float32), cells[:, valid].T)
    geo = json.loads(table.schema.metadata[b"geo"])
    assert geo["primary_column"] == "geometry" and geo["columns"]["geometry"]["crs"]["type"] == "ProjectedCRS"
    assert len(table["geometry"][0].as_py()) == 1 + 4 + 4 + 4 + 80
    assert str(table["date"][0]) == "2018-07-04"
