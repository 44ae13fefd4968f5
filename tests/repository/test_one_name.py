"""What is reached under one name: the package `moemae` and its command, and models by `torch.hub`."""

import ast
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT

import moemae
from classification_models.logistic_regression import LogisticRegressionModel
from models import MOEMAE
from moemae.__main__ import COMMANDS, main
from utils.build.renaming import project_modules
from utils.errors import ConfigError

PATCH = np.full((7, 40, 40), 9000, np.uint16)


def test_the_package_in_the_repository_is_the_repository() -> None:
    assert moemae.MOEMAE is MOEMAE


def test_every_command_is_a_script() -> None:
    modules = project_modules(ROOT)
    for command in COMMANDS.values():
        module, _, function = command.main.partition(":")
        code = modules[module].read_text(encoding="utf-8")
        assert function in {node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)}
        assert ("several=True" in code) is command.several, "as the script says itself"


def test_the_command(capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/moemae", "weights"])
    assert main(["weights"]) == 0
    assert "s (default)" in capsys.readouterr().out
    assert sys.argv == ["moemae weights"]
    assert main([]) == main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {name} " in listed for name in COMMANDS)
    with pytest.raises(ConfigError, match=r"moemae scenes: no such command; did you mean scene\?"):
        main(["scenes"])
    with pytest.raises(ConfigError, match=r"moemae x: no such command; use one of pretrain, "):
        main(["x"])


@pytest.fixture
def hub():
    """Loads by `torch.hub` from this repository; what that leaves in this process is taken away at the end."""
    before = set(sys.modules)
    yield lambda entry, **options: torch.hub.load(str(ROOT), entry, source="local", **options)
    sys.meta_path[:] = [finder for finder in sys.meta_path if not hasattr(finder, "__moemae_root__")]
    for name in set(sys.modules) - before:
        if name.startswith("moemae_hub"):
            del sys.modules[name]


def test_models_by_torch_hub_leave_common_names_alone(hub, monkeypatch, tmp_path) -> None:
    """Also where a program has other packages of these names; and the numbers are the repository's."""
    monkeypatch.chdir(tmp_path)
    expected = MOEMAE.from_pretrained("xxs").embed(PATCH, lat=47.9, lon=16.5)
    names = [
        name for name in sys.modules if name.partition(".")[0] in ("datasets", "utils", "models", "transformation")
    ]
    kept = {name: sys.modules[name] for name in names}
    other = type(sys)("utils")
    for name in names:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "utils", other)
    path, before = list(sys.path), set(sys.modules)
    model = hub("moemae_xxs")
    np.testing.assert_array_equal(model.embed(PATCH, lat=47.9, lon=16.5), expected)
    assert {name.partition(".")[0] for name in set(sys.modules) - before} <= {"moemae_hub"}
    assert sys.modules["utils"] is other and sys.path == path
    assert type(hub("moemae", weights=str(ROOT / "weights/moe_mae_simulated"))) is type(model), "imported once"
    sys.modules.update(kept)


def test_probes_are_pickled_under_the_published_name_by_any_copy(hub, tmp_path) -> None:
    hub("moemae_xxs")
    other = __import__("moemae_hub.classification_models.logistic_regression", fromlist=["x"]).LogisticRegressionModel
    x = np.random.default_rng(0).normal(size=(40, 3))
    probe = other(verbose=0).fit(x, (x[:, 0] > 0).astype(int))
    probe.save(tmp_path / "a.joblib")
    again = LogisticRegressionModel.load(tmp_path / "a.joblib")
    assert type(again) is LogisticRegressionModel and type(probe) is not LogisticRegressionModel
    np.testing.assert_array_equal(again.predict(x), probe.predict(x))
    again.save(tmp_path / "b.joblib")
    assert type(other.load(tmp_path / "b.joblib")) is other
    assert other.__module__.startswith("moemae_hub.")
    assert sys.modules["classification_models.logistic_regression"].LogisticRegressionModel is LogisticRegressionModel
