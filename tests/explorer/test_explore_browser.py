"""The interactive page in a real browser: what a person can do with it."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from browser import Page
from conftest import SAMPLE
from embedding_files import clusters, write_embeddings
from explorer_pages import choose, eurosat_file, lonely, meta_of, numbers, page_of, sample_file, spot, text, tile
from packing import EUROSAT
from PIL import Image

from explorer.pictures import make_pictures
from explorer.points import read_points

MANY = 20_000
FRAME_MS = 1000 / 60
"""Even without a GPU 20,000 patches are painted within this (measured: 2). On a busy machine the best one counts."""


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
