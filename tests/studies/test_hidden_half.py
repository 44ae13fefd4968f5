"""Half of every patch hidden: what is embedded, what is scored, what is said."""

import json

import numpy as np
import pytest
import torch
from conftest import SAMPLE
from tiny import sample_ids, tiny_model, write_bigearthnet
from tiny_weights import write_published_checkpoint, write_tiny_checkpoint

from datasets.bigearthnet import BigEarthNetDatasetLS
from eval.probing import protocols
from studies.half_patches import AS_MEAN, LEFT_OUT, WHOLE, embed_ways, outcomes
from studies.hidden_half import main
from utils.errors import CheckpointError

pytestmark = pytest.mark.runs


@pytest.fixture(scope="module", autouse=True)
def one_strength():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocols, "C_GRID", (1.0,))
        yield


def test_the_two_ways_are_what_they_say(tmp_path) -> None:
    """Left out: what the model gives of a file whose left half is fill. As the mean: zeros that it takes for ground."""
    (tmp_path / "some.csv").write_text("\n".join(sample_ids(3)))
    dataset, model = BigEarthNetDatasetLS(SAMPLE, tmp_path / "some.csv"), tiny_model()
    ways = embed_ways(model, dataset, "patch_mean")
    pixels = dataset.gather(range(3)).pixels
    half = pixels.copy()
    half[..., :20] = 0
    root = write_bigearthnet(tmp_path / "half", dict(zip(dataset.ids, half, strict=True)))
    batches = {WHOLE: dataset.batch(range(3)), LEFT_OUT: BigEarthNetDatasetLS(root, root / "split.csv").batch(range(3))}
    meta = batches[WHOLE].meta
    with torch.no_grad():
        for way, batch in batches.items():
            (tokens,) = (model.encode(batch.images, meta, visible=seen).pre_norm for seen in [_visible(batch.valid)])
            seen = _visible(batch.valid)
            expected = (tokens[:, 5:] * seen.unsqueeze(-1)).sum(1) / seen.sum(1, keepdim=True)
            np.testing.assert_allclose(ways[way], expected, atol=1e-5)
        images = batches[LEFT_OUT].images.clone()
        images[..., :20] = 0
        np.testing.assert_allclose(ways[AS_MEAN], model.encode(images, meta).pre_norm[:, 5:].mean(1), atol=1e-5)


def _visible(valid: torch.Tensor) -> torch.Tensor:
    return valid.unflatten(1, (10, 4)).unflatten(3, (10, 4)).all(dim=4).all(dim=2).flatten(1)


def test_distances_and_scores_by_hand() -> None:
    """Labels that a coordinate tells are found; where its sign is turned, everything is wrong; nothing is far away."""
    random = np.random.default_rng(0)
    ids = [f"S2A_MSIL2A_20170613T101031_{12 * (row % 8)}_{12 * (row // 8)}" for row in range(40)]
    x = random.normal(size=(40, 3))
    labels = np.stack([x[:, 0] > 0, x[:, 0] <= 0], axis=1).astype(np.int64)
    x[:, 0] = np.sign(x[:, 0]) * 4
    labels[5] = -1
    turned = x * [-1, 1, 1]
    found = outcomes({WHOLE: x, AS_MEAN: turned, LEFT_OUT: x}, labels, ids, ("a", "b"), seed=0)
    assert found[WHOLE].distance == found[LEFT_OUT].distance == 0
    spread = np.mean([np.linalg.norm(a - b) for i, a in enumerate(x) for b in x[:i]])
    assert found[AS_MEAN].distance == pytest.approx(8 / spread)
    assert found[WHOLE].score.value == found[LEFT_OUT].score.value == 1 and found[AS_MEAN].score.value < 0.5


def test_the_command(tmp_path, capsys) -> None:
    (tmp_path / "some.csv").write_text("\n".join(sample_ids(20)))
    weights, out = write_tiny_checkpoint(tmp_path / "m.pth"), tmp_path / "out.json"
    data = ["--dataset_path", str(SAMPLE), "--dataset_csv", str(tmp_path / "some.csv")]
    assert main([*data, "--checkpoint", str(weights), "--json", str(out)]) == 0
    said, found = capsys.readouterr().out, json.loads(out.read_text())
    assert "20 simulated patches without their left half" in said and found["patches"] == 20
    ways = found["ways"]
    assert ways[WHOLE]["distance"] == 0 < ways[LEFT_OUT]["distance"] < ways[AS_MEAN]["distance"]
    difference = ways[LEFT_OUT]["map_micro"]["value"] - ways[AS_MEAN]["map_micro"]["value"]
    assert found["left_out_minus_mean"]["value"] == pytest.approx(difference)
    published = write_published_checkpoint(tmp_path / "theirs.pth")
    with pytest.raises(CheckpointError, match="take hidden pixels for data"):
        main([*data, "--checkpoint", str(published)])
