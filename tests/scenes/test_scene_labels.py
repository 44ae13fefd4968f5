"""A user's own labels: every form gives the same classes on the scene's grid, and a probe with an honest score."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.warp import Resampling, calculate_default_transform, reproject, transform, transform_geom
from scene_files import ORIGIN, UTM_33N, embed, read, some_numbers, write_band, write_product

from models.config import ModelConfig
from scenes.input.grids import SceneGrid
from scenes.labels.features import CellPixels
from scenes.labels.probe import LabelledCells, fit_cells, score_cells
from scenes.labels.raster import open_labels, write_label_raster
from scenes.products.labelled import UNKNOWN
from scenes.products.land_cover import load_probe
from utils.errors import ConfigError, DataError

SIDE = (120, 160)
GRID = SceneGrid(UTM_33N, rasterio.Affine(30, 0, ORIGIN[0], 0, -30, ORIGIN[1]), *SIDE)
NAMES = ("bare soil", "crop", "wood")
COLUMNS = {"wood": (0, 50), "bare soil": (60, 100), "crop": (104, 160)}
"""Stripes of the scene; between them nothing is labelled, nor below row 100."""
ROWS = 100


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A product whose stripes differ in the near infrared."""
    numbers = some_numbers(SIDE)
    for shift, (first, last) in zip((0, 3000, 6000), COLUMNS.values(), strict=True):
        numbers[4, :, first:last] += shift
    return write_product(tmp_path_factory.mktemp("scene") / "a", numbers)


def expected() -> np.ndarray:
    """(h, w) index into NAMES, UNKNOWN where there is no label."""
    classes = np.full(SIDE, UNKNOWN, np.uint8)
    for name, (first, last) in COLUMNS.items():
        classes[:ROWS, first:last] = NAMES.index(name)
    return classes


def outline(first: int, last: int) -> dict:
    """A stripe as GeoJSON on the scene's projection."""
    left, right = ORIGIN[0] + 30 * first, ORIGIN[0] + 30 * last
    top, bottom = ORIGIN[1], ORIGIN[1] - 30 * ROWS
    ring = [(left, top), (left, bottom), (right, bottom), (right, top), (left, top)]
    return {"type": "Polygon", "coordinates": [ring]}


def write_geojson(path: Path, column: str = "class", crs: str = "EPSG:4326", more: tuple = ()) -> Path:
    shapes = [(name, transform_geom(UTM_33N, crs, outline(*edges))) for name, edges in COLUMNS.items()]
    features = [
        {"type": "Feature", "properties": {column: name, "number": index}, "geometry": shape}
        for index, (name, shape) in enumerate([*shapes, *more])
    ]
    named = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:{crs.replace(':', '::')}"}}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": named, "features": features}))
    return path


def burnt(path: Path, tmp_path: Path, column: str | None = None) -> np.ndarray:
    labels = open_labels(path, column, GRID)
    assert labels.names == NAMES
    return read(write_label_raster(labels, GRID, tmp_path / "burnt.tif").path)[0]


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32633", "EPSG:3035"])
def test_polygons_of_any_form_and_projection(tmp_path, crs) -> None:
    """All but pixels whose centre lies within a millimetre of an edge, of which there are none."""
    pyogrio = pytest.importorskip("pyogrio.raw", reason="pyogrio is not installed")
    away = {"type": "Polygon", "coordinates": [[(0, 0), (0, 1), (1, 1), (0, 0)]]}
    path = write_geojson(tmp_path / "a.geojson", "Kind", crs, more=((None, away), ("  ", away)))
    wanted = expected()
    found = burnt(path, tmp_path, "kind")
    assert (found != wanted).mean() < 0.01 and np.array_equal(np.unique(found), np.unique(wanted))
    about, _, shapes, fields = pyogrio.read(path)
    for name, driver in (("a.gpkg", "GPKG"), ("a.shp", "ESRI Shapefile")):
        pyogrio.write(tmp_path / name, shapes, fields, about["fields"], driver=driver, crs=crs, geometry_type="Polygon")
        assert np.array_equal(burnt(tmp_path / name, tmp_path, "Kind"), found)


def test_pixels_of_two_classes_have_none(tmp_path) -> None:
    pytest.importorskip("pyogrio", reason="pyogrio is not installed")
    both = ("wood", transform_geom(UTM_33N, "EPSG:4326", outline(90, 100)))
    found = burnt(write_geojson(tmp_path / "a.geojson", more=(both,)), tmp_path)
    assert (found[: ROWS - 1, 91:99] == UNKNOWN).all() and (found[: ROWS - 1, 62:89] == 0).all()


