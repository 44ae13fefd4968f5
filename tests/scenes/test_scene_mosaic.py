"""A mosaic of real patches through the scene command: each window's embedding is its patch's."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from scene_files import embed, tiny_checkpoint, write_band

from models import MOEMAE
from transformation.transformer import center_crop
from utils.sensors import OLI

SIDE, ACROSS = 40, 4


def patches_of_one_zone(folder: Path) -> tuple[np.ndarray, rasterio.CRS]:
    """The first 16 whole patches (16, 7, 40, 40) of the map projection that most of them have."""
    found: dict[str, list[np.ndarray]] = {}
    for path in sorted((folder / "images").glob("*.tif")):
        with rasterio.open(path) as file:
            pixels = center_crop(file.read(), SIDE)
            if pixels.all():  # a scene hides what is 0 in any band, a patch what is 0 in all
                found.setdefault(file.crs.to_string(), []).append(pixels)
    crs = max(found, key=lambda name: len(found[name]))
    return np.stack(found[crs][: ACROSS**2]), rasterio.CRS.from_string(crs)


@pytest.mark.parametrize("pool", ["cls", "patch_mean"])
def test_real_patches_side_by_side_are_embedded_like_patches(tmp_path, real_patches, pool: str) -> None:
    patches, crs = patches_of_one_zone(real_patches)
    assert len(patches) == ACROSS**2
    rows = patches.reshape(ACROSS, ACROSS, len(OLI.bands), SIDE, SIDE)
    mosaic = rows.transpose(2, 0, 3, 1, 4).reshape(len(OLI.bands), ACROSS * SIDE, ACROSS * SIDE)
    corner = (SIDE * 30.0 * 400, SIDE * 30.0 * 4600)  # on the global grid of windows
    scene = write_band(tmp_path / "mosaic.tif", mosaic, corner, crs=crs, descriptions=OLI.bands)
    checkpoint = tiny_checkpoint(tmp_path / "tiny.pth")
    path = embed(scene, checkpoint, tmp_path / "out", "--pool", pool, "--metadata", "none")
    with rasterio.open(path) as file:
        cells, transform = file.read(), file.transform
    assert (transform.c, transform.f) == corner and cells.shape[1:] == (ACROSS, ACROSS)
    expected = MOEMAE.from_pretrained(checkpoint).embed(patches, pool=pool)
    np.testing.assert_allclose(cells.reshape(len(cells), -1).T, expected, atol=2e-3)  # stored as float16
