"""`MOEMAE.from_pretrained`: files, folders and the hub; what is refused, and that `import models` stays light."""

import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from model_hub import serving
from tiny import write_config
from tiny_weights import tiny_model, write_published_checkpoint, write_tiny_checkpoint

from configs.build import configured_checkpoint, load_configured_model
from configs.schema import read_config
from models import MOEMAE, build_model
from models.checkpoint import write_checkpoint
from models.pretrained import load_published, weights_path
from models.weights_command import main
from utils.errors import CheckpointError, ConfigError

REPOSITORY = "someone/small-landsat-model"


def same_weights(a: MOEMAE, b: MOEMAE) -> bool:
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return a.config == b.config and all(m == n and torch.equal(x, y) for (m, x), (n, y) in pairs)


@pytest.fixture(scope="module")
def weights_folder(tmp_path_factory):
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    from models.weights_folder import write_weights_folder

    folder = tmp_path_factory.mktemp("export")
    write_weights_folder(folder, tiny_model(), {})
    return folder


def copied(folder, target):
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


# --------------------------------------------------------------------------- files and folders


def test_a_checkpoint_file_and_its_folder(tmp_path, capsys) -> None:
    path = write_tiny_checkpoint(tmp_path / "run" / "pretrained_XXS_best.pth")
    model = MOEMAE.from_pretrained(path)
    assert not model.training
    assert same_weights(model, tiny_model())
    assert same_weights(MOEMAE.from_pretrained(str(path.parent)), model)
    for name in ("pretrained_XXS_last.pth", "checkpoint_XXS.pth"):
        write_checkpoint(path.with_name(name), build_model("XXS", seed=1), epoch=0, best_train_loss=0.0)
    assert same_weights(MOEMAE.from_pretrained(path.parent), model), "of a run's files the best one is meant"
    assert not same_weights(MOEMAE.from_pretrained(path.parent, file="pretrained_XXS_last.pth"), model)
    published = write_published_checkpoint(tmp_path / "theirs.pth")
    assert MOEMAE.from_pretrained(published).config.published_behaviour
    assert "published_behaviour: true" in capsys.readouterr().out


def test_the_weights_of_the_repository() -> None:
    assert MOEMAE.from_pretrained(ROOT / "weights" / "moe_mae_simulated").config.size == "XXS"


def test_a_device_that_is_none(tmp_path) -> None:
    with pytest.raises(ConfigError, match="device: 'toaster' cannot be used"):
        MOEMAE.from_pretrained(write_tiny_checkpoint(tmp_path / "a.pth"), device="toaster")


def test_what_is_no_weights(tmp_path) -> None:
    (tmp_path / "a.pth").write_bytes(b"x")
    (tmp_path / "b.pth").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    for source, named in (
        ("", "no weights are named"),
        (tmp_path / "absent.pth", "no such file or folder"),
        (tmp_path / "absent", "no such file or folder"),
        ("weights/absent", "no such file or folder"),  # a folder of that name is here, so a path is meant
        ("some.pth", "no such file or folder"),
        (tmp_path, r"2 checkpoints \(a.pth, b.pth, …\); say which: file="),
        (tmp_path / "empty", "holds neither model.safetensors"),
        (tmp_path / "a.pth", "not a PyTorch file"),
    ):
        with pytest.raises(CheckpointError, match=named) as caught:
            MOEMAE.from_pretrained(source)
        assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match=r"has no file c\.pth"):
        MOEMAE.from_pretrained(tmp_path, file="c.pth")


# --------------------------------------------------------------------------- names


