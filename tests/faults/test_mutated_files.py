"""Mutated input of every format: used, or refused in one line, in bounded time and memory; never a traceback."""

import io
import json
import shutil
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import rasterio
import yaml
from conftest import SAMPLE
from faults import REFUSED, USED, Attempt, mutated
from probe_data import make_data
from scene_files import PRODUCT, some_numbers, write_band, write_product
from tiny import TINY_MODEL, training_config

from classification_models.logistic_regression import LogisticRegressionModel
from configs.schema import read_config
from datasets.bigearthnet import read_labels
from datasets.download.archive import unpack
from datasets.geotiff import GDAL_OPTIONS, read_patch
from datasets.labelled_folder import FolderOptions, LabelledFolderDataset
from datasets.labelled_table import read_table, split_rows
from datasets.patches import read_split
from models.config import ModelConfig
from scenes.input.checks import check_numbers
from scenes.input.mtl import read_mtl
from scenes.input.product import SceneOptions, find_scene
from scenes.input.reader import SceneReader
from scenes.labels.shapes import read_shapes
from scenes.products.land_cover import load_probe
from utils.errors import ConfigError, UserError
from utils.memory import peak_memory
from utils.parsing import map_npy
from utils.sensors import OLI

CI, RELEASE = 100, 3000
MOST_SECONDS, MOST_BYTES = 20, 600 << 20
"""Processor time of a try, and how much a campaign's memory may grow."""
WORDS = tuple(
    text.encode()
    for text in (
        "NaN", "-1", "1e999", "9" * 30, "9" * 5000, "[" * 400, "{" * 400, "null", "\\ud800", "\u2028", "../../x", "\r",
        "\0", '"', "<script>", "&a [*a]", "*a", "!!int x", "; ", ",,,,", "0x" + "f" * 200, "True", "\ufeff", "%s{0}",
    )
)  # fmt: skip


class Format(NamedTuple):
    """A file to be mutated."""

    content: bytes
    name: str
    read: Callable[[Path], object]


def same_place(folder: Path, form: Format, attempt: Attempt) -> str:
    """Mutate, write, read: how it ended."""
    data = mutated(form.content, attempt.random, WORDS)
    attempt.keep(data, form.name)
    path = folder / form.name
    path.write_bytes(data)
    started = time.process_time()
    try:
        form.read(path)
        found = USED
    except UserError as error:
        text = str(error)
        assert "\n" not in text or isinstance(error, ConfigError), text  # which lists a problem a line
        assert len(text) < 10_000 and (
            str(folder) in text or text[:5] in ("train", "split") or isinstance(error, ConfigError)
        ), text[:300]
        found = REFUSED
    assert time.process_time() - started < MOST_SECONDS
    return found


def run(campaign, tmp_path, form: Format, name: str, share: float = 1.0) -> None:
    before = peak_memory() or 0
    found = campaign(name, max(1, int(CI * share)), max(1, int(RELEASE * share))).run(
        lambda attempt: same_place(tmp_path, form, attempt)
    )
    assert found[REFUSED], "no mutation was noticed: what is mutated here?"
    assert (peak_memory() or 0) - before < MOST_BYTES


# --------------------------------------------------------------------------- rasters


def stack(path: Path, **options) -> bytes:
    return write_band(path, some_numbers((44, 46)), **options).read_bytes()


def as_patch(path: Path) -> None:
    with rasterio.Env(**GDAL_OPTIONS):
        read_patch(path, 7, 7, 40)


def as_scene(path: Path) -> None:
    with SceneReader(find_scene(path, SceneOptions())) as reader:
        check_numbers(reader)
        reader.read(0, 0, 40, 40)


def as_labelled(path: Path) -> None:
    (path.parent / "table.csv").write_text(f"file,label\n{path.name},a\nother.tif,b\n")
    options = FolderOptions(scale=2.75e-5, offset=-0.2)
    LabelledFolderDataset(path.parent / "table.csv", "0-100%", options=options).batch([0, 1])


@pytest.mark.parametrize("reader", [as_patch, as_scene, as_labelled])
@pytest.mark.parametrize("form", ["plain", "compressed"])
def test_geotiff(campaign, tmp_path, reader, form) -> None:
    options = {"interleave": "pixel"} if form == "plain" else {"compress": "deflate", "tiled": True, "blockxsize": 16,
                                                                "blockysize": 16}  # fmt: skip
    stack(tmp_path / "other.tif")
    data = stack(tmp_path / "whole.tif", descriptions=list(OLI.bands), **options)
    name = f"{PRODUCT}_SR.tif"
    run(campaign, tmp_path, Format(data, name, reader), f"mutated GeoTIFF, {form}, as {reader.__name__}", 0.5)


