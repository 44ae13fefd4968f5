"""The card of a release: whose weights they are, how they were trained, and their measured scores."""

import json

import pytest
import tiny_weights
from conftest import ROOT
from tiny_weights import tiny_model, write_published_checkpoint, write_tiny_checkpoint

from export import main
from utils.errors import CheckpointError, DataError
from utils.files import sha256

checkpoint = tiny_weights.checkpoint

pytest.importorskip("safetensors", reason="safetensors is not installed (pip install -r requirements-export.txt)")


def export_weights_only(checkpoint, folder, *more: str) -> str:
    """The card of a release without programs."""
    assert main(["--checkpoint", str(checkpoint), "--out", str(folder), "--programs", "none", *more]) == 0
    return (folder / "README.md").read_text()


def test_a_card_says_what_is_missing(checkpoint, tmp_path) -> None:
    card = export_weights_only(checkpoint, tmp_path / "r")
    names = {path.name for path in (tmp_path / "r").iterdir()}
    code = {name for name in names if name.endswith(".py")}
    assert names - code == {"README.md", "config.json", "model.safetensors"}
    assert {"modeling_moemae.py", "moemae_models_moe_mae.py"} <= code
    assert "Trained on: not recorded" in card
    assert "Measured scores of these weights: not recorded" in card
    assert "| licence | not recorded |" in card
    assert "license:" not in card
    assert sha256(checkpoint) in card
    assert "onnxruntime" not in card


def test_a_card_of_the_weights_of_the_repository(tmp_path) -> None:
    """Every number in its table of scores is one of the manifest's."""
    name = "moe_mae_simulated/pretrained_XXS_best.pth"
    entry = json.loads((ROOT / "weights" / "manifest.json").read_text())[name]
    card = export_weights_only(ROOT / "weights" / name, tmp_path / "r", "--license", "mit")
    assert f"Trained on: {entry['trained_on']}." in card
    assert all(command in card for command in entry["commands"])
    assert f"{entry['parameters']:,} parameters" in card
    assert card.startswith("---\nlicense: mit\n")
    rows = card.split("## Scores")[1].split("## Files")[0].splitlines()[4:]
    found = [float(row.split("|")[3]) for row in rows if row]
    recorded = [scores["masked_loss"] for scores in entry["scores"].values()]
    recorded += [value for scores in entry["scores"].values() for value in scores["baselines"].values()]
    assert sorted(found) == sorted(float(f"{value:.4g}") for value in recorded)


def test_an_entry_without_a_hash_is_found_by_name_and_says_so(tmp_path) -> None:
    path = write_published_checkpoint(tmp_path / "theirs.pth")
    entries = {"theirs.pth": {"sha256": None, "trained_on": "patches of theirs", "source": "their page"}}
    (tmp_path / "manifest.json").write_text(json.dumps(entries))
    card = export_weights_only(path, tmp_path / "r")
    assert "patches of theirs" in card and "their page" in card and "by its name" in card
    assert "released weights (published_behaviour: true)" in card
    (tmp_path / "manifest.json").write_text(json.dumps({"theirs.pth": {"sha256": "0" * 64, "trained_on": "others"}}))
    with pytest.raises(CheckpointError, match=r"theirs\.pth: is not the file that .*manifest\.json records"):
        export_weights_only(path, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_the_record_of_a_run(tmp_path, checkpoint) -> None:
    path = write_tiny_checkpoint(tmp_path / "run" / "pretrained_XXS_best.pth")
    recipe = {"model": tiny_model().config.to_dict(), "training": {"epochs": 3, "seed": 5}, "data": {"dataset": "d"}}
    run = {"command": "pretrain_mae.py --config_yaml c.yaml", "patches": {"train": 10}, "recipe": recipe}
    (path.parent / "manifest_XXS.json").write_text(json.dumps(run))
    card = export_weights_only(path, tmp_path / "r")
    assert "| seed | 5 |" in card and "python pretrain_mae.py --config_yaml c.yaml" in card
    assert "| finished epochs | 3 |" in card
    recipe["model"]["depth"] = 9  # of another model
    (path.parent / "manifest_XXS.json").write_text(json.dumps(run))
    assert "seed" not in export_weights_only(path, tmp_path / "s")


def test_measured_scores(tmp_path, checkpoint) -> None:
    digest = sha256(checkpoint)
    about = {"checkpoint": {"sha256": digest}, "simulated": True, "dataset": "bigearthnet_ls"}
    metrics = {"masked_loss": 9.25, "full_loss": 0.5, "patches": 64, **about}
    metrics["baselines"] = {"visible_mean": {"masked_loss": 25.5}}
    probe = {"metrics": {"test": {"samples": 50, "map_micro": 0.625, "accuracy": None}}}
    probe["embeddings"] = {"test": {**about, "pool": "mean"}}
    for name, content in (("metrics", metrics), ("probe", probe)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    scores = [str(tmp_path / "metrics.json"), str(tmp_path / "probe.json")]
    card = export_weights_only(checkpoint, tmp_path / "r", "--scores", *scores)
    assert "| 64 simulated patches of bigearthnet_ls | masked_loss | 9.25 | metrics.json |" in card
    assert "masked_loss of the baseline visible_mean | 25.5" in card
    assert "linear probe (pool mean), test: 50 simulated patches of bigearthnet_ls | map_micro | 0.625" in card
    about["checkpoint"]["sha256"] = "0" * 64
    (tmp_path / "metrics.json").write_text(json.dumps({**metrics, **about}))
    with pytest.raises(DataError, match=r"metrics\.json: was measured with other weights"):
        export_weights_only(checkpoint, tmp_path / "s", "--scores", scores[0])
    (tmp_path / "metrics.json").write_text('{"accuracy": 1.0}')
    with pytest.raises(DataError, match=r"metrics\.json: holds no scores with the SHA-256"):
        export_weights_only(checkpoint, tmp_path / "s", "--scores", scores[0])