def test_shipped_weights_are_found_by_name_from_any_folder(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    default = MOEMAE.from_pretrained()
    assert default.config.size == "S" and default.config.pool == "meta_cls"
    path = "weights/moe_mae_plus_s/pretrained_S_best.pth"
    assert weights_path() == weights_path("s") == weights_path(path) == ROOT / path
    assert "taken from" in capsys.readouterr().out
    assert weights_path("xxs") == ROOT / "weights/moe_mae_plus/pretrained_XXS_best.pth"
    assert MOEMAE.from_pretrained("xxs_bands").config.missing_bands == "token"
    write_tiny_checkpoint(tmp_path / "weights" / "moe_mae_plus" / "a.pth")
    assert weights_path("weights/moe_mae_plus").name == "a.pth", "nearer counts"
    (tmp_path / "s").mkdir()
    with pytest.raises(CheckpointError, match="s: holds neither"):  # a path of that name is here, so it is meant
        MOEMAE.from_pretrained("s")


@pytest.mark.parametrize(
    "name",
    [
        "weights/absent",
        "outputs/run",
        "./owner/name",
        "../weights",
        "a/b/c",
        "owner/",
        "xs",
        "~/weights",
        "owner/a.pth",
    ],
)
def test_what_looks_like_a_path_is_never_looked_for_on_the_hub(tmp_path, monkeypatch, name) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("models.pretrained.fetch_from_hub", lambda *_: pytest.fail("asked the hub"))
    names = "simulated, xxs, xxs_bands, s, published"
    with pytest.raises(CheckpointError, match=f"no such file or folder.*or one of {names}"):
        MOEMAE.from_pretrained(name)


def test_shipped_weights_that_are_missing_or_changed(tmp_path, monkeypatch) -> None:
    """A copy without its weights, or with others under their name, says so."""
    entry = {"name": "xxs", "default": True, "sha256": "0" * 64, "size": "XXS", "parameters": 1, "trained_on": "x"}
    (tmp_path / "manifest.json").write_text(json.dumps({"a.pth": entry}))
    monkeypatch.setattr("models.named_weights.WEIGHTS", tmp_path)
    monkeypatch.setattr("models.named_weights.MANIFEST", tmp_path / "manifest.json")
    with pytest.raises(CheckpointError, match=r"xxs: .*a\.pth is missing"):
        MOEMAE.from_pretrained()
    write_tiny_checkpoint(tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"a\.pth: is not the file that .*manifest\.json records"):
        MOEMAE.from_pretrained()
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"manifest\.json: cannot be read"):
        MOEMAE.from_pretrained("xxs")
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="names no default weights"):
        MOEMAE.from_pretrained()


