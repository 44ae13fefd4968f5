"""Pretraining: the recipe, what a run leaves, the data it takes, and stopping on bad numbers."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import warm_python
import yaml
from conftest import ROOT
from pretraining import finished, rows, same_weights, train, weights  # noqa: F401
from tiny import TINY_MODEL, some_pixels, training_config, write_bigearthnet, write_config

import training.pretrain
from configs.schema import read_config
from datasets.patches import Batch
from models import build_model
from models.checkpoint import EXTRA_KEY, load_model, read_checkpoint
from models.losses import Losses, LossWeights
from scheduler.schedulers import WarmupCosineLR
from training.nan_guard import NanGuard
from training.pretrain import Pretraining
from training.run_folder import CSV_COLUMNS, RunFolder, verify
from training.step import StepOptions, TrainStep
from training.stopping import StopSignals
from utils.errors import CheckpointError, ConfigError, DataError, TrainingDiverged, UserError

TINY_MODEL_NUMBERS = {key: value for key, value in TINY_MODEL.items() if key not in ("size", "device")}


# --------------------------------------------------------------------------- the recipe


def test_learning_rate_by_hand() -> None:
    schedule = WarmupCosineLR.by_epochs(1.0, epochs=100, steps_per_epoch=10, warmup_fraction=0.05)
    assert (schedule.warmup_steps, schedule.total_steps) == (50, 1000)
    assert [schedule(step) for step in (0, 25, 50, 525, 1000)] == pytest.approx([0.0, 0.5, 1.0, 0.5, 0.0])
    assert WarmupCosineLR.by_epochs(1.0, 19, 10, 0.05).warmup_steps == 0
    assert WarmupCosineLR.by_epochs(1.0, 19, 10, 0.05)(0) == 1.0


def test_a_run_leaves_what_it_should(tmp_path, capsys, laid_out) -> None:
    assert train(training_config(tmp_path)) == 0
    folder = tmp_path / "run"
    table = rows(folder / "training_metrics_XXS.csv")
    assert tuple(table[0]) == CSV_COLUMNS
    assert [row["epoch"] for row in table] == ["1", "2", "3"]
    assert float(table[-1]["train_loss"]) < float(table[0]["train_loss"])
    assert [float(row["avg_lr"]) for row in table] == sorted((float(r["avg_lr"]) for r in table), reverse=True)
    for row in table:
        total = float(row["train_m_loss"]) + 0.1 * float(row["train_um_loss"]) + 0.5 * float(row["train_moe_loss"])
        assert float(row["train_loss"]) == pytest.approx(total, rel=1e-5)
    log = [json.loads(line) for line in (folder / "training_log_XXS.jsonl").read_text().splitlines()]
    assert len(log) == 3
    assert log[0]["grad_norm"] > 0
    assert log[0]["patches_per_second"] > 0
    assert [sum(shares) for shares in log[0]["expert_usage"]] == pytest.approx([1.0, 1.0])
    content = torch.load(folder / "checkpoint_XXS.pth", weights_only=True)
    assert {"epoch", "model_state", "opt_state", "scaler_state", "best_train_loss", EXTRA_KEY} == set(content)
    assert content["epoch"] == 2
    for name in ("checkpoint_XXS", "checkpoint_XXS.prev"):
        assert verify(folder / f"{name}.pth") is None
    record = json.loads((folder / "checkpoint_XXS.json").read_text())
    assert {"sha256", "bytes", "seed", "dataset_fingerprint", "log_offsets", "recipe"} <= set(record)
    manifest = json.loads((folder / "manifest_XXS.json").read_text())
    assert manifest["patches"] == {"train": 10, "val": 0}
    assert manifest["packages"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert yaml.safe_load((folder / "config_XXS.yaml").read_text())["training"]["epochs"] == 3
    assert (folder / "loss_curve_XXS.png").stat().st_size > 5_000
    assert same_weights(folder / "checkpoint_XXS.pth", folder / "pretrained_XXS_last.pth")
    assert load_model(folder / "pretrained_XXS_best.pth").config.depth == 2
    assert "epoch    3" in capsys.readouterr().out


def test_same_seed_same_bits_other_seed_others(tmp_path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        train(training_config(tmp_path / name, epochs=1, seed=seed))
    last = [tmp_path / name / "run" / "pretrained_XXS_last.pth" for name in "abc"]
    assert same_weights(last[0], last[1])
    assert not same_weights(last[0], last[2])


def test_validation_decides_what_is_best(tmp_path, monkeypatch) -> None:
    losses = iter([5.0, 1.0, 3.0])

    def given(*_, **__):
        return {"val_loss": next(losses), "val_m_loss": 0.0, "val_um_loss": 0.0, "val_moe_loss": 0.0, "val_patches": 1}

    monkeypatch.setattr(training.pretrain, "validation_losses", given)
    config = training_config(tmp_path)
    train(config, "--set", f"training.val_csv={tmp_path / 'train.csv'}")
    assert torch.load(tmp_path / "run" / "pretrained_XXS_best.pth", weights_only=True)["epoch"] == 1
    assert [row["val_loss"] for row in rows(tmp_path / "run" / "training_metrics_XXS.csv")] == ["5.0", "1.0", "3.0"]


def test_validation_loss_is_the_same_for_the_same_weights(tmp_path) -> None:
    config = training_config(tmp_path, val_csv=str(tmp_path / "train.csv"), learning_rate=1e-30, epochs=2)
    train(config)
    first, second = rows(tmp_path / "run" / "training_metrics_XXS.csv")
    assert first["val_loss"] == second["val_loss"]
    assert first["train_loss"] != second["train_loss"]


def test_published_behaviour_reaches_everything(tmp_path) -> None:
    config = training_config(tmp_path, epochs=1)
    train(config, "--set", "published_behaviour=true")
    checkpoint = read_checkpoint(tmp_path / "run" / "pretrained_XXS_last.pth")
    assert checkpoint.config.published_behaviour
    assert checkpoint.content[EXTRA_KEY]["published_behaviour"] is True


def test_starting_from_given_weights(tmp_path, finished) -> None:  # noqa: F811
    config = training_config(tmp_path, epochs=1)
    first = finished / "run" / "pretrained_XXS_last.pth"
    more = ("--set", f"model.checkpoint_path={first}", "--set", f"training.weight_path={tmp_path / 'more'}")
    train(config, *more, "--set", "training.learning_rate=1e-30")
    moved = weights(tmp_path / "more" / "pretrained_XXS_last.pth")
    assert all(torch.allclose(value, weights(first)[name], atol=1e-6) for name, value in moved.items())


def test_files_are_named_after_the_weights_that_a_run_starts_from(tmp_path, finished) -> None:  # noqa: F811
    training_section = yaml.safe_load((finished / "train.yaml").read_text())["training"]
    config = write_config(
        tmp_path / "from.yaml",
        model={"checkpoint_path": str(finished / "run" / "pretrained_XXS_last.pth"), "device": "cpu"},
        training={**training_section, "weight_path": str(tmp_path / "more")},
    )
    assert train(config) == 0
    assert (tmp_path / "more" / "pretrained_XXS_last.pth").exists()


def metadata_of_a_step(share: float) -> torch.Tensor:
    model = build_model("XXS", seed=0, **{**TINY_MODEL_NUMBERS, "img_size": 8})
    options = StepOptions(0, LossWeights(), 1.0, share, None, batch_size=2000)
    step = TrainStep(model, torch.optim.AdamW(model.parameters()), options, torch.amp.GradScaler("cpu", enabled=False))
    images, valid = torch.zeros(2000, 7, 8, 8), torch.ones(2000, 8, 8, dtype=torch.bool)
    return step.inputs(Batch(images, torch.ones(2000, 4, 2), valid, None, []), 5).meta


def test_metadata_dropout() -> None:
    dropped = metadata_of_a_step(0.1)
    gone = (dropped == 0).all(dim=(1, 2))
    assert gone.float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert (dropped[~gone] == 1).all()
    assert torch.equal(dropped, metadata_of_a_step(0.1))
    assert (metadata_of_a_step(0.0) == 1).all()


# --------------------------------------------------------------------------- the data


def test_only_fill_is_nothing_to_train_on(tmp_path) -> None:
    write_bigearthnet(tmp_path, {"S2A_MSIL2A_20170613T101031_9_9": some_pixels() * 0})
    with pytest.raises(DataError, match="no patch of it has a single valid pixel"):
        train(training_config(tmp_path, epochs=1, dataset_path=str(tmp_path), dataset_csv="split.csv"))


def test_simulated_patches_are_called_so(tmp_path, capsys) -> None:
    train(training_config(tmp_path, epochs=1))
    assert "on 10 simulated patches" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "manifest_XXS.json").read_text())["simulated"] is True
    assert json.loads((tmp_path / "run" / "training_log_XXS.jsonl").read_text())["simulated"] is True
    resolved = yaml.safe_load((tmp_path / "run" / "config_XXS.yaml").read_text())
    assert resolved["training"]["metadata_dropout"] == 0.1
    assert resolved["data"]["crop"] == "center"
    assert resolved["model"]["k"] == 2


def test_all_fill_patches_are_counted_in_the_log(tmp_path) -> None:
    patches = {f"S2A_MSIL2A_20170613T101031_{i}_1": some_pixels(i) for i in range(5)}
    patches["S2A_MSIL2A_20170613T101031_9_9"] = some_pixels() * 0
    write_bigearthnet(tmp_path, patches)
    train(training_config(tmp_path, epochs=2, dataset_path=str(tmp_path), dataset_csv="split.csv"))
    entries = (tmp_path / "run" / "training_log_XXS.jsonl").read_text().splitlines()
    assert [json.loads(entry)["skipped_fill"] for entry in entries] == [1, 1]


def test_eurosat_without_metadata_can_be_trained_on(tmp_path) -> None:
    folder = ROOT / "sample_dataset" / "eurosat-l-sample"
    config = write_config(
        tmp_path / "c.yaml",
        model=TINY_MODEL,
        data={"dataset": "eurosat_ls"},
        training={
            "dataset_path": str(folder),
            "dataset_csv": "eurosat-val.txt",
            "epochs": 1,
            "weight_path": str(tmp_path / "run"),
        },
    )
    assert train(config) == 0


# --------------------------------------------------------------------------- failing


def test_non_finite_measurements_are_named() -> None:
    fine, bad, infinite = torch.tensor(1.0), torch.tensor(float("nan")), torch.tensor(float("inf"))

    def watch(*steps, scaled=False) -> None:
        watched = NanGuard(torch.device("cpu"))
        for number, (losses, norm) in enumerate(steps):
            watched.note(losses, norm, torch.tensor(float(number)), scaled)
        watched.require_finite()

    good = (Losses(fine, fine, fine, fine), fine)
    nan, inf = (Losses(bad, fine, bad, fine), fine), (good[0], infinite)
    with pytest.raises(TrainingDiverged, match="visible loss is nan at step 1"):
        watch(good, nan, inf, good)
    with pytest.raises(TrainingDiverged, match="gradient norm is inf at step 2"):
        watch(good, good, inf, nan)
    with pytest.raises(TrainingDiverged, match="visible loss is nan at step 2"):
        watch(good, inf, nan, scaled=True)
    watch(good, inf, good, scaled=True)


def test_divergence_stops_and_spares_the_last_checkpoint(tmp_path, monkeypatch) -> None:
    config = training_config(tmp_path)
    real = TrainStep.__call__

    def diverging(step, batch, number, lr):
        if number == 5:
            with torch.no_grad():
                step.model.decoder_pred.bias[0] = float("nan")
        return real(step, batch, number, lr)

    monkeypatch.setattr(TrainStep, "__call__", diverging)
    with pytest.raises(TrainingDiverged, match="masked loss is nan at step 5"):
        train(config)
    folder = tmp_path / "run"
    assert verify(folder / "checkpoint_XXS.pth") is None
    assert torch.load(folder / "checkpoint_XXS.pth", weights_only=True)["epoch"] == 0
    assert not (folder / "pretrained_XXS_last.pth").exists()
    assert len(rows(folder / "training_metrics_XXS.csv")) == 1
    assert TrainingDiverged.exit_code != 0
    monkeypatch.setattr(TrainStep, "__call__", real)
    assert train(config, "--resume") == 0


def test_published_weights_are_not_a_run_to_resume(tmp_path, finished) -> None:  # noqa: F811
    config = training_config(tmp_path, epochs=1)
    shutil.copytree(finished / "run", tmp_path / "run")
    folder = RunFolder(tmp_path / "run", "XXS", with_validation=False)
    folder.save(load_model(folder.last), {"log_offsets": {}}, epoch=0, best_train_loss=0.0)
    with pytest.raises(CheckpointError, match="no training run"):
        train(config, "--resume")


def test_a_path_that_cannot_be_written(tmp_path) -> None:
    config = training_config(tmp_path, epochs=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        train(config, "--set", f"training.weight_path={tmp_path / 'file' / 'run'}")


def test_a_full_disk_is_one_line_and_leaves_the_checkpoint(tmp_path, finished) -> None:  # noqa: F811
    """A limit on the size of files stands in for a full disk."""
    shutil.copytree(finished / "run", tmp_path / "run")
    before = (tmp_path / "run" / "checkpoint_XXS.pth").read_bytes()
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000));"
        "from models.checkpoint import load_model; from training.run_folder import RunFolder;"
        "from utils.errors import run_script;"
        f"folder = RunFolder({str(tmp_path / 'run')!r}, 'XXS', False); model = load_model(folder.last);"
        "run_script(lambda: folder.save(model, {}, epoch=5, best_train_loss=0.0))"
    )
    done = warm_python.run(["-c", code], cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot write")
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "run" / "checkpoint_XXS.pth").read_bytes() == before
    assert not list((tmp_path / "run").glob(".*"))


def test_the_config_is_checked_before_anything_else(tmp_path) -> None:
    config = training_config(tmp_path)
    with pytest.raises(ConfigError, match="epochz"):
        train(config, "--set", "training.epochz=1")
    assert not (tmp_path / "run").exists()


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("resume", [False, True])
def test_building_a_run_touches_no_file(tmp_path, resume: bool) -> None:
    """Only `run` moves an earlier run away, or cuts its log back."""
    path = training_config(tmp_path, epochs=1)
    train(path)
    out = Path(yaml.safe_load(path.read_text())["training"]["weight_path"])
    (out / ".checkpoint_XXS.new.pth").write_bytes(b"left over")
    before = files_of(out)
    config = read_config(str(path), [], (), fresh_model=True)
    pretraining = Pretraining(config, resume, StopSignals())
    assert files_of(out) == before
    pretraining.run()
    assert bool(list(out.glob("replaced_*"))) is not resume
    assert not (out / ".checkpoint_XXS.new.pth").exists()
