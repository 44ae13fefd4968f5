"""What is read after each block of an encoder: the block's own tokens, scored beside the last one's."""

import csv

import numpy as np
import pytest
import torch
from tiny import tiny_model

from datasets import simulated
from eval.probing import linear_probe
from models.checkpoint import write_checkpoint
from models.pooling import pool_tokens
from studies.engine.stages import StageCache
from studies.recipe import read_out
from studies.recipe.band_scores import SPLIT_FILE, patches_for, simulated_patches
from utils.errors import ConfigError


def test_vectors_are_of_the_blocks_own_tokens(tmp_path) -> None:
    model = tiny_model(depth=3, pool="meta_cls", read_depth=2).eval()
    folder, _ = simulated_patches(StageCache(tmp_path), 4, 3)
    dataset = patches_for(model.config, folder, SPLIT_FILE.format("test"))
    after = []
    model.encoder.layers[1].register_forward_hook(lambda block, given, result: after.append(result[0]))
    for metadata in read_out.METADATA:
        found = read_out.vectors_of_all(model, [dataset], metadata).x
        expected = pool_tokens(after.pop(), "meta_cls", model.config.num_prefix)
        np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-6)


@pytest.mark.runs
def test_the_command_scores_every_block_and_does_nothing_twice(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(linear_probe, "FOLDS", 2)
    torch.manual_seed(0)
    write_checkpoint(tmp_path / "a.pth", tiny_model(depth=2), epoch=0, best_train_loss=0.0)
    asked = ["--out", str(tmp_path / "out"), "--patches", "40", "--weights", str(tmp_path / "a.pth")]
    simulated.main(
        ["--kind", "bigearthnet", "--patches", "40", "--splits", "38", "1", "1", "--out", str(tmp_path / "d")]
    )
    asked += ["--real", str(tmp_path / "d"), "--split", SPLIT_FILE.format("train")]
    assert read_out.main(asked) == 0
    with (tmp_path / "out" / read_out.TABLE).open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 2 * 2 * 2
    for bench in ("simulated", "real"):
        differences = [row for row in rows if row["patches"] == bench and row["what"] == "minus_last"]
        to_last = {row["block"]: float(row["value"]) for row in differences if row["protocol"] == "calibrated_probe"}
        assert to_last["2"] == 0.0 and to_last["1"] != 0.0
    monkeypatch.setattr(read_out, "_write_scores", lambda *_: pytest.fail("was done before"))
    assert read_out.main(asked) == 0
    assert "| 2 |" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="--patches 1: give at least 2"):
        read_out.main(["--out", str(tmp_path / "out"), "--patches", "1"])
