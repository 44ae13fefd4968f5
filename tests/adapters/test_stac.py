"""The STAC item of a scene, read and validated by pystac."""

import pytest
from adapters import adapters_python, run
from scene_files import WIDTH, embed, some_numbers, tiny_checkpoint, write_product

pytestmark = pytest.mark.adapters

READ = """
import sys
import pystac
from pystac.extensions.projection import ProjectionExtension

item = pystac.Item.from_file(sys.argv[1])
asset = item.assets["embeddings"]
assert ProjectionExtension.ext(asset).code == "EPSG:32633"
assert item.datetime.isoformat().startswith("2018-07-04T") and item.properties["emb:dimensions"] == WIDTH
import rasterio
with rasterio.open(asset.get_absolute_href()) as file:
    assert file.count == WIDTH and list(file.shape) == asset.extra_fields["proj:shape"]
    assert list(file.transform)[:6] == asset.extra_fields["proj:transform"]
item.stac_extensions = []  # their schemas are on the network; that of the core comes with pystac
print(item.validate())
"""


def test_pystac_reads_and_validates_the_item(tmp_path) -> None:
    python = adapters_python()
    scene, checkpoint = write_product(tmp_path / "scene", some_numbers()), tiny_checkpoint(tmp_path / "tiny.pth")
    path = embed(scene, checkpoint, tmp_path / "out", "--stac")
    done = run([python, "-c", READ.replace("WIDTH", str(WIDTH)), path.with_name("stac_item.json")], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "item.json" in done.stdout
