"""The interactive page: what is written into it, and what a person can do with it in a real browser."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from browser import Page
from conftest import SAMPLE
from embedding_files import clusters, write_embeddings
from packing import EUROSAT, SPLITS, pack
from PIL import Image
from test_scripts import is_one_clear_line, run

from datasets.bigearthnet import BigEarthNetDatasetLS
from datasets.eurosat import EuroSATDatasetLS
from datasets.geotiff import centers_to_lat_lon, read_patch
from explore import main
from explorer.colours import colours
from explorer.pictures import TILES_A_ROW, make_pictures, picture
from explorer.points import neighbours, read_points
from utils.data_config import BigEarthNetInfo, EuroSATInfo
from utils.errors import ConfigError, DataError

SIDE = 40
MANY = 20_000
FRAME_MS = 1000 / 60
"""Even without a GPU 20,000 patches are painted within this (measured: 2). On a busy machine the best one counts."""


def meta_of(page: Path) -> dict:
    text = re.search(r'<script type="application/json" id="meta">(.*?)</script>', page.read_text(), re.S)
    return json.loads(text[1])


def numbers(text: str, kind: str, *shape: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind).reshape(shape or -1)


def sample_file(folder: Path, split: str = "val", **record: object) -> Path:
    """Made-up embeddings of the embedded sample's patches."""
    dataset = BigEarthNetDatasetLS(SAMPLE, f"bigearthnet-{split}.csv", labels="error")
    x = np.random.default_rng(len(dataset)).normal(size=(len(dataset), 12)) + dataset.labels.numpy() @ np.ones((19, 12))
    known = {"dataset": "bigearthnet_ls", "simulated": True, "classes": BigEarthNetInfo.CLASSES, "multilabel": True}
    return write_embeddings(folder / f"sample_{split}.npz", x, dataset.labels.numpy(), dataset.ids, **known | record)


def eurosat_file(folder: Path) -> Path:
    dataset = EuroSATDatasetLS(EUROSAT, "eurosat-train.txt")
    x = np.random.default_rng(1).normal(size=(len(dataset), 12))
    return write_embeddings(folder / "e_train.npz", x, dataset.labels.numpy(), dataset.ids)


def page_of(folder: Path, *embeddings: Path, options: tuple[str, ...] = ()) -> Path:
    out = folder / "page.html"
    assert main(["--embeddings", *map(str, embeddings), "--out", str(out), *options]) == 0
    return out


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
    from eval.projection import project

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


def tile(sheets: list[str], index: int) -> np.ndarray:
    sheet, at = divmod(index, TILES_A_ROW**2)
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheets[sheet]))).convert("RGB"))
    row, column = divmod(at, TILES_A_ROW)
    return image[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE].astype(float)


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


# --------------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def sample_page(tmp_path_factory) -> Path:
    """The embedded sample with pictures, two splits."""
    folder = tmp_path_factory.mktemp("sample")
    files = sample_file(folder, "train"), sample_file(folder, "val")
    return page_of(folder, *files, options=("--dataset_path", str(SAMPLE)))


@pytest.fixture(scope="module")
def many_page(tmp_path_factory) -> Path:
    """20,000 patches without pictures."""
    folder = tmp_path_factory.mktemp("many")
    return page_of(folder, write_embeddings(folder / "many_train.npz", *clusters(MANY)))


@pytest.fixture
def shown(browser, sample_page) -> Page:
    browser.requests.clear()
    browser.complaints.clear()
    browser.open(sample_page)
    yield browser
    assert browser.complaints == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [sample_page.as_uri()]


def spot(page: Page, index: int) -> tuple[float, float]:
    """Where a patch is in the window."""
    x, y = (page.js(f"explorer.to{axis}({index})") for axis in "XY")
    return x, y + page.js("document.getElementById('plot').getBoundingClientRect().top")


