"""Feature baselines, projections, neighbours, and embedding files that are made only when they are needed."""

import numpy as np
import pytest
import torch
from conftest import SAMPLE
from matplotlib.figure import Figure
from tiny import TINY_MODEL, sample_ids, write_config

from datasets.bigearthnet import BigEarthNetDatasetLS
from datasets.loader import BatchLoader
from embed.compute_embed import embedding_files
from eval.panels import digital_numbers_of, plot_neighbours
from eval.probing.feature_baselines import feature_baselines, probe_features
from eval.probing.projection import nearest_neighbours, project
from models import build_model
from models.checkpoint import write_checkpoint
from transformation.image_statistics import image_statistics
from utils.analysis_utils import (
    plot_projection,
    plot_projection_by_label,
    plot_projection_by_value,
)


@pytest.fixture
def dataset(tmp_path) -> BigEarthNetDatasetLS:
    (tmp_path / "some.csv").write_text("\n".join(sample_ids(40)))
    return BigEarthNetDatasetLS(SAMPLE, tmp_path / "some.csv", labels="error")


def test_image_statistics_by_hand() -> None:
    image = torch.tensor([[[1.0, 3.0], [-5.0, 99.0]], [[2.0, 2.0], [2.0, 99.0]]])[None]
    valid = torch.tensor([[[True, True], [True, False]]])
    mean, std = -1 / 3, (104 / 9) ** 0.5
    expected = torch.tensor([[mean, 2.0, std, 0.0, -5.0, 2.0, 3.0, 2.0]])
    torch.testing.assert_close(image_statistics(image, valid), expected)


def test_baselines_describe_every_patch(dataset) -> None:
    features = feature_baselines(BatchLoader(dataset, 16, 0, torch.device("cpu")))
    assert features.ids == dataset.ids
    widths = {"class prior": 1, "image statistics": 28, "metadata": 8, "statistics + metadata": 36}
    assert {name: x.shape for name, x in features.x.items()} == {name: (40, width) for name, width in widths.items()}
    image = dataset[5].image[:, dataset[5].valid]
    np.testing.assert_allclose(features.x["image statistics"][5, :7], image.mean(dim=1), atol=1e-5)
    np.testing.assert_allclose(features.x["metadata"][5], dataset[5].meta.flatten())
    with pytest.raises(ValueError, match="other patches"):
        features.with_embeddings("embeddings", np.zeros((40, 3)), dataset.ids[::-1])


@pytest.mark.runs
def test_the_prior_ranks_labels_by_their_frequency(dataset) -> None:
    """A probe on a constant gives every patch the same scores; labels as features give perfect ones."""
    features = feature_baselines(BatchLoader(dataset, 16, 0, torch.device("cpu")))
    features = features.with_embeddings("labels", features.y.astype(np.float32), dataset.ids)
    found = probe_features(features, features, features, dataset.classes)
    scores = {name: one.metrics for name, one in found.items()}
    frequent = features.y.mean(axis=0)
    present = [row for row in scores["class prior"]["per_class"] if row["in_macro"]]
    assert [row["ap"] for row in present] == pytest.approx([frequent[row["index"]] for row in present])
    assert scores["labels"]["map_macro"] == pytest.approx(1.0)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_projection_keeps_groups_apart_and_repeats(method: str) -> None:
    rng = np.random.default_rng(0)
    classes = np.repeat([0, 1], 20)
    x = rng.normal(size=(40, 12)) + 8.0 * classes[:, None]
    found = project(x, method, seed=0)
    assert found.points.shape == (40, 2) and np.array_equal(found.points, project(x, method, seed=0).points)
    centres = [found.points[classes == c].mean(axis=0) for c in (0, 1)]
    nearer = [np.linalg.norm(found.points - centre, axis=1) for centre in centres]
    assert np.array_equal(np.argmin(nearer, axis=0), classes)
    labels = np.eye(3, dtype=int)[classes]
    for figure in (
        plot_projection(found.points, classes, ["a", "b"], "classes"),
        plot_projection_by_label(found.points, labels, ["a", "b", "absent"], "labels"),
        plot_projection_by_value(found.points, x[:, 0], "value", "values"),
    ):
        figure.draw_without_rendering()


def test_neighbours(dataset) -> None:
    base = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 100.0]])  # standardised, both columns count alike
    assert nearest_neighbours(np.array([[0.9, 10.0]]), base, 2).tolist() == [[1, 0]]
    ids = dataset.ids[:2]
    images = digital_numbers_of(dataset, ids[::-1])
    valid = dataset[1].valid.numpy()
    np.testing.assert_allclose(images[0][:, valid], dataset.read([1]).pixels[0][:, valid], rtol=1e-3)
    assert np.isnan(images[0][:, ~valid]).all()
    assert isinstance(plot_neighbours(dataset, dataset, ids, [ids, ids], "neighbours"), Figure)


def test_embedding_files_are_made_once_and_again_for_other_weights(tmp_path) -> None:
    numbers = {key: value for key, value in TINY_MODEL.items() if key not in ("size", "device")}
    weights = tmp_path / "model.pth"
    write_checkpoint(weights, build_model("XXS", seed=0, **numbers), epoch=0, best_train_loss=0.0)
    (tmp_path / "some.csv").write_text("\n".join(sample_ids(3)))
    config = write_config(
        tmp_path / "embed.yaml",
        model={"checkpoint_path": str(weights), "device": "cpu"},
        data={"dataset_path": str(SAMPLE), "splits": {"test": str(tmp_path / "some.csv")}},
        embed={"out_dir": str(tmp_path / "out"), "name": "some"},
    )
    files = embedding_files(str(config), [])
    assert files == {"test": tmp_path / "out" / "some_test.npz"}
    made = files["test"].stat().st_mtime_ns
    embedding_files(str(config), [])
    assert files["test"].stat().st_mtime_ns == made
    for overrides in (["embed.pool=mean"], []):  # another config, then the first again
        embedding_files(str(config), overrides)
        assert files["test"].stat().st_mtime_ns > made
        made = files["test"].stat().st_mtime_ns
    write_checkpoint(weights, build_model("XXS", seed=1, **numbers), epoch=0, best_train_loss=0.0)
    embedding_files(str(config), [])
    assert files["test"].stat().st_mtime_ns > made
