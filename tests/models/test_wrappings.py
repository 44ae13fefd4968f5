"""Weights in the wrappings of other tools, and files that are no weights."""

import numpy as np
import pytest
import torch
from tiny import TINY_MODEL

from models import MOEMAE, build_model
from models.checkpoint import read_checkpoint, write_checkpoint
from utils.errors import CheckpointError


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "a.pth"
    options = {key: value for key, value in TINY_MODEL.items() if key not in ("size", "device")}
    write_checkpoint(path, build_model("XXS", seed=0, **options), epoch=0, best_train_loss=0.0)
    return torch.load(path, weights_only=True)


WRAPPINGS = {
    "module.": lambda c: {**c, "model_state": {f"module.{k}": v for k, v in c["model_state"].items()}},
    "_orig_mod.": lambda c: {**c, "model_state": {f"_orig_mod.{k}": v for k, v in c["model_state"].items()}},
    "both": lambda c: {**c, "model_state": {f"module._orig_mod.{k}": v for k, v in c["model_state"].items()}},
    "model:": lambda c: {"model": c["model_state"], "moe_mae": c["moe_mae"]},
    "state_dict:": lambda c: {
        "state_dict": {f"model.{k}": v for k, v in c["model_state"].items()}, "moe_mae": c["moe_mae"], "epoch": 3,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", WRAPPINGS)
def test_known_wrappings_load_with_a_line(tmp_path, content, name, capsys) -> None:
    path = tmp_path / "wrapped.pth"
    torch.save(WRAPPINGS[name](content), path)
    found = read_checkpoint(path)
    expected = content["model_state"]["encoder.pos_embed"]
    assert torch.equal(found.model_state["encoder.pos_embed"], expected)
    assert "weights wrapped as" in capsys.readouterr().out


def test_unknown_entries_stay_refused(tmp_path, content) -> None:
    path = tmp_path / "other.pth"
    for extra in ("head.weight", "module.head.weight"):
        state = {**content["model_state"], extra: torch.zeros(2)}
        torch.save({**content, "model_state": state}, path)
        with pytest.raises(CheckpointError, match="unexpected"):
            read_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "said"),
    [("probe.npz", "a probe or an"), ("probe.pth", "a probe or an"), ("p.joblib", "a probe"),
     ("embed_cls.onnx", "ONNX"), ("embed_cls.pt2", "torch.export"), ("config.json", "a config")],
)  # fmt: skip
def test_other_files_are_said_as_what_they_are(tmp_path, name, said) -> None:
    with (tmp_path / name).open("wb") as file:
        np.savez(file, x=np.zeros(2)) if name.startswith("probe") else file.write(b"{}")
    for read in (read_checkpoint, MOEMAE.from_pretrained):
        with pytest.raises(CheckpointError, match=said):
            read(tmp_path / name)
    with pytest.raises(CheckpointError, match="is a folder"):
        read_checkpoint(tmp_path)