def lonely(page: Page) -> int:
    """The patch farthest from all others on the plane, of those that no button covers."""
    count = page.js("JSON.parse(document.getElementById('meta').textContent).count")
    at = np.array(page.js(f"Array.from({{length: {count}}}, (_, i) => [explorer.toX(i), explorer.toY(i)])"))
    distance = np.linalg.norm(at[:, None] - at[None], axis=-1) + 1e9 * np.eye(count)
    height = page.js("explorer.camera.height")
    free = (at[:, 0] > 80) & (at[:, 1] < height - 60)
    return int(np.where(free, distance.min(axis=1), 0).argmax())


def text(page: Page, element: str) -> str:
    return page.js(f"document.getElementById('{element}').innerText")


def choose(page: Page, element: str, option: str) -> None:
    page.js(f"""(() => {{ const menu = document.getElementById('{element}');
        menu.value = [...menu.options].find((one) => one.text === {json.dumps(option)}).value;
        menu.dispatchEvent(new Event('change')); }})()""")
    page.frame()


def test_pointing_at_a_patch_shows_it(shown, sample_page) -> None:
    index = lonely(shown)
    shown.mouse("mouseMoved", *spot(shown, index))
    shown.until("document.querySelector('#tip canvas')")
    meta = meta_of(sample_page)
    said = text(shown, "tip")
    labels = np.unpackbits(numbers(meta["labels"], "u1", 240, 3), axis=1, bitorder="little")[index, :19]
    assert meta["ids"][index] in said
    assert all((name in said) == bool(has) for name, has in zip(meta["classes"], labels, strict=True))
    lat, lon = numbers(meta["latLon"], "<f4", 240, 2)[index]
    assert f"{lat:.3f}° N, {abs(lon):.3f}° {'E' if lon > 0 else 'W'}" in said
    assert re.search(r"20\d\d-\d\d-\d\d \d\d:\d\d UTC", said)
    shown.mouse("mouseMoved", 3, 300)
    assert shown.js("document.getElementById('tip').hidden")


def test_the_picture_shown_is_the_patch(shown, sample_page) -> None:
    index = lonely(shown)
    shown.mouse("mouseMoved", *spot(shown, index))
    mean = """(() => { const canvas = document.querySelector('#tip canvas');
        const data = canvas.getContext('2d').getImageData(0, 0, 40, 40).data; const sum = [0, 0, 0, 0];
        data.forEach((value, k) => { sum[k % 4] += value / 1600; }); return sum; })()"""
    shown.until(f"{mean}[3] > 254.9")
    points = read_points([sample_page.parent / "sample_train.npz", sample_page.parent / "sample_val.npz"], 1000, 0)
    wanted = tile(make_pictures(points, str(SAMPLE)).sheets, index).mean(axis=(0, 1))
    assert np.allclose(shown.js(mean)[:3], wanted, atol=3)


def test_a_click_selects_and_neighbours_lead_on(shown, sample_page) -> None:
    index = lonely(shown)
    shown.click(*spot(shown, index))
    assert shown.js("explorer.selected()") == index
    meta = meta_of(sample_page)
    near = numbers(meta["near"], "<u4", 240, 8)[index]
    rows = shown.js("[...document.querySelectorAll('#details tbody tr')].map((row) => row.innerText)")
    assert [next(name for name in meta["ids"] if name in row) for row in rows] == [meta["ids"][j] for j in near]
    labels = np.unpackbits(numbers(meta["labels"], "u1", 240, 3), axis=1, bitorder="little")[:, :19]
    assert f"{labels[index] @ labels[near[0]]} of {labels[index].sum()}" in rows[0]
    assert meta["ids"][index] in text(shown, "said")
    shown.js("document.querySelector('#details tbody button').click()")
    assert shown.js("explorer.selected()") == near[0]
    shown.key("Escape")
    assert shown.js("explorer.selected()") == -1 and shown.js("document.getElementById('details').hidden")