# --------------------------------------------------------------------------- text


SPLIT = "\n".join((SAMPLE / "bigearthnet-train.csv").read_text().split()[:20]) + "\n"
TABLE = "file,split,label,datetime,lat,lon\n" + "".join(
    f"x/{n}.tif,{'train' if n % 2 else 'test'},{'ab'[n % 2]},2020-08-0{n + 1}T18:30,{50 + n},{10 - n}\n"
    for n in range(8)
)
POINTS = "lon,lat,class\n" + "".join(f"{15 + n / 100},{49.6 + n / 100},{'ab'[n % 2]}\n" for n in range(8))


def as_table(path: Path) -> None:
    for number in range(8):
        image = path.parent / "x" / f"{number}.tif"
        image.parent.mkdir(exist_ok=True)
        image.touch()
    table = read_table(path)
    for split in ("train", "0-60%"):
        split_rows(table, split, 0)


TEXTS = {
    "split": Format(SPLIT.encode(), "split.csv", read_split),
    "table": Format(TABLE.encode(), "table.csv", as_table),
    "points": Format(
        POINTS.encode(), "points.csv", lambda path: read_shapes(path, None, rasterio.CRS.from_epsg(32633))
    ),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_csv(campaign, tmp_path, kind) -> None:
    run(campaign, tmp_path, TEXTS[kind], f"mutated CSV, {kind}", 0.5)


LABELS = json.dumps({"labels": ["Pastures", "Sea and ocean"], "projection": "x", "acquisition_date": "2017-06-13"})


def test_label_json(campaign, tmp_path) -> None:
    run(campaign, tmp_path, Format(LABELS.encode(), "a_labels_metadata.json", read_labels), "mutated JSON, labels")


def item(folder: Path) -> bytes:
    """A STAC item whose assets lie beside it."""
    write_product(folder, some_numbers((60, 64)), qa=np.full((60, 64), 21824), time=None)
    assets = {name.lower(): {"href": f"{PRODUCT}_{name}.TIF"} for name in (*OLI.bands, "QA_PIXEL")}
    properties = {"datetime": "2018-07-04T09:52:31Z", "view:sun_elevation": 58.2, "landsat:scene_id": PRODUCT}
    value = {"type": "Feature", "stac_version": "1.0.0", "id": PRODUCT, "properties": properties, "assets": assets}
    return json.dumps(value).encode()


def test_stac_item(campaign, tmp_path) -> None:
    run(campaign, tmp_path, Format(item(tmp_path), "item.json", as_scene), "mutated JSON, STAC item", 0.5)


MTL = {
    "PRODUCT_CONTENTS": {"LANDSAT_PRODUCT_ID": PRODUCT, "PROCESSING_LEVEL": "L2SP"},
    "IMAGE_ATTRIBUTES": {
        "DATE_ACQUIRED": "2018-07-04",
        "SCENE_CENTER_TIME": "09:52:31.1234560Z",
        "SUN_ELEVATION": "58.2",
    },
}


def mtl(form: str) -> str:
    if form == "json":
        return json.dumps({"LANDSAT_METADATA_FILE": MTL})
    groups = MTL.items()
    if form == "xml":
        body = "".join(f"<{g}>" + "".join(f"<{k}>{v}</{k}>" for k, v in e.items()) + f"</{g}>" for g, e in groups)
        return f'<?xml version="1.0"?><LANDSAT_METADATA_FILE>{body}</LANDSAT_METADATA_FILE>'
    lines = [[f"GROUP = {g}", *(f'  {k} = "{v}"' for k, v in e.items()), f"END_GROUP = {g}"] for g, e in groups]
    return "\n".join(line for group in lines for line in group)


@pytest.mark.parametrize("form", ["json", "txt", "xml"])
def test_mtl(campaign, tmp_path, form) -> None:
    """Read, and used for a scene."""
    write_product(tmp_path, some_numbers((60, 64)), time=None)

    def read(path: Path) -> None:
        read_mtl(path)
        find_scene(tmp_path, SceneOptions())

    run(campaign, tmp_path, Format(mtl(form).encode(), f"{PRODUCT}_MTL.{form}", read), f"mutated MTL, {form}", 0.4)


def test_yaml(campaign, tmp_path) -> None:
    whole = yaml.safe_load(training_config(tmp_path).read_text()) | {"published_behaviour": False}
    text = yaml.safe_dump(whole, sort_keys=False)
    form = Format(text.encode(), "config.yaml", lambda path: read_config(str(path), [], ("training.dataset_path",)))
    run(campaign, tmp_path, form, "mutated YAML")


# --------------------------------------------------------------------------- probes, arrays, archives


@pytest.mark.parametrize("form", ["joblib", "npz"])
@pytest.mark.parametrize("multilabel", [True, False])
def test_probe(campaign, tmp_path, form, multilabel) -> None:
    """What is loaded predicts, and can be saved again."""
    x, multi_hot, y = make_data()
    probe = LogisticRegressionModel(multilabel=multilabel, scale=True).fit(x, multi_hot if multilabel else y)
    data = probe.save(tmp_path / f"whole.{form}").read_bytes()

    def read(path: Path) -> None:
        loaded = LogisticRegressionModel.load(path)
        loaded.predict_proba(x[:3, : loaded.head.coef.shape[1]])
        loaded.predict(x[:3, : loaded.head.coef.shape[1]])

    run(campaign, tmp_path, Format(data, f"probe.{form}", read), f"mutated probe, {form}, {multilabel}", 0.5)


def test_json_beside_a_probe(campaign, tmp_path) -> None:
    """It may be damaged: what it does not say is then not known, and the probe is used."""
    path = LogisticRegressionModel().fit(*make_data(width=24)[::2]).save(tmp_path / "probe.npz")
    config = ModelConfig.of_size(**{key: value for key, value in TINY_MODEL.items() if key != "device"})
    origin = {"pool": "mean", "dataset": "bigearthnet_ls", "config": {"data": {"statistics": "bigearthnet_ls"}}}
    record = {"classes": ["a", "b", "c", "d"], "embeddings": {"train": {**origin, "checkpoint": {"sha256": "0" * 64}}}}
    path.with_suffix(".json").write_text(json.dumps(record))
    assert load_probe(path, config).pool == "mean"
    form = Format(json.dumps(record).encode(), "probe.json", lambda _: load_probe(path, config))
    campaign("mutated JSON beside a probe", CI, RELEASE).run(lambda attempt: same_place(tmp_path, form, attempt))


def test_header_of_an_array(campaign, tmp_path) -> None:
    np.save(tmp_path / "whole.npy", np.arange(60, dtype="<u2").reshape(3, 20))
    content = (tmp_path / "whole.npy").read_bytes()

    def one_try(attempt: Attempt) -> str:
        data = mutated(content[:128], attempt.random, WORDS) + content[128:]
        attempt.keep(data, "pixels.npy")
        (tmp_path / "pixels.npy").write_bytes(data)
        try:
            map_npy(tmp_path / "pixels.npy").sum()
            return USED
        except ValueError:
            return REFUSED

    assert campaign("mutated header of an array", CI, RELEASE).run(one_try)[REFUSED]


def archive_of(kind: str) -> bytes:
    raw, files = io.BytesIO(), {f"top/images/{n}.tif": bytes([n]) * 300 for n in range(4)}
    if kind == "zip":
        with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return raw.getvalue()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = len(data), {"comment": "x" * 40, "path": name}
            tar.addfile(info, io.BytesIO(data))
    return raw.getvalue()


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_archive(campaign, tmp_path, kind) -> None:
    """Of a tar its own bytes are mutated, behind gzip's checksum; nothing comes to lie outside of the folder."""
    import gzip

    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)

    def read(path: Path) -> None:
        if kind == "tar.gz":
            path.write_bytes(gzip.compress(path.read_bytes(), 1))
        shutil.rmtree(inner / "out", ignore_errors=True)
        try:
            unpack(path, inner / "out", "top")
        finally:
            assert {entry.name for entry in inner.iterdir()} <= {"out"} and len(list((tmp_path / "a").iterdir())) == 1
            assert not any(entry.is_symlink() for entry in (inner / "out").rglob("*"))

    run(campaign, tmp_path, Format(archive_of(kind), f"a.{kind}", read), f"mutated archive, {kind}", 0.5)


@pytest.mark.parametrize("name", ["9" * 5000, "²", "--5", "-", "٣"])
def test_classes_that_look_like_numbers(tmp_path, name) -> None:
    """As mutations found them: what only looks like a number is a name."""
    (tmp_path / "points.csv").write_text(f"lon,lat,class\n15,49.6,{name}\n15.01,49.61,2\n15.02,49.62,1\n")
    shapes = read_shapes(tmp_path / "points.csv", None, rasterio.CRS.from_epsg(32633))
    assert shapes.names == ("1", "2", name)
