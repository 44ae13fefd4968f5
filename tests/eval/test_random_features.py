"""Random convolutional features by hand, and their combinations with other numbers."""

import numpy as np
import pytest
import torch
from conftest import SAMPLE
from tiny import sample_ids, some_pixels, write_bigearthnet

from datasets.bigearthnet import BigEarthNetDatasetLS
from datasets.loader import BatchLoader
from eval.probing.feature_baselines import COMBINATIONS, METADATA, RANDOM, RANDOM_WHITE, STATISTICS, combined
from eval.probing.random_features import fit_random_features, random_vectors
from transformation.random_features import THRESHOLD, RandomFeatures
from utils.errors import DataError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def loader(tmp_path_factory) -> BatchLoader:
    csv = tmp_path_factory.mktemp("some") / "some.csv"
    csv.write_text("\n".join(sample_ids(24)))
    return BatchLoader(BigEarthNetDatasetLS(SAMPLE, csv, labels="error"), 8, 0, CPU)


def test_a_feature_is_the_mean_of_a_thresholded_response() -> None:
    image = np.zeros((1, 1, 4, 4), np.float32)
    image[0, 0, 0, 0], image[0, 0, 3, 3] = 2.0, -3.0
    features = RandomFeatures.of(np.ones((1, 1, 3, 3), np.float32), np.array([0.25], np.float32))
    # Four places of the filter: sums 2, 0, 0 and -3 in the corners' windows, and an offset of 0.25.
    responses = np.array([2.25, 0.25, 0.25, -2.75])
    expected = [np.maximum(sign * responses - THRESHOLD, 0).mean() for sign in (1, -1)]
    assert features.image_means(torch.from_numpy(image))[0].tolist() == pytest.approx(expected)


def test_filters_follow_from_seed_and_images(loader: BatchLoader) -> None:
    first, again, other = (fit_random_features(loader, seed, count=16) for seed in (0, 0, 1))
    assert first.weight.shape == (16, 7, 3, 3)
    assert (first.weight == again.weight).all() and (first.weight != other.weight).any()
    x, ids = random_vectors(first, loader)
    assert x.shape == (24, 32) and ids == loader.dataset.ids
    alone = first.image_means(loader.dataset.batch([5]).images)[0]
    np.testing.assert_allclose(x[5], alone, rtol=1e-4, atol=1e-5)


def test_responses_of_whitened_pixels_vary_by_one(loader: BatchLoader) -> None:
    """A filter of length 1 on whitened pixels: no direction of the pixels counts more than another."""
    features = fit_random_features(loader, 0, whiten_pixels=True, count=16)
    images = next(loader.batches()).images
    pixels = torch.nn.functional.unfold(images, 3).transpose(1, 2).flatten(0, 1)
    responses = pixels @ features.weight.flatten(1).T + features.bias
    assert responses.mean().abs() < 0.5
    assert 0.2 < responses.std(dim=0).median() < 2.0


def test_patches_with_fill_are_not_drawn(tmp_path) -> None:
    pixels = some_pixels()
    pixels[:, 1::3, 1::3] = 0  # every 3 x 3 pixels hold one without data
    dataset = BigEarthNetDatasetLS(write_bigearthnet(tmp_path, {"S2A_MSIL2A_20170613T101031_1_1": pixels}), "split.csv")
    with pytest.raises(DataError, match="0 patches of 3 x 3 valid pixels"):
        fit_random_features(BatchLoader(dataset, 8, 0, CPU), 0)


def test_combinations_hold_their_parts_side_by_side() -> None:
    random = np.random.default_rng(0)
    parts = {RANDOM: random.normal(size=(3, 512)), RANDOM_WHITE: random.normal(size=(3, 512)),
             STATISTICS: random.normal(size=(3, 28)), METADATA: random.normal(size=(3, 8))}  # fmt: skip
    widths = {name: combined(parts, name).shape[1] for name in COMBINATIONS}
    assert widths["statistics + metadata + products"] == 72
    assert widths["random features + statistics + metadata + products"] == 584
    x = combined(parts, "statistics + metadata + products")
    assert (x[:, :28] == parts[STATISTICS]).all() and (x[:, 28:36] == parts[METADATA]).all()
    first, *_, last = x[:, 36:].T
    np.testing.assert_allclose(first, parts[METADATA][:, 0] ** 2)
    np.testing.assert_allclose(last, parts[METADATA][:, 7] ** 2)