def test_the_menu_colours_and_counts_by_label(shown, sample_page) -> None:
    meta = meta_of(sample_page)
    labels = np.unpackbits(numbers(meta["labels"], "u1", 240, 3), axis=1, bitorder="little")[:, :19]
    frequency = labels.sum(axis=0, dtype=np.int64)

    def legend() -> dict[str, int]:
        rows = shown.js("[...document.querySelectorAll('#groups li label')].map((row) => row.innerText)")
        return {row.splitlines()[0]: int(row.splitlines()[-1].replace(",", "")) for row in rows}

    most = np.where(labels, frequency, -1).argmax(axis=1)
    few = np.where(labels, frequency, 10**6).argmin(axis=1)
    for option, chosen in (("most frequent label", most), ("rarest label", few)):
        choose(shown, "mode", option)
        wanted = {name: int((chosen[labels.any(axis=1)] == k).sum()) for k, name in enumerate(meta["classes"])}
        wanted["no label"] = int((~labels.any(axis=1)).sum())
        assert legend() == {name: number for name, number in wanted.items() if number}
    label = int(np.argmin(np.abs(frequency - 60)))
    choose(shown, "mode", f"has: {meta['classes'][label]}")
    assert legend() == {meta["classes"][label]: frequency[label], "without it": 240 - frequency[label]}
    choose(shown, "mode", "split")
    assert legend() == {"train": 192, "val": 48}
    choose(shown, "mode", "month")
    months = numbers(meta["minutes"], "<i4", 240).astype("datetime64[m]").astype("datetime64[M]").astype(int) % 12
    assert list(legend().values()) == [int((months == month).sum()) for month in range(12) if (months == month).any()]


def test_the_legend_filters(shown) -> None:
    choose(shown, "mode", "split")
    shown.js("document.querySelectorAll('#groups input')[0].click()")  # train
    assert "48 of 240 shown" in text(shown, "showing")
    found = shown.js(
        "Array.from({length: 400}, (_, k) => explorer.nearest(20 * (k % 40), 40 * Math.floor(k / 40), 900))"
    )
    assert min(found) >= 192
    shown.js("document.querySelectorAll('#groups .only')[0].click()")
    assert "192 of 240 shown" in text(shown, "showing")
    shown.js("document.getElementById('none').click()")
    assert shown.js("explorer.nearest(300, 300, 900)") == -1
    shown.js("document.getElementById('all').click()")
    assert "240 of 240 shown" in text(shown, "showing")


def test_search_finds_an_id_even_if_it_is_filtered_out(shown, sample_page) -> None:
    ids = meta_of(sample_page)["ids"]
    shown.js("document.getElementById('none').click()")
    shown.js("document.getElementById('search').focus()")
    for letter in ids[200][-9:].lower():
        shown.key(letter)
    assert f"{sum(ids[200][-9:] in name for name in ids)} of 240 ids" in text(shown, "matches")
    shown.key("Enter")
    shown.frame()
    assert ids[shown.js("explorer.selected()")].endswith(ids[200][-9:])
    box = shown.js(
        "(({x, y, width, height}) => [x, y, width, height])(document.getElementById('plot').getBoundingClientRect())"
    )
    x, y = spot(shown, shown.js("explorer.selected()"))
    assert abs(x - box[0] - box[2] / 2) < 2 and abs(y - box[1] - box[3] / 2) < 2


def test_the_wheel_zooms_at_the_pointer_and_dragging_moves(shown) -> None:
    index = lonely(shown)
    x, y = spot(shown, index)
    scale = shown.js("explorer.camera.scale")
    shown.mouse("mouseWheel", x, y, deltaX=0, deltaY=-240)
    shown.frame()
    assert shown.js("explorer.camera.scale") == pytest.approx(scale * np.exp(0.48))
    assert spot(shown, index) == pytest.approx((x, y), abs=0.7)  # the browser gives whole pixels
    x, y = spot(shown, index)
    shown.mouse("mousePressed", x, y, button="left", clickCount=1)
    shown.mouse("mouseMoved", x + 30, y + 20, button="left", buttons=1)
    shown.mouse("mouseReleased", x + 30, y + 20, button="left", clickCount=1)
    assert spot(shown, index) == pytest.approx((x + 30, y + 20), abs=1)
    assert shown.js("explorer.selected()") == -1


