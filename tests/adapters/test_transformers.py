"""A release folder in `transformers`, in a process that sees nothing of this repository, beside `datasets`."""

import re

import numpy as np
import pytest
from adapters import adapters_python, run
from model_hub import serving

from export import main
from models import MOEMAE

pytestmark = pytest.mark.adapters

REPOSITORY = "someone/small-landsat-model"
PATCHES = np.random.default_rng(0).integers(7_300, 20_000, (4, 7, 40, 40), dtype=np.uint16)
PATCHES[1, :, :9] = 0
PATCHES[2] = 0
LOADED = """
import datasets
import sys
import numpy as np
import torch
pixels = np.load("patches.npy")
CARD
assert hasattr(datasets, "load_dataset")
assert not {"models", "utils", "transformation", "moemae"} & sys.modules.keys()
loaded, about = AutoModel.from_pretrained(FOLDER, trust_remote_code=True, output_loading_info=True)
assert not about["missing_keys"] and not about["unexpected_keys"] and not loaded.training
columns = torch.tensor([[24, 10, 48.2, 16.4]] * len(pixels))
output = loaded(torch.from_numpy(pixels.astype(np.int32)), columns)
assert output.last_hidden_state.shape[:2] == (len(pixels), 105)
output.pooler_output[0].sum().backward()
np.savez("result.npz", card=vectors, forward=output.pooler_output.detach(),
         unknown=loaded(torch.from_numpy(pixels.astype(np.int32))).pooler_output.detach())
loaded.save_pretrained("again")
again = AutoModel.from_pretrained("again", trust_remote_code=True)
assert all(torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), again.state_dict().values()))
"""


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A folder that `export.py` wrote."""
    folder = tmp_path_factory.mktemp("releases") / "release"
    assert main(["--checkpoint", "xxs", "--out", str(folder), "--programs", "none"]) == 0
    return folder


def test_a_release_on_the_hub(release, tmp_path) -> None:
    """transformers fetches file by file, by the imports that it finds in each."""
    code = "import numpy as np; from transformers import AutoModel; "
    code += f"model = AutoModel.from_pretrained({REPOSITORY!r}, trust_remote_code=True); "
    code += "np.save('vectors.npy', model.embed(np.load('patches.npy')))"
    np.save(tmp_path / "patches.npy", PATCHES[:2])
    with serving(REPOSITORY, release) as endpoint:
        done = run([adapters_python(), "-c", code], tmp_path, endpoint)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "vectors.npy"), MOEMAE.from_pretrained("xxs").embed(PATCHES[:2]))


@pytest.mark.filterwarnings("ignore:.*no valid pixel")
def test_a_release_is_an_automodel_with_the_same_numbers(release, tmp_path) -> None:
    python, folder = adapters_python(), release
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    card = next(block for block in blocks if "AutoModel" in block).replace("path/to/this/folder", str(folder))
    np.save(tmp_path / "patches.npy", PATCHES)
    done = run([python, "-c", LOADED.replace("CARD", card).replace("FOLDER", repr(str(folder)))], tmp_path)
    assert done.returncode == 0, done.stderr
    result = np.load(tmp_path / "result.npz")
    model = MOEMAE.from_pretrained("xxs")
    expected = model.embed(PATCHES, when="2017-06-13T10:10:31", lat=48.2, lon=16.4)
    np.testing.assert_array_equal(result["card"], expected)
    np.testing.assert_allclose(result["forward"], expected, atol=1e-5)
    np.testing.assert_allclose(result["unknown"], model.embed(PATCHES), atol=1e-5)
    assert np.isnan(expected[2]).all() and np.isfinite(expected[[0, 1, 3]]).all()