def test_the_command_lists_names_and_says_what_weights_are(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([]) == 0
    listed = capsys.readouterr().out
    for said in (
        "s (default): size S, 2,538,138 parameters, here",
        "xxs: size XXS, 825,125 parameters, here",
        "published: size S",
        "trained on 8,000 simulated",
    ):
        assert said in listed
    assert main(["xxs"]) == 0
    assert "pooling     meta_cls, 540 numbers a patch" in capsys.readouterr().out
    assert main([str(write_published_checkpoint(tmp_path / "a.pth"))]) == 0
    assert "pooling     cls, 108 numbers" in capsys.readouterr().out


# --------------------------------------------------------------------------- weights without pickle


def test_weights_folders_keep_every_bit_and_call_no_pickle(weights_folder, monkeypatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("something is unpickled")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    model = MOEMAE.from_pretrained(weights_folder)
    assert not model.training
    assert same_weights(model, tiny_model())
    assert same_weights(MOEMAE.from_pretrained(weights_folder / "model.safetensors"), model)


def test_configs_take_what_from_pretrained_takes(weights_folder, tmp_path) -> None:
    """`model.checkpoint_path` of every script: files, folders, exports; and what is none is said as what it is."""

    def configured(source, **model):
        path = write_config(tmp_path / "c.yaml", model={"checkpoint_path": str(source), **model})
        config = read_config(str(path), [], ("model.checkpoint_path",))
        return load_configured_model(config, torch.device("cpu")), configured_checkpoint(config)

    run = write_tiny_checkpoint(tmp_path / "run" / "pretrained_XXS_best.pth")
    expected = {run: run, run.parent: run} | dict.fromkeys(
        (weights_folder, weights_folder / "model.safetensors"), weights_folder / "model.safetensors"
    )
    for source, file in expected.items():
        model, found = configured(source, pool="mean", mask_ratio=0.5)
        assert found == file and model.config.pool == "mean" and model.masking.ratio == 0.5 and not model.training
        assert same_weights(configured(source)[0], tiny_model())
        with pytest.raises(CheckpointError, match=r"holds another model than the config asks for .*model\.depth"):
            configured(source, depth=3, dfirsth=16)
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "probe.npz", coef=np.zeros(3))
    for name in ("a.onnx", "a.pt2", "a.joblib"):
        (tmp_path / name).write_bytes(b"PK")
    for name, said in (
        ("empty", "holds neither model.safetensors"),
        ("probe.npz", "is a probe or an embedding file"),
        ("a.onnx", r"is a program that export\.py wrote \(ONNX\)"),
        ("a.pt2", r"is a program that export\.py wrote \(torch\.export\)"),
        ("a.joblib", r"is a probe \(\.joblib\)"),
        ("absent.pth", "no such file or folder"),
    ):
        with pytest.raises(CheckpointError, match=said) as caught:
            configured(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda about: about["model"].update(num_heads=2, num_groups=1), None),
        (lambda about: about["weights"].update(sha256="0" * 64), "not the file that config.json belongs to"),
        (lambda about: about.pop("model"), "no usable config"),
        (lambda about: about["model"].update(width=3), "unknown model fields"),
        (lambda about: about["model"].update(embed_dim=28, num_heads=4), "expected float32"),
        (lambda about: about["model"].update(depth=3, experts=[3, 4, 5]), "lacks encoder.layers.2"),
        (lambda about: about.update(model_type="bert"), "of type 'bert'"),
        (lambda about: about.update(format=99), "newer version"),
        (lambda about: about.pop("model_type"), "not the config of a model of this project"),
    ],
)
def test_configs_that_do_not_fit(weights_folder, tmp_path, change, named) -> None:
    folder = copied(weights_folder, tmp_path / "f")
    about = json.loads((folder / "config.json").read_text())
    change(about)
    (folder / "config.json").write_text(json.dumps(about))
    if "model_type" in about:
        with pytest.raises(CheckpointError, match="is not what was written there; restore it; if you changed it your"):
            MOEMAE.from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({key: about[key] for key in about if "checksum" not in key}))
    if named is None:  # head counts leave no trace in the weights: the config decides
        assert MOEMAE.from_pretrained(folder).config.num_heads == 2
        return
    with pytest.raises(CheckpointError, match=named) as caught:
        MOEMAE.from_pretrained(folder)
    assert "\n" not in str(caught.value)


def test_damaged_weights(weights_folder, tmp_path) -> None:
    folder = copied(weights_folder, tmp_path / "f")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-100])
    with pytest.raises(CheckpointError, match=r"not the file that config\.json belongs"):
        MOEMAE.from_pretrained(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not the config"):
        MOEMAE.from_pretrained(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"needs its config\.json beside it"):
        MOEMAE.from_pretrained(folder / "model.safetensors")


def test_without_safetensors(weights_folder, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ConfigError, match="pip install safetensors"):
        MOEMAE.from_pretrained(weights_folder)


# --------------------------------------------------------------------------- the hub


@pytest.fixture
def hub_client(tmp_path, monkeypatch):
    """The real client, with a cache of its own; returns a function that points it at an endpoint."""
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)

    def point(endpoint: str) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    point("http://127.0.0.1:9")  # nobody answers there
    return point


def test_from_the_hub_and_then_from_its_cache(hub_client, weights_folder, capfd) -> None:
    with serving(REPOSITORY, weights_folder) as endpoint:
        hub_client(endpoint)
        assert same_weights(MOEMAE.from_pretrained(REPOSITORY), tiny_model())
    assert capfd.readouterr().err == "", "no bars off a terminal"
    hub_client("http://127.0.0.1:9")
    assert same_weights(MOEMAE.from_pretrained(REPOSITORY), tiny_model())