def test_the_keyboard_alone_gets_everywhere(shown) -> None:
    shown.js("document.getElementById('dots').focus()")
    x = shown.js("explorer.toX(0)")
    shown.key("ArrowRight")
    assert shown.js("explorer.toX(0)") == pytest.approx(x - 60)
    scale = shown.js("explorer.camera.scale")
    shown.key("+")
    assert shown.js("explorer.camera.scale") == pytest.approx(1.5 * scale)
    shown.key("0")
    assert shown.js("explorer.camera.scale") == pytest.approx(scale)
    shown.key("Enter")
    selected = shown.js("explorer.selected()")
    width, height = (shown.js(f"explorer.camera.{side}") for side in ("width", "height"))
    places = np.array(shown.js("Array.from({length: 240}, (_, i) => [explorer.toX(i), explorer.toY(i)])"))
    assert selected == np.linalg.norm(places - (width / 2, height / 2), axis=1).argmin()


def test_dots_have_the_colour_of_their_class(shown, sample_page) -> None:
    choose(shown, "mode", "split")
    index = lonely(shown)
    image = np.asarray(Image.open(io.BytesIO(shown.screenshot())).convert("RGB")).astype(float)
    x, y = (round(value) for value in spot(shown, index))
    dot = shown.js(f"getComputedStyle(document.querySelectorAll('#groups .chip')[{int(index >= 192)}]).backgroundColor")
    wanted = np.array([float(v) for v in re.findall(r"\d+", dot)[:3]])
    ground = image[y - 30, x - 30]
    assert np.abs(image[y, x] - (0.8 * wanted + 0.2 * ground)).max() < 12


def test_close_up_the_patches_themselves_are_drawn(shown) -> None:
    index = lonely(shown)
    for _ in range(5):
        shown.js(f"explorer.zoomAt(explorer.toX({index}), explorer.toY({index}), 2)")
    shown.frame()
    shown.until("performance.now() > 0")
    x, y = (round(value) for value in spot(shown, index))

    def colours_there() -> int:
        image = np.asarray(Image.open(io.BytesIO(shown.screenshot())).convert("RGB"))
        return len(np.unique(image[y - 15 : y + 15, x - 15 : x + 15].reshape(-1, 3), axis=0))

    counts = []
    for _ in range(20):  # until the sheet is decoded
        counts.append(colours_there())
        if counts[-1] > 20:
            break
        shown.frame()
    assert counts[-1] > 20


def test_light_and_dark(shown, browser, sample_page) -> None:
    def brightness() -> float:
        image = Image.open(io.BytesIO(shown.screenshot())).convert("L")
        return float(np.median(np.asarray(image)))

    assert brightness() > 240
    shown.js("document.getElementById('theme').click()")
    shown.frame()
    assert brightness() < 40
    browser.open(sample_page, dark=True)
    assert brightness() < 40
    browser.requests.clear()
    browser.open(sample_page)


def test_every_control_has_a_name(shown) -> None:
    shown.click(*spot(shown, lonely(shown)))
    nodes = shown.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "checkbox", "combobox", "searchbox", "image", "table", "DisclosureTriangle"}
    controls = [node for node in nodes if node.get("role", {}).get("value") in roles and not node.get("ignored")]
    names = [node.get("name", {}).get("value", "").strip() for node in controls]
    assert len(names) > 30 and all(names)
    assert {"Zoom in", "Zoom out", "Show all", "Switch between light and dark", "Find an id", "Colour by"} <= set(names)
    assert any(name.startswith("240 simulated patches of BigEarthNet-Landsat on a plane by PCA") for name in names)


