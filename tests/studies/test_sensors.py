"""What fewer bands cost: the same patches with fewer bands, paired differences, and embeddings of one place."""

import csv
import json

import numpy as np
import pytest
import torch
from tiny import tiny_model
from tiny_weights import write_tiny_checkpoint

from datasets.simulator.patches import simulate
from eval.probing import linear_probe
from models.checkpoint import write_checkpoint
from models.inference.embedder import Embedder
from studies.engine.stages import StageCache
from studies.recipe import agreement
from studies.recipe.band_scores import SETS, SPLIT_FILE, Case, patches_for, simulated_patches, vectors_by_set
from studies.recipe.sensors import PROBES, RESULT, TABLE, TITLES, main, tables
from utils.errors import CheckpointError, ConfigError


def test_the_sets_are_those_of_the_tables() -> None:
    assert list(SETS) == list(TITLES)
    assert [len(names) for names in SETS.values()] == [7, 6, 4, 3]


def test_weights_by_name_with_what_stands_for_missing_bands(tmp_path) -> None:
    write_tiny_checkpoint(tmp_path / "a.pth")
    plain, other = Case.of(str(tmp_path / "a.pth")), Case.of(f"{tmp_path / 'a.pth'}:rescale")
    assert plain.model.config.missing_bands == "mean" and other.model.config.missing_bands == "rescale"
    assert plain.place != other.place and plain.inputs != other.inputs
    write_checkpoint(tmp_path / "t.pth", tiny_model(missing_bands="token"), epoch=0, best_train_loss=0.0)
    with pytest.raises(CheckpointError, match="missing_bands is token, not mean"):
        Case.of(f"{tmp_path / 't.pth'}:mean")


def test_vectors_of_a_set_are_those_of_its_bands(tmp_path) -> None:
    write_tiny_checkpoint(tmp_path / "a.pth")
    case = Case.of(str(tmp_path / "a.pth"))
    folder, _ = simulated_patches(StageCache(tmp_path / "run"), 4, 3)
    dataset = patches_for(case.model.config, folder, SPLIT_FILE.format("test"))
    found = vectors_by_set(case.model, dataset)
    batch = dataset.batch(range(4))
    spoiled = batch.images.clone()
    spoiled[:, [0, 4, 5, 6]] = torch.nan
    bands = torch.tensor([[False, True, True, True, False, False, False]]).expand(4, -1)
    expected = Embedder(case.model, case.model.config.pool)(spoiled, batch.meta, batch.valid, bands)
    np.testing.assert_array_equal(found["rgb"].x, expected.numpy())
    assert not np.allclose(found["six"].x, found["seven"].x) and found["six"].ids == dataset.ids


def test_the_same_land_later() -> None:
    now, then = simulate(4, 0), simulate(4, 0, later=16)
    assert torch.equal(then.ground, now.ground) and torch.equal(then.labels, now.labels)
    assert (then.places.day - now.places.day).tolist() == [16] * 4
    assert not torch.equal(then.images.view(torch.int16), now.images.view(torch.int16))


@pytest.mark.runs
def test_the_command_writes_every_figure_and_does_nothing_twice(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(linear_probe, "FOLDS", 2)
    write_tiny_checkpoint(tmp_path / "a.pth")
    weights = [str(tmp_path / "a.pth"), f"{tmp_path / 'a.pth'}:rescale"]
    asked = ["--out", str(tmp_path / "out"), "--patches", "40", "--weights", *weights]
    assert main(asked) == 0
    result = json.loads((tmp_path / "out" / RESULT).read_text())
    for name in weights:
        for probe in PROBES:
            assert list(result["micro_map"][name][probe]) == list(TITLES)
    first = result["micro_map"][weights[0]]
    assert first["own"]["six"]["minus_first"] == [0.0, 0.0, 0.0]
    assert first["own"]["seven"] == first["seven"]["seven"]
    assert result["micro_map"][weights[1]]["own"]["seven"]["minus_first"] == [0.0, 0.0, 0.0], "nothing is missing"
    assert len(result["agreement"]["withheld"]) == len(result["agreement"]["given"]) == 2 * len(agreement.OTHERS)
    with (tmp_path / "out" / TABLE).open() as file:
        assert {row["weights"] for row in csv.DictReader(file)} == set(weights)
    before = (tmp_path / "out" / RESULT).read_bytes()
    monkeypatch.setattr(agreement, "_agreement", lambda *_: pytest.fail("was done before"))
    capsys.readouterr()
    assert main(asked) == 0 and (tmp_path / "out" / RESULT).read_bytes() == before
    assert tables(result) in capsys.readouterr().out
    with pytest.raises(ConfigError, match="give at least 2"):
        main([*asked[:2], "--patches", "1", "--weights", weights[0]])