def test_a_published_checkpoint_from_the_hub(hub_client, tmp_path) -> None:
    """As the authors' repository: a .pth in a folder, beside files of no use here."""
    folder = tmp_path / "repository"
    (folder / "weights").mkdir(parents=True)
    (folder / "README.md").write_text("x")
    write_published_checkpoint(folder / "weights" / "pretrained_XXS_best.pth")
    with serving(REPOSITORY, folder) as endpoint:
        hub_client(endpoint)
        assert MOEMAE.from_pretrained(REPOSITORY).config.published_behaviour
        file = "weights/pretrained_XXS_best.pth"
        assert MOEMAE.from_pretrained(REPOSITORY, file=file).config.published_behaviour
        with pytest.raises(CheckpointError, match="no such revision"):
            MOEMAE.from_pretrained(REPOSITORY, revision="absent")
        with pytest.raises(CheckpointError, match="neither a file here nor a model"):
            MOEMAE.from_pretrained("nobody/nothing")
    cached = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_symlink() or path.suffix == ".pth"]
    assert "README.md" not in cached


def test_the_authors_weights_by_name(hub_client, tmp_path, monkeypatch) -> None:
    """Fetched once, then from the cache; what is not they is refused. Here with size XXS in the place of S."""
    entry = {"name": "published", "sha256": None, "size": "XXS", "parameters": 824693, "hub": REPOSITORY}
    (tmp_path / "manifest.json").write_text(json.dumps({"theirs/a.pth": entry}))
    monkeypatch.setattr("models.named_weights.WEIGHTS", tmp_path)
    monkeypatch.setattr("models.named_weights.MANIFEST", tmp_path / "manifest.json")
    own = tmp_path / "theirs" / "a.pth"
    own.parent.mkdir()
    write_checkpoint(own, build_model("XXS", seed=1), epoch=0, best_train_loss=0.0)  # of a training in that folder
    served = tmp_path / "served"
    served.mkdir()
    expected = MOEMAE.from_pretrained(write_published_checkpoint(served / "pretrained_S_best.pth"))
    with serving(REPOSITORY, served) as endpoint:
        hub_client(endpoint)
        assert same_weights(MOEMAE.from_pretrained("published"), expected)
    hub_client("http://127.0.0.1:9")
    assert same_weights(load_published(), expected), "from the cache"
    with pytest.raises(CheckpointError, match="was not trained as the published code"):
        load_published(own)
    (tmp_path / "manifest.json").write_text(json.dumps({"b.pth": {**entry, "parameters": 2}}))
    with pytest.raises(CheckpointError, match="is not the published checkpoint"):
        MOEMAE.from_pretrained("published")
    (tmp_path / "manifest.json").write_text(json.dumps({"theirs/a.pth": entry}))
    own.write_bytes((served / "pretrained_S_best.pth").read_bytes())
    monkeypatch.setattr("models.pretrained.fetch_from_hub", lambda *_: pytest.fail("asked the hub"))
    assert same_weights(MOEMAE.from_pretrained("published"), expected), "fetched by hand"


def test_offline_is_one_line(hub_client, monkeypatch) -> None:
    with pytest.raises(CheckpointError, match="hub is out of reach") as caught:
        MOEMAE.from_pretrained(REPOSITORY)
    assert "\n" not in str(caught.value)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="hub is out of reach"):
        MOEMAE.from_pretrained(REPOSITORY)


def test_without_huggingface_hub(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match="pip install huggingface_hub") as caught:
        MOEMAE.from_pretrained(REPOSITORY)
    assert "\n" not in str(caught.value)


# --------------------------------------------------------------------------- imports


def test_importing_models_loads_none_of_the_rooms_above() -> None:
    """And none of the packages that only those need."""
    code = "import sys, models; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    above = {"embed", "datasets", "scenes", "release", "eval", "training", "classification_models", "configs"}
    heavy = {"rasterio", "sklearn", "pandas", "safetensors", "huggingface_hub", "onnx", "xarray", "matplotlib"}
    assert not (above | heavy) & set(done.stdout.split())
