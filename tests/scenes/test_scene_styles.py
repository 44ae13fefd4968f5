"""What is written beside maps for other tools: QGIS styles, and one line where an optional package is missing."""

from xml.etree import ElementTree

import pytest
import rasterio.warp
from scene_files import ORIGIN, embed, some_numbers, tiny_checkpoint, write_product
from tiny import UTM_33N

import scenes.products.zarr_group
from scenes.outputs import OutputSet
from utils.errors import ConfigError
from utils.files import write_json


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene")
    return write_product(folder / "scene", some_numbers((90, 100))), tiny_checkpoint(folder / "tiny.pth")


def test_similarity_and_reconstruction_have_styles(scene, tmp_path) -> None:
    x, y = ORIGIN[0] + 1500, ORIGIN[1] - 1500
    (lon,), (lat,) = rasterio.warp.transform(UTM_33N, "EPSG:4326", [x], [y])
    embed(*scene, tmp_path / "out", "--similar-to", f"{lon},{lat}", "--reconstruct")
    ramp = ElementTree.parse(tmp_path / "out" / "similarity.qml").getroot().find("pipe/rasterrenderer")
    assert ramp is not None and ramp.get("type") == "singlebandpseudocolor"
    values = [float(item.get("value", "")) for item in ramp.iter("item")]
    assert values == sorted(values) and (values[0], values[-1]) == (-1, 1)
    colours = ElementTree.parse(tmp_path / "out" / "reconstruction.qml").getroot().find("pipe/rasterrenderer")
    assert colours is not None and [colours.get(f"{name}Band") for name in ("red", "green", "blue")] == ["4", "3", "2"]
    assert [float(one.text or "") for one in colours.iter("minValue")] == [7273] * 3


def test_without_zarr_a_line_says_so(scene, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(scenes.products.zarr_group.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="--zarr: needs the package zarr"):
        embed(*scene, tmp_path / "out", "--zarr")


def test_a_folder_takes_the_place_of_an_earlier_one(tmp_path) -> None:
    """And goes where a run does not make it again."""
    for text in ("first", "second"):
        outputs = OutputSet(tmp_path / "out")
        group = outputs.new("embeddings.zarr")
        group.mkdir()
        (group / text).write_text(text)
        outputs.publish({})
        assert [path.name for path in (tmp_path / "out" / "embeddings.zarr").iterdir()] == [text]
    outputs = OutputSet(tmp_path / "out")
    write_json(outputs.new("embeddings.tif"), {})
    assert outputs.publish({}) == ["embeddings.zarr"]
    assert not (tmp_path / "out" / "embeddings.zarr").exists()