def test_a_phone(browser, sample_page) -> None:
    browser.complaints.clear()
    browser.open(sample_page, 390, 844, phone=True)
    assert browser.js("document.documentElement.scrollWidth") <= 390
    index = lonely(browser)
    x, y = spot(browser, index)
    browser.touch([(x, y)])
    browser.until(f"explorer.selected() === {index}")
    panel = browser.js("document.getElementById('details').getBoundingClientRect().top")
    assert spot(browser, index)[1] < panel
    browser.js("document.querySelector('#details .close').click()")
    scale = browser.js("explorer.camera.scale")
    browser.touch([(150, 300), (250, 300)], [(125, 300), (275, 300)], [(100, 300), (300, 300)])
    assert browser.js("explorer.camera.scale") == pytest.approx(2 * scale, rel=0.02)
    assert browser.js("explorer.selected()") == -1
    assert browser.complaints == []


def test_without_pictures_the_page_says_so(browser, many_page) -> None:
    browser.complaints.clear()
    browser.open(many_page)
    assert "No pictures and places: the page was made without --dataset_path." in text(browser, "legend")
    assert not browser.js("document.querySelector('canvas.picture')")
    browser.click(*spot(browser, browser.js("explorer.nearest(400, 400, 900)")))
    assert browser.js("document.querySelectorAll('#details tbody tr').length") == 8
    assert browser.complaints == []


def test_twenty_thousand_patches_are_drawn_fast(browser, many_page) -> None:
    browser.open(many_page)
    times = browser.js("""(async () => { const times = [];
        for (let k = 0; k < 40; k++) { explorer.moveBy(k % 2 ? 9 : -9, 4); const start = performance.now();
            explorer.drawAll(); times.push(performance.now() - start); } return times; })()""")
    assert min(times) < FRAME_MS


def test_what_is_pointed_at_is_the_nearest(browser, many_page) -> None:
    browser.open(many_page)
    browser.js("explorer.zoomAt(300, 300, 3)")
    at = np.random.default_rng(0).uniform(0, 700, (60, 2)).round().tolist()
    found = browser.js(f"{json.dumps(at)}.map(([x, y]) => explorer.nearest(x, y, 25))")
    places = np.array(browser.js(f"Array.from({{length: {MANY}}}, (_, i) => [explorer.toX(i), explorer.toY(i)])"))
    for (x, y), index in zip(at, found, strict=True):
        distance = np.linalg.norm(places - (x, y), axis=1)
        if index < 0:
            assert distance.min() > 25 - 1e-6
        else:
            assert distance[index] == pytest.approx(distance.min(), abs=1e-6)


def test_names_cannot_become_part_of_the_page(browser, tmp_path) -> None:
    x, y, _ = clusters(20)
    evil = "</script><img src=http://127.0.0.1:9/x onerror=alert(1)><b>%%SHEETS%%"
    names = [f"{evil}{k}" for k in range(20)]
    classes = [f"{evil}{k}" for k in range(19)]
    file = write_embeddings(tmp_path / "a_train.npz", x, y, names, classes=classes, multilabel=True)
    browser.complaints.clear()
    browser.requests.clear()
    page = page_of(tmp_path, file)
    browser.open(page)
    browser.click(*spot(browser, browser.js("explorer.nearest(400, 400, 900)")))
    assert evil in text(browser, "details")
    assert browser.js("document.querySelectorAll('img, b').length") == 0
    assert browser.requests == [page.as_uri()]
    assert browser.complaints == []


def test_eurosat_is_coloured_by_class(browser, tmp_path) -> None:
    browser.complaints.clear()
    browser.open(page_of(tmp_path, eurosat_file(tmp_path), options=("--dataset_path", str(EUROSAT))))
    options = browser.js("[...document.getElementById('mode').options].map((one) => one.text)")
    assert options == ["class"]
    browser.click(*spot(browser, lonely(browser)))
    assert not re.search("UTC|°", text(browser, "details"))
    assert browser.complaints == []
