"""Maps of dask arrays are lazy, and rioxarray knows where they are."""

import pytest
from adapters import adapters_python, run

from utils.project_files import PROJECT

pytestmark = pytest.mark.adapters

LAZY = """
import sys; sys.path[:0] = [{root!r} + folder for folder in ("", "/tests", "/tests/scenes", "/tests/support")]
import dask, numpy as np, rioxarray, threading
from scene_files import some_numbers, tiny_checkpoint
from test_embed_map import scene
from models import MOEMAE

model = MOEMAE.from_pretrained(tiny_checkpoint("tiny.pth"))
numbers = np.pad(some_numbers((400, 120)), ((0, 0), (0, 0), (50, 0)))  # fill in the west
whole = scene(numbers)
for stride in (40, 20):
    expected = model.embed_map(whole, stride=stride)
    asked = []
    def part(block, block_info=None):
        asked.append(block.shape); return block
    watched = lambda one: one.copy(data=one.data.map_blocks(part, dtype=one.dtype, meta=one.data._meta))
    lazy = whole.chunk(y=100).map(watched)
    made = model.embed_map(lazy, stride=stride)
    looked_at = len(asked)
    assert made.chunks is not None and len(made.chunks[1]) > 1
    made.isel(y=slice(0, 1)).compute(scheduler="synchronous")
    assert len(asked) - looked_at <= 7 * 5, "only what a piece needs is read"
    np.testing.assert_allclose(made.compute().values, expected.values, atol=1e-5)
    assert made.rio.crs.to_epsg() == 32633 and made.rio.transform() == expected.rio.transform()
made.rio.to_raster("map.tif")
with rioxarray.open_rasterio("map.tif") as again:
    np.testing.assert_array_equal(again.values, made.compute().values)
    model_again = again.rio.crs
assert model_again.to_epsg() == 32633
"""


def test_dask_and_rioxarray(tmp_path) -> None:
    (tmp_path / "lazy.py").write_text(LAZY.format(root=str(PROJECT)))
    done = run([adapters_python(), "lazy.py"], tmp_path)
    assert done.returncode == 0, done.stderr