def write_classes(path: Path, dtype: str, numbers: tuple[int, ...], nodata: int | None, **options) -> Path:
    """The expected classes as a raster of other numbers."""
    look_up = np.full(256, nodata if nodata is not None else 0, dtype)
    look_up[: len(numbers)] = numbers
    return write_band(path, look_up[expected()][None], nodata=nodata, **options)


@pytest.mark.parametrize(
    ("dtype", "numbers", "nodata"),
    [
        ("uint8", (1, 2, 3), None),
        ("uint8", (0, 1, 2), 9),
        ("int16", (-3, 40, 700), -9999),
        ("uint16", (10, 20, 60000), 0),
        ("int32", (1, 70000, 5), -1),
        ("uint32", (1, 2, 4_000_000_000), 0),
        ("int8", (0, 1, 2), -128),
    ],
)
def test_rasters_of_any_integer_type_and_nodata(tmp_path, dtype, numbers, nodata) -> None:
    path = write_classes(tmp_path / "a.tif", dtype, numbers, nodata)
    labels = open_labels(path, None, GRID)
    assert labels.names == tuple(f"class {number}" for number in sorted(numbers))
    found = read(write_label_raster(labels, GRID, tmp_path / "b.tif").path)[0]
    order = np.append(np.argsort(np.argsort(numbers)), UNKNOWN)
    assert np.array_equal(found, order[np.minimum(expected(), 3)])
    assert bool(labels.notes) is (nodata is None)


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:32632", "EPSG:4326"])
def test_rasters_on_any_grid_are_warped_by_nearest_neighbour(tmp_path, crs) -> None:
    """A finer raster of another projection gives back the classes but for pixels at their edges."""
    fine = np.repeat(np.repeat(expected(), 3, 0), 3, 1)
    grid = GRID.transform @ rasterio.Affine.scale(1 / 3)
    bounds = rasterio.transform.array_bounds(*fine.shape, grid)
    theirs, width, height = calculate_default_transform(UTM_33N, crs, fine.shape[1], fine.shape[0], *bounds)
    warped = np.full((height, width), UNKNOWN, np.uint8)
    reproject(fine, warped, src_transform=grid, src_crs=UTM_33N, dst_transform=theirs, dst_crs=crs,
              src_nodata=UNKNOWN, dst_nodata=UNKNOWN, resampling=Resampling.nearest)  # fmt: skip
    path = write_band(tmp_path / "a.tif", warped[None], crs=crs, transform=theirs, nodata=UNKNOWN)
    with rasterio.open(path, "r+") as file:
        file.update_tags(classes=json.dumps(NAMES))
    found, wanted = burnt(path, tmp_path), expected()
    assert (found != wanted).mean() < 0.03 and (found[10:90, 5:45] == NAMES.index("wood")).all()
    assert set(np.unique(found)) <= set(np.unique(wanted))


def point(row: int, column: int) -> str:
    xs, ys = [ORIGIN[0] + 30 * (column + 0.5)], [ORIGIN[1] - 30 * (row + 0.5)]
    (lon,), (lat,) = transform(UTM_33N, "EPSG:4326", xs, ys)
    return f"{lon:.8f},{lat:.8f}"


