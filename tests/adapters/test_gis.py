"""The files of a scene in the tools of the field: geopandas, xarray with zarr, rasterio, rioxarray, QGIS."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio.warp
from adapters import adapters_python, run
from conftest import ROOT
from scene_files import ORIGIN, WIDTH, read, some_numbers, tiny_checkpoint, write_probe, write_product
from tiny import UTM_33N

pytestmark = pytest.mark.adapters

MAPS = {
    "embeddings.tif": [f"embedding {k}" for k in range(WIDTH)],
    "land_cover.tif": ["land cover"],
    "probabilities.tif": ["low", "middle", "high"],
    "similarity.tif": ["cosine similarity"],
    "reconstruction.tif": [f"SR_B{k}" for k in range(1, 8)],
}
"""Every map of a run and the names of its bands."""
GEOPANDAS = """
import sys, numpy as np, geopandas
table = geopandas.read_parquet(sys.argv[1])
assert table.crs.to_epsg() == 32633 and (table.geom_type == "Polygon").all()
side = table.geometry.bounds
np.testing.assert_allclose(side.maxx - side.minx, 120)
np.save(sys.argv[2], np.concatenate([np.stack(table.embedding), side[["minx", "maxy"]].to_numpy()], axis=1))
"""
XARRAY = """
import sys, warnings
import numpy as np, rasterio, rioxarray, xarray
with warnings.catch_warnings():
    warnings.simplefilter("error")
    group = xarray.open_zarr(sys.argv[1], consolidated=False)
assert group.embedding.dims == ("y", "x", "feature") and "spatial_ref" in group.coords
assert group.rio.crs.to_epsg() == 32633 and group.embedding.rio.crs.to_epsg() == 32633
with rasterio.open(sys.argv[2]) as file:
    np.testing.assert_allclose(list(group.rio.transform())[:6], list(file.transform)[:6])
np.save(sys.argv[3], group.embedding.transpose("feature", "y", "x").values)
"""
RIOXARRAY = """
import sys, json, rioxarray
for path, names in json.loads(sys.argv[1]).items():
    layer = rioxarray.open_rasterio(path)
    assert layer.rio.crs.to_epsg() == 32633, path
    said = layer.attrs["long_name"]
    assert ([said] if isinstance(said, str) else list(said)) == names, (path, said)
    assert layer.shape[0] == len(names) and layer.rio.transform() is not None
"""
QGIS = """
import sys
from qgis.core import QgsApplication, QgsRasterLayer
application = QgsApplication([], False)
application.initQgis()
for path in sys.argv[1:]:
    layer = QgsRasterLayer(path, "map")
    message, found = layer.loadNamedStyle(path.replace(".tif", ".qml"))
    assert layer.isValid() and found, (path, message)
    print(layer.renderer().type())
"""


@pytest.fixture(scope="module")
def python():
    found = adapters_python()
    for package in ("geopandas", "zarr", "rioxarray"):
        if run([found, "-c", f"import {package}"], ROOT).returncode:
            pytest.skip(f"{package} is not installed there (make test-adapters installs it)")
    return found


@pytest.fixture(scope="module")
def results(tmp_path_factory, python):
    """A scene with hidden ground and all that is made of it; `embed_scene.py` runs where the optional packages are."""
    folder = tmp_path_factory.mktemp("gis")
    numbers = some_numbers((70, 90))
    numbers[:, 10:25, 30:60] = 0
    scene, checkpoint = write_product(folder / "scene", numbers), tiny_checkpoint(folder / "tiny.pth")
    (lon,), (lat,) = rasterio.warp.transform(UTM_33N, "EPSG:4326", [ORIGIN[0] + 300], [ORIGIN[1] - 300])
    more = ["--stride", 20, "--probe", write_probe(folder / "probe.npz", checkpoint), "--reconstruct"]
    more += ["--similar-to", f"{lon},{lat}", "--geoparquet", "--zarr"]
    command = [python, ROOT / "embed_scene.py", "--scene", scene, "--checkpoint", checkpoint, "--out", folder / "out"]
    done = run([*command, "--device", "cpu", *more], folder)
    assert done.returncode == 0, done.stderr
    return folder / "out"


def test_geopandas_opens_the_table(python, results, tmp_path) -> None:
    done = run([python, "-c", GEOPANDAS, results / "cells.parquet", tmp_path / "table.npy"], tmp_path)
    assert done.returncode == 0, done.stderr
    table = np.load(tmp_path / "table.npy")
    cells = read(results / "embeddings.tif")
    rows, columns = np.nonzero(np.isfinite(cells[0]))
    np.testing.assert_array_equal(table[:, :WIDTH], cells[:, rows, columns].T)
    with rasterio.open(results / "embeddings.tif") as file:
        corners = np.stack([file.transform.c + 120 * columns, file.transform.f - 120 * rows], axis=1)
    np.testing.assert_allclose(table[:, WIDTH:], corners)


def test_xarray_opens_the_zarr_group(python, results, tmp_path) -> None:
    arguments = [results / "embeddings.zarr", results / "embeddings.tif", tmp_path / "cells.npy"]
    done = run([python, "-c", XARRAY, *arguments], tmp_path)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "cells.npy"), read(results / "embeddings.tif"))


def test_rasterio_and_rioxarray_open_every_map(python, results, tmp_path) -> None:
    maps = {str(results / name): names for name, names in MAPS.items()}
    assert {path.name for path in results.glob("*.tif")} == set(MAPS), "every map is looked at"
    for path, names in maps.items():
        with rasterio.open(path) as file:
            assert file.crs == UTM_33N and list(file.descriptions) == names
    done = run([python, "-c", RIOXARRAY, json.dumps(maps)], tmp_path)
    assert done.returncode == 0, done.stderr


def test_styles_are_well_formed_and_qgis_takes_them(results, tmp_path) -> None:
    """In QGIS itself where it is installed; that they are XML of known renderers, everywhere."""
    kinds = {"land_cover": "paletted", "similarity": "singlebandpseudocolor", "reconstruction": "multibandcolor"}
    for name, kind in kinds.items():
        root = ElementTree.parse(results / f"{name}.qml").getroot()
        (renderer,) = root.iter("rasterrenderer")
        assert root.tag == "qgis" and renderer.get("type") == kind
    qgis = "/usr/bin/python3"
    if run([qgis, "-c", "import qgis.core"], tmp_path).returncode:
        pytest.skip("PyQGIS is not installed: the styles are well-formed, QGIS itself was not asked")
    maps = [results / f"{name}.tif" for name in kinds]
    done = run(["env", "QT_QPA_PLATFORM=offscreen", qgis, "-c", QGIS, *maps], tmp_path)
    assert done.stdout.split() == list(kinds.values()), done.stderr
