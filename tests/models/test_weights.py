"""The weights that come with the repository are what their manifest says."""

import hashlib
import json

import pytest
from conftest import ROOT

from classification_models.logistic_regression import LogisticRegressionModel
from eval_mae import main
from models.checkpoint import load_model
from models.moe_mae import count_parameters

FOLDER = ROOT / "weights"
MANIFEST = json.loads((FOLDER / "manifest.json").read_text())
SHIPPED = {name: entry for name, entry in MANIFEST.items() if entry["shipped"]}


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_file_has_its_hash(name: str) -> None:
    content = (FOLDER / name).read_bytes()
    assert hashlib.sha256(content).hexdigest() == SHIPPED[name]["sha256"]
    assert len(content) == SHIPPED[name]["bytes"] <= 11e6
    assert "simulated" in SHIPPED[name]["trained_on"]


def test_every_file_is_in_the_manifest() -> None:
    files = {str(path.relative_to(FOLDER)) for path in FOLDER.glob("*/*")}
    assert files == set(SHIPPED)


@pytest.mark.runs
def test_the_model_scores_what_the_manifest_says(tmp_path) -> None:
    (name,) = [name for name in SHIPPED if name.endswith(".pth") and "sample_test" in SHIPPED[name]["scores"]]
    assert count_parameters(load_model(FOLDER / name)) == SHIPPED[name]["parameters"]
    arguments = ["--config_yaml", str(ROOT / "configs" / "sample_eval.yaml")]
    for change in (
        f"eval.reconstructions_dir={tmp_path}",
        f"model.checkpoint_path={FOLDER / name}",
        f"data.dataset_path={ROOT / 'sample_dataset' / 'bigearthnet-l'}",
        "eval.save_reconstructions_masked=false",
        "eval.save_reconstructions_full=false",
    ):
        arguments += ["--set", change]
    assert main(arguments) == 0
    found = json.loads((tmp_path / "metrics.json").read_text())
    expected = SHIPPED[name]["scores"]["sample_test"]
    assert found["masked_loss"] == pytest.approx(expected["masked_loss"], rel=1e-3)
    assert found["masked_loss"] < found["baselines"]["visible_mean"]["masked_loss"]


def test_the_probes_load_without_pickle() -> None:
    probes = [name for name in SHIPPED if name.startswith("logistic") and name.endswith(".npz")]
    assert len(probes) == 4
    for name in probes:
        model = LogisticRegressionModel.load(FOLDER / name)
        assert model.multilabel is ("bigearthnet" in name)


def test_the_authors_file_can_be_fetched_and_checked() -> None:
    entry = MANIFEST["moe_mae_bigearthnet_ls/pretrained_S_best.pth"]
    assert not entry["shipped"]
    assert entry["sha256"] is None
    assert "models.checkpoint" in entry["check"]
    assert "albughdadim" in entry["source"]
