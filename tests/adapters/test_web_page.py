"""The page that embeds in the browser, in a headless Chromium: the numbers of Python, and what a person can do."""

import json
import os
import shutil
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.warp
from browser import Page, browsing, find_browser
from conftest import ROOT
from npm_browser import npm_browser
from scene_files import write_band
from web_pages import array, cells_in_python, embed_in_page, module, problem, serving

from datasets.simulated import main as simulate
from export import main
from models.pretrained import load_with_path
from scenes.products.land_cover import load_probe
from utils.errors import UserError
from utils.metadata import AcquisitionTime
from utils.sensors import OLI
from utils.solar_position import sun_elevation
from web.export import LARGEST_FOLDER, MODEL, PROBE

pytestmark = pytest.mark.adapters

WEIGHTS = "xxs"
PROBE_FILE = next((ROOT / "weights/logistic_regression_plus").glob("bigearthnet_*.npz"))
TOLERANCE = 1e-3
"""Of any number of an embedding."""
SIDE = 120
"""Pixels of the scenes."""


@pytest.fixture(scope="module")
def browser():
    """A browser of this machine, or the one that `make test-adapters` has fetched."""
    adapters = Path(os.environ.get("MOEMAE_ADAPTERS", ROOT / ".venv-adapters"))
    command = find_browser() or npm_browser(adapters / "browser")
    if command is None:
        pytest.skip("no Chromium on this machine (make test-adapters says why), so the page is not tried")
    with browsing(str(command)) as page:
        yield page


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The exported page."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed: onnxruntime-web cannot be fetched")
    made = tmp_path_factory.mktemp("web") / "page"
    try:
        assert main(["--checkpoint", WEIGHTS, "--web", str(made), "--probe", str(PROBE_FILE)]) == 0
    except UserError as error:
        if "npm cannot fetch" in str(error):
            pytest.skip(str(error))
        raise
    return made


@pytest.fixture(scope="module")
def address(folder):
    with serving(folder) as found:
        yield found


