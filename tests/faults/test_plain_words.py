"""Faults that used to end in a traceback, or without a word: killed readers, published runs, models without experts."""

import multiprocessing
import os
import signal

import pytest
import torch
from tiny import tiny_model, training_config

from datasets.bigearthnet import BigEarthNetDatasetLS
from datasets.loader import BatchLoader
from eval.evaluate_mae import evaluate_reconstruction
from models import ModelConfig, build_model
from models.checkpoint import EXTRA_KEY, write_checkpoint
from models.losses import LossWeights
from pretrain_mae import main as pretrain
from utils.errors import CheckpointError, UserError

CPU = torch.device("cpu")


def test_a_killed_reader_is_one_line_in_training_too(sample, monkeypatch) -> None:
    read = BigEarthNetDatasetLS.read

    def dying(self, indices):
        if multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, indices)

    monkeypatch.setattr(BigEarthNetDatasetLS, "read", dying)
    loader = BatchLoader(BigEarthNetDatasetLS(sample, "bigearthnet-train.csv"), 4, 1, CPU)
    with pytest.raises(UserError, match=r"a reader process was killed .*fewer num_workers") as caught:
        next(iter(loader.batches()))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("published", [True, False])
def test_baselines_are_averaged_as_the_model_is(sample, tmp_path, published) -> None:
    names = (sample / "bigearthnet-train.csv").read_text().split()[:3]
    model = tiny_model(published_behaviour=published)

    def losses_of(some: list[str], batch_size: int) -> dict[str, float]:
        (tmp_path / "some.csv").write_text("\n".join(some))
        dataset = BigEarthNetDatasetLS(sample, tmp_path / "some.csv", published_behaviour=published)
        found = evaluate_reconstruction(model, BatchLoader(dataset, batch_size, 0, CPU), 0, LossWeights())
        return {name: scores["masked_loss"] for name, scores in found["baselines"].items()}

    whole, first, second = losses_of(names, 2), losses_of(names[:2], 2), losses_of(names[2:], 1)
    for name, value in whole.items():
        by_batch = (first[name] + second[name]) / 2
        assert (value == pytest.approx(by_batch, rel=1e-6)) is published, name


def test_published_runs_cannot_be_resumed_and_that_is_said(tmp_path) -> None:
    config = training_config(tmp_path)
    path = tmp_path / "run" / "checkpoint_XXS.pth"
    path.parent.mkdir()
    write_checkpoint(path, build_model("XXS", seed=0, published_behaviour=True), epoch=3, best_train_loss=1.0)
    content = torch.load(path, weights_only=True)
    del content[EXTRA_KEY]
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"published code, whose runs cannot be resumed.*model\.checkpoint_path"):
        pretrain(["--config_yaml", str(config), "--resume"])
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="no checkpoint here verifies"):
        pretrain(["--config_yaml", str(config), "--resume"])


@pytest.mark.parametrize(
    "numbers",
    [
        {"experts": 0},
        {"experts": -1},
        {"experts": (3,) * 8 + (0,)},
        {"dropout": 1.0},
        {"dropout": -0.5},
        {"decoder_k": 3},
        {"decoder_heads": 5},
        {"decoder_groups": 4},
        {"decoder_experts": 0},
    ],
)
def test_models_that_could_not_compute_are_not_built(numbers) -> None:
    for size in ("XXS", ModelConfig.of_size("XXS")):
        with pytest.raises(ValueError, match=next(iter(numbers)).partition("_")[0]):
            build_model(size, seed=0, **numbers)
