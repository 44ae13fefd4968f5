"""The forms in which scenes come, each made from one simulated scene: the same embeddings as from its plain folder."""

import json
import shutil
import tarfile
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
import rasterio
from scene_files import embed, read, write_band
from serving import answering

from datasets.simulated import main as simulate
from scenes.input.product import SceneOptions, find_scene
from scenes.input.reader import SceneReader, hidden_pixels
from scenes.input.virtual_files import path_of
from utils.errors import DataError
from utils.sensors import HLS_L30, OLI

SIZE = 110
GRANULE = "HLS.L30.T32TMR.{day}.v2.0"
PC_KEYS = ("coastal", "blue", "green", "red", "nir08", "swir16", "swir22")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("simulated") / "scene"
    assert simulate(["--kind", "scene", "--size", str(SIZE), "--seed", "5", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def plain(tmp_path_factory, folder, checkpoint) -> np.ndarray:
    """Cells of the plain folder."""
    return read(embed(folder, checkpoint, tmp_path_factory.mktemp("plain")))


@pytest.fixture(scope="module")
def numbers(folder) -> np.ndarray:
    return pixels_of(folder)


def pixels_of(path: Path, **options) -> np.ndarray:
    """(7, h, w) as the model gets them."""
    with SceneReader(find_scene(path, SceneOptions(**options))) as reader:
        return reader.read(0, 0, SIZE, SIZE)


def stored(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Bands and QA_PIXEL as they stand in the product."""
    scene = find_scene(folder)
    return np.concatenate([read(band.path) for band in scene.bands]), read(scene.qa.path)[0]


def on_its_grid(folder: Path) -> dict:
    grid = find_scene(folder).grid
    return {"transform": grid.transform, "crs": grid.crs}


def write_archive(path: Path, folder: Path, inside: str) -> Path:
    files = sorted(folder.iterdir())
    if path.suffix == ".tar":
        with tarfile.open(path, "w") as archive:
            for file in files:
                archive.add(file, inside + file.name)
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.write(file, inside + file.name)
            archive.writestr(f"__MACOSX/{inside}._{files[0].name}", b"not a band")
    return path


@pytest.mark.parametrize("name", ["a.tar", "a.zip"])
@pytest.mark.parametrize("inside", ["", "product/"])
def test_an_archive_is_read_as_it_is(tmp_path, folder, checkpoint, plain, name, inside) -> None:
    archive = write_archive(tmp_path / name, folder, inside)
    scene, same = find_scene(archive), find_scene(folder)
    assert (scene.time, scene.product, scene.stated) == (same.time, same.product, same.stated) and scene.simulated
    assert np.array_equal(pixels_of(archive), pixels_of(folder))
    if inside and name == "a.tar":
        assert np.array_equal(read(embed(archive, checkpoint, tmp_path / "out")), plain, equal_nan=True)
    assert {entry.name for entry in tmp_path.iterdir()} <= {name, "out"}, "nothing is unpacked"


def test_members_with_a_leading_dot_and_damaged_archives(tmp_path, folder, numbers) -> None:
    assert np.array_equal(pixels_of(write_archive(tmp_path / "dots.tar", folder, "./")), numbers)
    whole = write_archive(tmp_path / "cut.tar", folder, "")
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(DataError, match=r"cut\.tar.*fetch") as caught:
        pixels_of(whole)
    assert "\n" not in str(caught.value) and "/vsitar" not in str(caught.value)


def test_a_product_in_a_subfolder(tmp_path, folder, numbers) -> None:
    shutil.copytree(folder, tmp_path / "order" / "unpacked" / "scene")
    assert np.array_equal(pixels_of(tmp_path / "order"), numbers)
    product = find_scene(folder).product
    other = product.replace("999999", "999998")
    (tmp_path / "order" / "second").mkdir()
    for file in folder.glob("*_SR_B*.TIF"):
        shutil.copy(file, tmp_path / "order" / "second" / file.name.replace(product, other))
    with pytest.raises(DataError, match=f"holds several scenes .*{other}"):
        find_scene(tmp_path / "order")


def test_a_band_file_stands_for_its_product(folder, numbers) -> None:
    assert np.array_equal(pixels_of(next(folder.glob("*_SR_B4.TIF"))), numbers)


def stac_item(folder: Path, style: str, prefix: str) -> dict:
    """An item of the product in a folder, its assets keyed as the USGS or Planetary Computer do."""
    scene = find_scene(folder)
    assets = {key: {"href": f"{prefix}{band.path.name}"} for key, band in zip(PC_KEYS, scene.bands, strict=True)}
    assets |= {
        "qa_pixel": {"href": f"{prefix}{scene.qa.path.name}"},
        "lwir11": {"href": f"{prefix}{scene.product}_ST_B10.TIF"},
    }
    if style == "usgs":
        assets["MTL.json"] = {"href": f"{prefix}{scene.product}_MTL.json"}
    properties = {"datetime": f"{scene.time.day}T{scene.time.clock:%H:%M:%S}.5Z", "platform": "landsat-8"}
    properties["view:sun_elevation"] = scene.stated.get("sun_elevation", 40.0)
    return {"type": "Feature", "id": f"{scene.product}_SR", "properties": properties, "assets": assets}


@pytest.mark.parametrize("style", ["usgs", "planetary computer"])
@pytest.mark.parametrize("prefix", ["./", "", "https://example.invalid/level2/", "{folder}/"])
def test_a_stac_item_of_local_files(tmp_path, folder, numbers, style, prefix) -> None:
    """Relative, absolute, and fetched together with the files that it names by address."""
    away = "{folder}" in prefix
    home = tmp_path / "item" if away else folder
    home.mkdir(exist_ok=True)
    item = home / "item.json"
    item.write_text(json.dumps(stac_item(folder, style, prefix.format(folder=folder))))
    try:
        scene = find_scene(item)
        assert (scene.time, scene.product) == (find_scene(folder).time, find_scene(folder).product)
        assert np.array_equal(pixels_of(item), numbers)
    finally:
        item.unlink()


def test_other_json_files_and_items(tmp_path, folder) -> None:
    whole = stac_item(folder, "usgs", f"{folder}/")
    seven = {**whole, "id": "LE07_L2SP_043024_20020802_20200914_02_T1"}
    seven["assets"] = {key: {"href": "b.tif"} for key in PC_KEYS[1:]}
    for text, reason in (
        ("{", "cannot be read"),
        ('{"type": "FeatureCollection", "features": []}', "no STAC item"),
        (json.dumps({**whole, "assets": {k: v for k, v in whole["assets"].items() if k != "red"}}), "no asset red"),
        (json.dumps(seven), "Landsat 7"),
        (json.dumps({**whole, "assets": {k: {"href": "s3://usgs/x.TIF"} for k in PC_KEYS}}), "beside the item"),
    ):
        (tmp_path / "item.json").write_text(text)
        with pytest.raises(DataError, match=reason) as caught:
            find_scene(tmp_path / "item.json")
        assert "\n" not in str(caught.value)


class _Ranges(SimpleHTTPRequestHandler):
    """Answers for a folder, parts of files as well, as a store of Cloud-Optimised GeoTIFFs does."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        asked = self.headers.get("Range")
        if not path.is_file():
            return self.send_error(404)
        data = path.read_bytes()
        first, last = 0, len(data) - 1
        if asked:
            first, last = (int(text) if text else last for text in asked.removeprefix("bytes=").split("-"))
            last = min(last, len(data) - 1)
        self.send_response(206 if asked else 200)
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        self.wfile.write(data[first : last + 1])


def test_addresses(tmp_path, folder, checkpoint, plain, numbers) -> None:
    """A STAC item, a stack and a band file on the web, read where they are."""
    bands, qa = stored(folder)
    web = tmp_path / "web"
    shutil.copytree(folder, web)
    write_band(web / "stack.tif", bands, **on_its_grid(folder))
    write_band(web / "stack_QA_PIXEL.tif", qa[None], **on_its_grid(folder))
    with answering(partial(_Ranges, directory=str(web))) as url:
        (web / "item.json").write_text(json.dumps(stac_item(folder, "planetary computer", f"{url}/")))
        local = tmp_path / "local.json"
        local.write_text(json.dumps(stac_item(folder, "usgs", f"{url}/")))
        assert np.array_equal(read(embed(local, checkpoint, tmp_path / "out")), plain, equal_nan=True)
        band = next(folder.glob("*_SR_B2.TIF")).name
        for name in ("item.json", "stack.tif", band):
            assert np.array_equal(pixels_of(path_of(f"{url}/{name}")), numbers), name
        assert find_scene(path_of(f"{url}/stack.tif")).name == "stack"
        with pytest.raises(DataError, match=rf"{url}/none\.tif: its server does not give it"):
            find_scene(path_of(f"{url}/none.tif"))
        local.write_text(json.dumps(stac_item(folder, "usgs", f"{url}/elsewhere/")))
        with pytest.raises(DataError, match=r"elsewhere/.*SR_B1\.TIF: its server does not give it"):
            find_scene(local)


def write_hls(folder: Path, product: Path, kind: str = "L30") -> Path:
    """A simulated scene as HLS would have it: int16 of 1/10,000, fill -9999, Fmask's bits."""
    bands, qa = stored(product)
    scene = find_scene(product)
    stem = GRANULE.format(day=f"{scene.time.day:%Y%j}T{scene.time.clock:%H%M%S}").replace("L30", kind)
    values = np.rint((bands * 0.0000275 - 0.2) / 0.0001).astype(np.int16)
    values[:, (qa & 1) > 0] = -9999
    fmask = np.zeros(qa.shape, np.uint8)
    for theirs, ours in ((3, 1), (1, 2), (4, 3), (2, 0)):
        fmask |= (((qa >> theirs) & 1) << ours).astype(np.uint8)
    fmask[(qa & 1) > 0] = 255
    for band, name in zip(values, HLS_L30.bands, strict=True):
        write_band(folder / f"{stem}.{name}.tif", band[None], nodata=-9999, **on_its_grid(product))
    write_band(folder / f"{stem}.B10.tif", values[:1], nodata=-9999, **on_its_grid(product))
    write_band(folder / f"{stem}.Fmask.tif", fmask[None], nodata=255, **on_its_grid(product))
    return folder


def test_hls_l30_within_its_quantisation(tmp_path, folder, checkpoint, plain, numbers) -> None:
    """Half a step of 0.0001 is 1.8 digital numbers of 0.0000275, and rounding adds a half: at most 2."""
    hls = write_hls(tmp_path / "hls", folder)
    scene = find_scene(hls)
    assert (scene.time, scene.sensor) == (find_scene(folder).time, HLS_L30)
    found = pixels_of(hls)
    assert np.array_equal(found == 0, numbers == 0) and (numbers == 0).any() and (numbers > 0).any()
    assert np.abs(found.astype(int) - numbers).max() <= 2
    cells = read(embed(hls, checkpoint, tmp_path / "out"))
    assert np.array_equal(np.isnan(cells), np.isnan(plain))
    assert np.nanmax(np.abs(cells - plain)) < 0.02 * np.nanstd(plain)
    sentinel = write_hls(tmp_path / "s30", folder, "S30")
    with pytest.raises(DataError, match="Sentinel-2's part of HLS"):
        find_scene(sentinel)
    next(hls.glob("*.B03.tif")).unlink()
    with pytest.raises(DataError, match=r"B03\.tif missing"):
        find_scene(hls)


def test_bits_of_fmask() -> None:
    seen = np.array([0, 16, 32, 64, 128, 192], np.uint8)  # clear, snow, water, levels of aerosol
    assert not hidden_pixels(seen, HLS_L30).any()
    assert hidden_pixels(np.array([2, 4, 8, 2 | 64, 255], np.uint8), HLS_L30).all()


EXPORTED = (*OLI.bands, "SR_QA_AEROSOL", "ST_B10", "QA_PIXEL")


def write_export(path: Path, folder: Path, kind: str, masked: bool) -> Path:
    """What Earth Engine would export: all bands in one type; masked pixels are 0, or no number in floats."""
    bands, qa = stored(folder)
    values = bands * 0.0000275 - 0.2 if kind.startswith("scaled") else bands
    layers = np.concatenate([values, np.full((2, *qa.shape), 100), qa[None]])
    dtype = {"raw": np.uint16, "raw double": np.float64, "scaled": np.float32, "scaled double": np.float64}[kind]
    layers = layers.astype(dtype)
    if masked:
        layers[:, hidden_pixels(qa)] = np.nan if "double" in kind else 0
    return write_band(path, layers, descriptions=EXPORTED, **on_its_grid(folder))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", ["raw", "raw double", "scaled", "scaled double"])
def test_earth_engine_exports(tmp_path, folder, numbers, kind, masked) -> None:
    """float32 holds reflectance to less than a hundredth of a digital number, so the numbers come back as they were."""
    export = write_export(tmp_path / "export.tif", folder, kind, masked)
    if not masked and kind.startswith("scaled"):  # fill is -0.2 in all bands there, and QA_PIXEL says so
        assert find_scene(export).scale == (1.0, 0.0)
    scene = find_scene(export)
    assert scene.qa.band == 10 and not any("QA_PIXEL" in note for note in scene.notes)
    assert np.array_equal(pixels_of(export), numbers)


def test_an_export_of_other_numbers_is_refused(tmp_path, folder) -> None:
    bands, _ = stored(folder)
    hundred = (bands * 0.0000275 - 0.2).astype(np.float32) * 100
    path = write_band(tmp_path / "percent.tif", hundred, descriptions=OLI.bands, **on_its_grid(folder))
    with pytest.raises(DataError, match=r"neither those of Collection-2 .*--scale"):
        find_scene(path)
    with rasterio.open(path) as file:
        assert file.descriptions == OLI.bands