@pytest.fixture(scope="module")
def about(folder):
    return json.loads((folder / MODEL).read_text())


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A simulated product with fill and clouds."""
    made = tmp_path_factory.mktemp("scene") / "scene"
    assert simulate(["--kind", "scene", "--size", str(SIDE), "--seed", "3", "--out", str(made)]) == 0
    return made


def files_of(scene: Path) -> list[Path]:
    return [path for path in scene.iterdir() if path.name.endswith((".TIF", "MTL.txt"))]


@pytest.fixture(scope="module")
def shown(browser, address, scene):
    """The page after the simulated scene has been embedded with windows that overlap."""
    before = len(browser.complaints), len(browser.requests)
    cells = embed_in_page(browser, address, files_of(scene), 20, 20, width=1280, height=900)
    assert browser.complaints[before[0] :] == []
    asked = browser.requests[before[1] :]
    assert all(url.startswith((address, "data:", "blob:")) for url in asked), "nothing leaves the machine"
    return cells


def test_the_folder_is_small_and_complete(folder) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= LARGEST_FOLDER
    assert {"index.html", "page.css", "base.css", MODEL, PROBE, "geotiff.js", "main.js"} <= {
        path.name for path in files
    }


def test_a_simulated_scene_has_pythons_numbers(browser, shown, scene, about) -> None:
    expected = cells_in_python(scene, WEIGHTS, about, 20, 20)
    assert shown.origin == expected.origin and shown.values.shape == expected.values.shape
    hidden = np.isnan(expected.values[..., 0])
    assert hidden.any() and not hidden.all()
    np.testing.assert_array_equal(np.isnan(shown.values).any(axis=-1), hidden)
    np.testing.assert_allclose(shown.values, expected.values, atol=TOLERANCE)
    _components_are_pythons(browser, expected.values[~hidden], hidden)
    _land_cover_is_pythons(browser, expected.values[~hidden], hidden)


def _components_are_pythons(page: Page, x: np.ndarray, hidden: np.ndarray) -> None:
    x = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    lengths, axes = np.linalg.eigh(x.T @ x)
    found = array(page, "page.result.scores", *hidden.shape, 3)
    np.testing.assert_array_equal(np.isnan(found).any(axis=-1), hidden)
    scores = found[~hidden]
    for k in range(3):
        expected = x @ axes[:, -1 - k]
        assert abs(np.corrcoef(expected, scores[:, k])[0, 1]) > 0.999
    assert page.js("page.result.explained") == pytest.approx(lengths[-3:].sum() / lengths.sum(), abs=TOLERANCE)


def _land_cover_is_pythons(page: Page, x: np.ndarray, hidden: np.ndarray) -> None:
    model, _ = load_with_path(WEIGHTS)
    probe = load_probe(PROBE_FILE, model.config)
    expected = probe.model.predict_proba(x)
    found = array(page, "page.cover.chances", *hidden.shape, expected.shape[1])
    np.testing.assert_allclose(found[~hidden], expected, atol=5 * TOLERANCE)
    best = array(page, "page.cover.best", *hidden.shape, kind="u1")
    assert (best[hidden] == 255).all()
    largest = np.sort(expected, axis=1)
    clear = largest[:, -1] - largest[:, -2] > 0.01
    np.testing.assert_array_equal(best[~hidden][clear], probe.model.classes_[expected.argmax(axis=1)][clear])


def test_embeddings_can_be_saved(browser, shown, tmp_path) -> None:
    made = "it.npy(page.result.cells, [page.result.rows, page.result.columns, page.result.width]).arrayBuffer()"
    origin = browser.js("location.origin")
    text = module(browser, origin, "npy", f"{made}.then((content) => Array.from(new Uint8Array(content)))")
    path = tmp_path / "embeddings.npy"
    path.write_bytes(bytes(text))
    np.testing.assert_array_equal(np.load(path), shown.values)


def test_hidden_ground_is_hatched(browser, shown) -> None:
    """Also the hidden part of a cell that is shown."""
    hidden = np.array(browser.js(f"Array.from(page.pixels.subarray(0, {SIDE * SIDE}), (v) => v === 0)"))
    for element in ("scene-map", "cell-map"):
        width = browser.js(f"document.getElementById('{element}').width")
        picture = array(browser, f"(() => {{ const c = document.getElementById('{element}');"
                        "return c.getContext('2d').getImageData(0, 0, c.width, c.height).data })()",
                        -1, width, 4, kind="u1").astype(int)  # fmt: skip
        rows, columns = np.nonzero(hidden.reshape(SIDE, SIDE))
        scale = width / SIDE
        at = picture[((rows + 0.5) * scale).astype(int), ((columns + 0.5) * scale).astype(int), :3]
        assert (np.ptp(at, axis=1) <= 2).all(), "grey"
        assert (at.mean(axis=1) > 135).all() and (at.mean(axis=1) < 205).all()


def test_a_click_shows_similarity(browser, shown) -> None:
    """On the true-colour picture as on the map; then the keyboard goes on from there."""
    visible = ~np.isnan(shown.values[..., 0])
    row, column = np.argwhere(visible)[visible.sum() // 2]
    browser.js("document.querySelector('input[value=similarity]').click()")
    box = browser.js("(({left, top, width}) => [left, top, width])(document.getElementById('scene-map')"
                     ".getBoundingClientRect())")  # fmt: skip
    scale = box[2] / SIDE
    x, y = (start + 20 * at + 10 for start, at in zip(shown.origin[::-1], (column, row), strict=True))
    browser.click(box[0] + x * scale, box[1] + y * scale)
    assert browser.js("page.selected") == [row, column]
    index = row * shown.values.shape[1] + column
    values = module(browser, browser.js("location.origin"), "analysis", "Array.from(it.similarity(page.result.cells, "
                    f"page.result.width, {index}, page.result.statistics), (v) => isNaN(v) ? null : v)")  # fmt: skip
    found = np.array(values, float).reshape(visible.shape)
    x = shown.values[visible].astype(np.float64)
    standard = (x - x.mean(axis=0)) / x.std(axis=0)
    standard /= np.linalg.norm(standard, axis=1, keepdims=True)
    reference = standard[visible[: row + 1].ravel()[: index + 1].sum() - 1]
    np.testing.assert_allclose(found[visible], standard @ reference, atol=TOLERANCE)
    assert np.isnan(found[~visible]).all()
    browser.js("document.getElementById('cell-map').focus()")
    browser.key("ArrowLeft")
    assert browser.js("page.selected") == [row, column - 1]


@pytest.mark.parametrize(("width", "phone"), [(1280, False), (390, True)])
def test_the_page_fits_its_window(browser, shown, width, phone) -> None:
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=phone)
    browser.frame()
    assert browser.js("document.documentElement.scrollWidth") <= width
    for name in ("components", "similarity", "cover"):
        browser.js(f"document.querySelector('input[value={name}]').click()")
        browser.frame()
        assert browser.js("document.documentElement.scrollWidth") <= width
        assert browser.js("document.getElementById('legend').innerText").strip()


def test_a_real_crop_has_pythons_numbers(browser, address, about, reference_dir, tmp_path) -> None:
    """Of Alberta, as one file: of digital numbers, and of reflectance."""
    bands = sorted((reference_dir / "real_landsat" / "alberta").glob("*_SR_B?.TIF"))
    window = rasterio.windows.Window(400, 300, SIDE, SIDE)
    with rasterio.open(bands[0]) as file:
        grid, crs = file.window_transform(window), file.crs
    numbers = np.concatenate([rasterio.open(path).read(window=window) for path in bands])
    numbers[:, 50:70, 30:95] = 0
    path = tmp_path / bands[0].name.replace("_SR_B1", "")
    write_band(path, numbers, crs=crs, transform=grid, descriptions=OLI.bands)
    expected = cells_in_python(path, WEIGHTS, about, 40, 40)
    found = embed_in_page(browser, address, [path], 40, 40)
    assert found.origin == expected.origin
    np.testing.assert_allclose(found.values, expected.values, atol=TOLERANCE)
    reflectance = np.where(numbers == 0, np.nan, numbers * OLI.scale + OLI.offset).astype(np.float32)
    path = write_band(path.with_name(f"floats_{path.name}"), reflectance, crs=crs, transform=grid)
    found = embed_in_page(browser, address, [path], 40, 40)
    np.testing.assert_allclose(found.values, expected.values, atol=TOLERANCE)


def test_nothing_reaches_another_server(browser, address, folder) -> None:
    """Neither from the page nor from its worker, although the other server would answer."""
    browser.open(f"{address}/index.html")
    browser.until("window.page && page.ready")
    with serving(folder) as other:
        attempt = f"fetch('{other}/model.json', {{mode: 'no-cors'}}).then(() => 'reached', () => 'refused')"
        assert browser.js(attempt) == "refused"
        code = json.dumps(f"{attempt}.then(postMessage)")
        worker = f"new Promise((done) => {{ const worker = new Worker(URL.createObjectURL(new Blob([{code}],"
        worker += " {type: 'text/javascript'})), {type: 'module'}); worker.onmessage = (event) => done(event.data); })"
        assert browser.js(worker) == "refused"
        assert browser.js("fetch('model.json').then(() => 'reached')") == "reached"


def test_other_files_are_refused_in_a_line(browser, address, tmp_path) -> None:
    numbers = np.full((7, 60, 60), 9000, np.uint16)
    text = tmp_path / "notes.txt"
    text.write_text("nothing")
    broken = tmp_path / "broken.tif"
    broken.write_bytes(b"II*\0 not at all")
    older = write_band(tmp_path / "LE07_L2SP_193024_20010704_20200831_02_T1.tif", numbers)
    cases = {
        "no GeoTIFFs": [text],
        "broken.tif: cannot be read": [broken],
        "has 6 bands, expected seven": [write_band(tmp_path / "six.tif", numbers[:6])],
        "Landsat 8 and 9 only": [older],
        "the model knows 30 m": [write_band(tmp_path / "ten.tif", numbers, size=10.0)],
        "It cannot be told how these numbers are scaled": [write_band(tmp_path / "scaled.tif", numbers // 9)],
        "Band 2 is missing": [write_band(tmp_path / f"x_SR_B{k}.TIF", numbers[:1]) for k in (1, 3, 4, 5, 6, 7)],
    }
    browser.open(f"{address}/index.html")
    browser.until("window.page && page.ready")
    for words, files in cases.items():
        browser.js("document.getElementById('problem').textContent = ''")
        browser.choose_files("#files", files)
        browser.until("document.getElementById('problem').textContent")
        assert words in problem(browser) and "\n" not in problem(browser)


def test_places_and_times_are_pythons(browser, address) -> None:
    browser.open(f"{address}/index.html")
    random = np.random.default_rng(0)
    for _ in range(12):
        zone, south = int(random.integers(1, 61)), bool(random.integers(2))
        x = float(random.uniform(2e5, 8e5))
        y = float(random.uniform(1e6, 9e6))
        epsg = (32700 if south else 32600) + zone
        (lon,), (lat,) = rasterio.warp.transform(f"EPSG:{epsg}", "EPSG:4326", [x], [y])
        found = module(browser, address, "place", f"it.toDegrees({x!r}, {y!r}, it.utmZone({epsg}))")
        np.testing.assert_allclose(found, (lat, lon), atol=1e-8)
    for day in map(date.fromisoformat, ("2016-01-03", "2018-12-31", "2020-12-31", "2021-01-03", "2017-06-13")):
        assert module(browser, address, "place", f"it.isoWeek('{day}')") == AcquisitionTime(day).week
    julian = 2458123.4
    expected = sun_elevation(np.array([julian]), np.array([47.0]), np.array([15.0]))[0]
    assert module(browser, address, "place", f"it.sunElevation({julian}, 47, 15)") == pytest.approx(expected, abs=1e-9)
    assert module(browser, address, "place", "it.utmZone(3031)") is None
