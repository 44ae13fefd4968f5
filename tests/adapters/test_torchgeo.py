"""torchgeo's datasets, samplers, collation and transforms into `model.embed`: the real package."""

import numpy as np
import pytest
from adapters import adapters_python, run
from conftest import ROOT, SAMPLE
from scene_files import some_numbers, tiny_checkpoint, write_product

pytestmark = pytest.mark.adapters

START = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import numpy as np
import torch
from torch.utils.data import DataLoader
from models import MOEMAE
model = MOEMAE.from_pretrained(sys.argv[1])
"""
SCENE = f"""
{START}
from torchgeo.datasets import Landsat8, stack_samples
from torchgeo.samplers import GridGeoSampler, Units
scene = Landsat8(sys.argv[2], bands=[f"SR_B{{k}}" for k in range(1, 8)])
sampler = GridGeoSampler(scene, size=40, stride=40, units=Units.PIXELS)
found, pixels = [], []
for batch in DataLoader(scene, batch_size=3, sampler=sampler, collate_fn=stack_samples):
    made = model.embed(batch)
    assert set(made) == {{*batch, "embedding"}} and made["embedding"].shape == (len(batch["image"]), 24)
    found.append(made["embedding"].numpy())
    pixels.append(batch["image"].numpy())
np.savez(sys.argv[3], embedding=np.concatenate(found), pixels=np.concatenate(pixels))
"""
PATCHES = f"""
{START}
import glob
import rasterio
import kornia.augmentation as K
from torchgeo.datasets import NonGeoDataset

class Patches(NonGeoDataset):
    '''Images and labels of a folder, as torchgeo's BigEarthNet gives them.'''

    def __init__(self, transforms=None):
        self.files, self.transforms = sorted(glob.glob(sys.argv[2] + "/*.tif"))[:6], transforms

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        with rasterio.open(self.files[index]) as file:
            pixels = torch.from_numpy(file.read()[:, :40, :40].astype(np.float32))
        sample = {{"image": pixels, "label": torch.arange(19) % 2}}
        return sample if self.transforms is None else self.transforms(sample)

flip = K.AugmentationSequential(K.RandomHorizontalFlip(p=1.0), data_keys=None, keepdim=True)
for name, transforms in (("plain", None), ("flipped", flip)):
    batch = next(iter(DataLoader(Patches(transforms), batch_size=6)))
    made = model.embed(batch, when="2017-06-14")
    assert set(made) == {{"image", "label", "embedding"}} and made["label"].shape == (6, 19)
    np.savez(f"{{sys.argv[3]}}_{{name}}.npz", embedding=made["embedding"].numpy(), pixels=batch["image"].numpy())
one = model.embed(Patches()[0], when="2017-06-14")["embedding"]
np.testing.assert_allclose(one.numpy(), np.load(sys.argv[3] + "_plain.npz")["embedding"][0], atol=1e-5)
"""


@pytest.fixture(scope="module")
def python():
    found = adapters_python()
    if run([found, "-c", "import torchgeo"], ROOT).returncode:
        pytest.skip("torchgeo is not installed there (make test-adapters installs it)")
    return found


def embedded(path, pixels: np.ndarray, **options) -> np.ndarray:
    from models import MOEMAE

    return MOEMAE.from_pretrained(path).embed(pixels.astype(np.uint16), **options)


def test_a_landsat_scene_by_a_sampler(python, tmp_path) -> None:
    numbers = some_numbers((120, 160))
    scene, checkpoint = write_product(tmp_path / "scene", numbers), tiny_checkpoint(tmp_path / "tiny.pth")
    done = run([python, "-c", SCENE, checkpoint, scene, tmp_path / "out.npz"], tmp_path)
    assert done.returncode == 0, done.stderr
    made = np.load(tmp_path / "out.npz")
    cut = {numbers[:, top : top + 40, left : left + 40].tobytes() for top in (0, 40, 80) for left in (0, 40, 80, 120)}
    assert {patch.astype(np.uint16).tobytes() for patch in made["pixels"]} == cut, "the scene's own windows"
    np.testing.assert_allclose(made["embedding"], embedded(checkpoint, made["pixels"]), atol=1e-5)


def test_samples_of_patches_and_their_transforms(python, tmp_path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "tiny.pth")
    done = run([python, "-c", PATCHES, checkpoint, SAMPLE / "images", tmp_path / "out"], tmp_path)
    assert done.returncode == 0, done.stderr
    plain, flipped = (np.load(tmp_path / f"out_{name}.npz") for name in ("plain", "flipped"))
    np.testing.assert_array_equal(flipped["pixels"], plain["pixels"][..., ::-1])
    for made in (plain, flipped):
        expected = embedded(checkpoint, made["pixels"], when="2017-06-14")
        np.testing.assert_allclose(made["embedding"], expected, atol=1e-5)
    assert np.abs(plain["embedding"] - flipped["embedding"]).max() > 1e-4