def write_points(path: Path) -> Path:
    """One point in every eighth row and column, some without a class, some elsewhere."""
    classes = expected()
    lines = ["id,lon,lat,class", "1,0.0,0.0,wood", f"2,{point(3, 3)},", f"3,,,{NAMES[0]}"]
    for row in range(2, SIDE[0], 8):
        for column in range(2, SIDE[1], 8):
            if classes[row, column] != UNKNOWN:
                lines.append(f"4,{point(row, column)},{NAMES[classes[row, column]]}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_point_labels_its_cell_and_the_map_has_the_names(tmp_path, folder, checkpoint, capsys) -> None:
    out, points = tmp_path / "out", write_points(tmp_path / "points.csv")
    cells = read(embed(folder, checkpoint, out, "--labels", points))
    arrays, classes = np.load(out / "labelled_cells.npz"), expected()
    wanted = {point: classes[point] for point in np.ndindex(SIDE) if point[0] % 8 == point[1] % 8 == 2}
    assert len(arrays["y_train"]) == sum(value != UNKNOWN for value in wanted.values())
    with rasterio.open(out / "land_cover.tif") as file:
        named, colours = file.read(1), file.colormap(1)
    assert set(np.unique(named[np.isfinite(cells[0])])) <= {0, 1, 2} and set(np.unique(named)) <= {0, 1, 2, 255}
    names = [entry.text for entry in ElementTree.parse(out / "land_cover.tif.aux.xml").iterfind(".//Category")]
    entries = ElementTree.parse(out / "land_cover.qml").findall(".//paletteEntry")
    assert names == [entry.get("label") for entry in entries] == list(NAMES)
    assert [entry.get("color") for entry in entries] == [
        "#{:02x}{:02x}{:02x}".format(*colours[k][:3]) for k in range(3)
    ]
    record = json.loads((out / "scene.json").read_text())["labels"]
    assert record["cells"] == len(arrays["y_train"]) and record["cells_by_class"].keys() == set(NAMES)
    ours = record["scores"]["embedding"]["accuracy"]
    assert ours["low"] <= ours["value"] <= ours["high"] and record["scores"].keys() == {
        "embedding",
        "statistics",
        "pixels",
    }
    said = capsys.readouterr().out
    assert "2 shapes without a class or a place" in said and "single pixels: accuracy" in said
    probe = load_probe(out / "labels_probe.npz", ModelConfig.of_size("XXS", embed_dim=len(cells)))
    assert (probe.classes, probe.pool) == (NAMES, "patch_mean")
    assert np.array_equal(probe.model.predict(np.moveaxis(cells, 0, -1)[named != 255]), named[named != 255])


def test_labels_that_cannot_be_used(tmp_path) -> None:
    def csv(text: str) -> Path:
        path = tmp_path / "a.csv"
        path.write_text(text)
        return path

    inside = point(5, 5)
    for make, column, reason in (
        (lambda: tmp_path / "none.csv", None, "no such file"),
        (lambda: csv("x,y,class\n1,2,a\n"), None, "no columns lon and lat"),
        (lambda: csv("lon,lat,a,b\n1,2,x,y\n"), None, "no column class; its columns: a, b"),
        (lambda: csv("lon,lat,a,b\n1,2,x,y\n"), "c", "no column c; its columns: a, b"),
        (lambda: csv("lon,lat,class\n1,2,x\n3,4,y\n"), None, "none of its 2 shapes lies in the scene"),
        (lambda: csv(f"lon,lat,class\n{inside},x\n{inside},x\n"), None, "holds 1 class"),
        (lambda: csv("lon,lat,class\n500000,5500000,x\n"), None, "no degrees"),
        (lambda: csv(f"lon,lat,class\n{inside},\n"), None, "no shape of it has both"),
        (lambda: write_band(tmp_path / "f.tif", np.ones((1, *SIDE), np.float32)), None, "whole numbers"),
        (lambda: write_band(tmp_path / "two.tif", np.ones((2, *SIDE), np.uint8)), None, "holds 2 x uint8"),
        (lambda: write_band(tmp_path / "z.tif", np.zeros((1, *SIDE), np.uint8)), None, "labels no pixel"),
        (lambda: write_band(tmp_path / "o.tif", np.ones((1, *SIDE), np.uint8)), None, "holds 1 class"),
        (lambda: write_band(tmp_path / "n.tif", np.ones((1, *SIDE), np.uint8), crs=None), None, "reference system"),
        (lambda: write_band(tmp_path / "w.tif", np.ones((1, *SIDE), np.uint8), origin=(0.0, 9e6)), None, "no pixel"),
    ):
        with pytest.raises((DataError, ConfigError), match=reason) as caught:
            open_labels(make(), column, GRID)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no georeference"):
        open_labels(csv(f"lon,lat,class\n{inside},x\n"), None, GRID._replace(crs=None))


def test_the_score_is_of_ground_that_the_probe_has_not_seen() -> None:
    """Embeddings that tell squares apart, but not classes, fit every cell and predict none; the baselines do."""
    random = np.random.default_rng(0)
    square = np.repeat(np.arange(25), 12)
    y = random.permutation(np.arange(25) % 3)[square]  # one class a square
    centres = np.stack([50 + (square // 5) * 0.0108, 13 + (square % 5) * 0.0168], 1)
    place, shown = (np.eye(25)[of] + random.normal(0, 0.05, (len(y), 25)) for of in (square, y))
    pixels = CellPixels(shown[:, :4], np.repeat(shown[:, :7], 2, 0).astype(np.float32), np.repeat(np.arange(len(y)), 2))
    ids = [f"scene_{index}_0" for index in range(len(y))]
    cells = LabelledCells(place, y, ids, centres, pixels, NAMES)
    scored = score_cells(cells)
    found = scored["scores"]["embedding"]["accuracy"]
    assert found["value"] < 0.6 and found["low"] < found["value"] < found["high"] and found["high"] - found["low"] > 0.1
    assert all(scored["scores"][name]["accuracy"]["value"] > 0.99 for name in ("statistics", "pixels"))
    assert scored["embedding_minus"]["pixels"]["accuracy"]["high"] < 0
    assert (fit_cells(cells, scored).predict(cells.x) == y).mean() > 0.99, "as a score without squares would say"
    few = cells._replace(places=np.broadcast_to(centres[:1], centres.shape))
    assert "too few for 5 folds" in score_cells(few)["not_scored"]
