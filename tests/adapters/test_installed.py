"""`pip install .` outside the repository, beside the package `datasets`: one package, the same numbers."""

import json

import numpy as np
import pytest
from adapters import adapters_python, clean_environment, run
from conftest import ROOT
from pretraining import same_weights, train
from tiny import training_config

from classification_models.logistic_regression import LogisticRegressionModel
from models import MOEMAE
from release.model_code import write_model_code

pytestmark = pytest.mark.adapters

PATCHES = np.random.default_rng(0).integers(7_300, 20_000, (3, 7, 40, 40), dtype=np.uint16)
FIRST_EXAMPLE = """
import sys
import datasets  # Hugging Face's, which is imported first
import numpy as np
from moemae import MOEMAE, load_published

model = MOEMAE.from_pretrained()
embeddings = model.embed(np.load("patches.npy"), when="2018-04-29T09:34:11", lat=47.9, lon=16.5)
np.save("embeddings.npy", embeddings)
assert hasattr(datasets, "load_dataset") and sys.modules["datasets"] is datasets
assert not {"models", "utils", "configs", "transformation"} & sys.modules.keys()
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A clean environment with the package, and a folder to work in."""
    folder = tmp_path_factory.mktemp("elsewhere")
    python = clean_environment(folder / "env")
    pip = [adapters_python(), "-m", "pip", "--python", python, "install", "--no-deps", "--no-build-isolation"]
    done = run([*pip, ROOT], folder)
    assert done.returncode == 0, done.stderr
    return python, folder


def test_nothing_but_one_package_is_installed(installed) -> None:
    python, folder = installed
    code = "import importlib.metadata as m; print(*{str(f).split('/')[0] for f in m.files('moe-mae-landsat')})"
    names = set(run([python, "-c", code], folder).stdout.split())
    assert {name for name in names if not name.endswith(".dist-info")} == {"moemae", ".."}, "and the command"
    assert not (ROOT / "build").exists() and not list(ROOT.glob("*.egg-info")), "nothing is left in the repository"


def test_the_first_example_gives_the_repositorys_numbers(installed) -> None:
    python, folder = installed
    np.save(folder / "patches.npy", PATCHES)
    done = run([python, "-c", FIRST_EXAMPLE], folder)
    assert done.returncode == 0, done.stderr
    expected = MOEMAE.from_pretrained().embed(PATCHES, when="2018-04-29T09:34:11", lat=47.9, lon=16.5)
    np.testing.assert_array_equal(np.load(folder / "embeddings.npy"), expected)


def test_the_command_lists_the_weights(installed) -> None:
    python, folder = installed
    done = run([python.with_name("moemae"), "weights"], folder)
    assert "s (default): size S, 2,538,138 parameters, here" in done.stdout, done.stderr
    done = run([python.with_name("moemae"), "scenes"], folder)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "did you mean scene?" in done.stderr


def test_a_training_is_the_repositorys(installed, tmp_path) -> None:
    """`moemae pretrain` is `python pretrain_mae.py`: the same weights."""
    python, folder = installed

    folders = [tmp_path / "installed", tmp_path / "repository"]
    for path in folders:
        path.mkdir()
    ours, theirs = (training_config(path, epochs=1) for path in folders)
    done = run([python.with_name("moemae"), "pretrain", "--config_yaml", ours], folder)
    assert done.returncode == 0, done.stderr
    assert train(theirs) == 0
    assert same_weights(*(path / "run" / "pretrained_XXS_last.pth" for path in folders))
    manifest = json.loads((tmp_path / "installed" / "run" / "manifest_XXS.json").read_text())
    assert manifest["command"].startswith("moemae pretrain --config_yaml ") and manifest["git_revision"] is None


def test_configs_and_weights_are_found_and_probes_are_interchangeable(installed) -> None:
    python, folder = installed
    command = python.with_name("moemae")
    sample = ROOT / "sample_dataset" / "bigearthnet-l"
    embed = ["embed", "--config_yaml", "configs/sample_embed.yaml", "--set", f"data.dataset_path={sample}"]
    done = run([command, *embed, "--set", "embed.out_dir=vectors", "--set", "embed.name=e"], folder)
    assert done.returncode == 0, done.stderr
    files = [f"vectors/e_{split}.npz" for split in ("train", "test")]
    probe = ["probe", "--train", files[0], "--test", files[1], "--out", "probe", "--name", "p", "--multilabel", "true"]
    done = run([command, *probe], folder)
    assert done.returncode == 0, done.stderr
    (ours,) = (folder / "probe").glob("p_*.joblib")
    x = np.load(folder / files[1])["x_test"]
    predicted = LogisticRegressionModel.load(ours).predict(x)
    code = "import sys, numpy as np; from moemae.classification_models.logistic_regression import "
    code += (
        "LogisticRegressionModel as L; np.save('p.npy', L.load(sys.argv[1]).predict(np.load(sys.argv[2])['x_test']))"
    )
    shipped = next((ROOT / "weights/logistic_regression_plus").glob("bigearthnet_*.joblib"))
    for path, expected in ((ours, predicted), (shipped, LogisticRegressionModel.load(shipped).predict(x))):
        done = run([python, "-c", code, path, files[1]], folder)
        assert done.returncode == 0, done.stderr
        np.testing.assert_array_equal(np.load(folder / "p.npy"), expected)


def test_the_code_of_a_release_is_the_repositorys(installed, tmp_path) -> None:
    """Although it is made from files in which names stand below `moemae`."""
    python, folder = installed
    code = "import sys, pathlib; from moemae.release.model_code import write_model_code as write; "
    ours, theirs = tmp_path / "repository", tmp_path / "installed"
    for path in (ours, theirs):
        path.mkdir()
    about = write_model_code(ours)
    done = run([python, "-c", f"{code}print(write(pathlib.Path(sys.argv[1])))", theirs], folder)
    assert done.returncode == 0 and done.stdout.strip() == str(about), done.stderr
    assert {path.name for path in ours.iterdir()} == {path.name for path in theirs.iterdir()}
    for path in ours.iterdir():  # but for what is said of commands, datasets and scenes, which are not there
        said = (theirs / path.name).read_text()
        said = said.replace("python -m moemae.", "python -m ")
        for name in ("datasets", "scenes"):
            said = said.replace(f'"moemae.{name}.', f'"{name}.')
        assert path.read_text() == said


def test_an_editable_install_is_refused_in_a_line(installed) -> None:
    python, folder = installed
    pip = [adapters_python(), "-m", "pip", "--python", python, "install", "--no-deps", "--no-build-isolation", "-e"]
    done = run([*pip, ROOT], folder)
    assert done.returncode != 0
    assert "so it cannot be editable: pip install ." in done.stdout + done.stderr
