"""Several processes that share a run: the same results as one, one writer, one message, and no hanging."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from ranks import Ended, gradients_of_a_step, one_step, run_ranks, script, script_reading_files, training_with_a_signal
from tiny import TINY_MODEL, some_pixels, training_config, write_bigearthnet, write_config

from embed.compute_embed import main as embed
from models.checkpoint import EXTRA_KEY
from pretrain_mae import main as pretrain
from training.run_folder import verify
from training.step import TrainStep
from utils.devices import process_device
from utils.errors import ConfigError, UserError, run_script
from utils.processes import ALONE, Processes, _unwound_by_sigterm, joined_processes

NAMES = [f"S2A_MSIL2A_20170613T101031_1_{i}" for i in range(13)]
"""Batches of 4: the last one has a single patch, so that the second process's rows of it are all padding."""

BALANCE = 3e4
"""A weight with which the balance loss rules the gradient."""

MIDDLE = 6
"""A step in the middle of the second of the epochs, which have 4 steps."""


def write_data(folder: Path, seed: int = 0) -> None:
    """Two patches of fill only and one half full; `val.csv` makes two batches."""
    patches = {name: some_pixels(seed + i) for i, name in enumerate(NAMES)}
    for empty in (3, 9):
        patches[NAMES[empty]] *= 0
    patches[NAMES[5]][:, :20] = 0
    write_bigearthnet(folder, patches, {name: ["Pastures"] for name in NAMES})
    (folder / "val.csv").write_text("\n".join(NAMES[:7]) + "\n")


def run_config(data: Path | str, folder: Path, **training: object) -> Path:
    values = {"epochs": 4, "learning_rate": 3e-3, "balance_weight": 50.0, **training}
    files = {"dataset_path": str(data), "dataset_csv": "split.csv", "val_csv": "val.csv"}
    return training_config(folder, **files, **values)


def rows(folder: Path) -> np.ndarray:
    with (folder / "run" / "training_metrics_XXS.csv").open(newline="") as file:
        return np.array([list(map(float, row.values())) for row in csv.DictReader(file)])


def weights(path: Path) -> dict[str, torch.Tensor]:
    state = torch.load(path, weights_only=True)["model_state"]
    # The gradient of a key's bias is rounding noise, which Adam makes steps of; no output depends on it.
    return {name: value for name, value in state.items() if not name.endswith("k_proj.bias")}


def same_run(ours: Path, theirs: Path) -> None:
    np.testing.assert_allclose(rows(ours), rows(theirs), rtol=2e-5)
    for name in ("last", "best"):
        paths = [folder / "run" / f"pretrained_XXS_{name}.pth" for folder in (ours, theirs)]
        first, second = map(weights, paths)
        assert first.keys() == second.keys()
        for key, value in first.items():
            torch.testing.assert_close(value, second[key], rtol=1e-4, atol=2e-5, msg=f"{name}: {key}")


def one_message(ended: list[Ended], *parts: str) -> None:
    """All have ended, at least one with a code that says so, and one of them said why, in one line."""
    assert any(process.code for process in ended), ended
    lines = "".join(process.complained for process in ended).splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert all(part in lines[0] for part in parts), lines[0]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory, data) -> Path:
    """A run of one process that nobody disturbed."""
    folder = tmp_path_factory.mktemp("alone")
    assert pretrain(["--config_yaml", str(run_config(data, folder))]) == 0
    return folder


@pytest.fixture(scope="module")
def together(tmp_path_factory, data) -> tuple[Path, list[Ended]]:
    """The same of two processes."""
    folder = tmp_path_factory.mktemp("together")
    config = run_config(data, folder)
    return folder, run_ranks(folder, script, "pretrain_mae.py", "--config_yaml", config)


# --------------------------------------------------------------------------- the same results


@pytest.mark.parametrize(("count", "compiled"), [(2, False), (3, False), (2, True)])
def test_the_gradient_is_that_of_the_whole_batch(tmp_path, count: int, compiled: bool) -> None:
    """With a large weight on the balance loss, which is no sum over patches: CV is taken of the whole batch's sums."""
    ended = run_ranks(tmp_path, one_step, tmp_path / "found", 6, BALANCE, compiled, count=count)
    assert [process.code for process in ended] == [0] * count, ended
    shared, whole = torch.load(tmp_path / "found"), gradients_of_a_step(6, BALANCE, ALONE)
    assert whole["norm"] > 2 * gradients_of_a_step(6, 0.0, ALONE)["norm"]
    for name, value in whole.items():
        if not name.endswith("k_proj.bias"):
            torch.testing.assert_close(shared[name], value, rtol=1e-4, atol=1e-5 * value.abs().max().item(), msg=name)


def test_the_losses_and_weights_are_those_of_one_process(alone, together) -> None:
    folder, ended = together
    assert [process.code for process in ended] == [0, 0], ended
    assert len(rows(folder)) == 4
    same_run(folder, alone)
    logs = [(at / "run" / "training_log_XXS.jsonl").read_text().splitlines() for at in (folder, alone)]
    for ours, theirs in zip(*(map(json.loads, log) for log in logs), strict=True):
        assert ours["skipped_fill"] == theirs["skipped_fill"] == 2
        assert ours["expert_usage"] == theirs["expert_usage"]
        assert ours["val_moe_loss"] == pytest.approx(theirs["val_moe_loss"], rel=1e-5)


def test_only_the_main_process_writes_and_prints(alone, together) -> None:
    folder, (main, other) = together
    assert (other.said, other.complained, main.complained) == ("", "", "")
    assert "shared by 2 processes" in main.said
    lines = main.said.splitlines()
    assert len(lines) == len(set(lines)) == 6
    assert sorted(p.name for p in (folder / "run").iterdir()) == sorted(p.name for p in (alone / "run").iterdir())
    assert json.loads((folder / "run" / "manifest_XXS.json").read_text())["processes"] == 2


def test_patches_without_metadata(tmp_path) -> None:
    """Every parameter still has a gradient, as the processes need it; one block has one expert and no routing."""
    config = write_config(
        tmp_path / "c.yaml",
        model={**TINY_MODEL, "experts": [1, 3]},
        data={"dataset": "eurosat_ls"},
        training={
            "dataset_path": str(ROOT / "sample_dataset" / "eurosat-l-sample"),
            "dataset_csv": "eurosat-val.txt",
            "epochs": 1,
            "batch_size": 6,
            "weight_path": str(tmp_path / "run"),
        },
    )
    ended = run_ranks(tmp_path, script, "pretrain_mae.py", "--config_yaml", config)
    assert [process.code for process in ended] == [0, 0], ended


# --------------------------------------------------------------------------- stopping and going on


def test_stopped_together_and_resumed_alone(tmp_path, data, alone) -> None:
    """SIGTERM reaches the second process only, in mid-epoch."""
    config = run_config(data, tmp_path)
    ended = run_ranks(tmp_path, training_with_a_signal, "SIGTERM", 1, MIDDLE, "--config_yaml", config)
    assert [process.code for process in ended] == [0, 0], ended
    assert ended[0].said.count("stopped by a signal in epoch 2; saved") == 1
    assert ended[1].said == ended[0].complained == ended[1].complained == ""
    saved = torch.load(tmp_path / "run" / "checkpoint_XXS.pth", weights_only=True)[EXTRA_KEY]["run"]
    assert (saved["epoch"], saved["batch_in_epoch"]) == (1, 3)
    assert pretrain(["--config_yaml", str(config), "--resume"]) == 0
    same_run(tmp_path, alone)


def test_stopped_alone_and_resumed_together(tmp_path, data, alone, monkeypatch) -> None:
    config = run_config(data, tmp_path, save_every_n_steps=2)
    real = TrainStep.__call__

    def interrupting(step, batch, number, lr):
        if number == MIDDLE:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(step, batch, number, lr)

    monkeypatch.setattr(TrainStep, "__call__", interrupting)
    assert pretrain(["--config_yaml", str(config)]) == 0
    assert len(rows(tmp_path)) == 1
    ended = run_ranks(tmp_path, script, "pretrain_mae.py", "--config_yaml", config, "--resume")
    assert [process.code for process in ended] == [0, 0], ended
    assert ended[0].said.count("resuming from") == 1
    same_run(tmp_path, alone)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_others(tmp_path, data, alone, rank: int) -> None:
    config = run_config(data, tmp_path)
    started = time.monotonic()
    ended = run_ranks(tmp_path, training_with_a_signal, "SIGKILL", rank, MIDDLE, "--config_yaml", config)
    assert time.monotonic() - started < 30
    assert ended[rank].code == -signal.SIGKILL
    assert ended[1 - rank].code == 2
    one_message(ended, "another process of this run is gone", "--resume")
    assert verify(tmp_path / "run" / "checkpoint_XXS.pth") is None
    assert pretrain(["--config_yaml", str(config), "--resume"]) == 0
    same_run(tmp_path, alone)


def test_a_process_that_does_not_answer_is_given_up(tmp_path, data) -> None:
    """The time that a process waits for the others is 5 s here."""
    ended = run_ranks(tmp_path, training_with_a_signal, "SIGSTOP", 1, 2, "--config_yaml", run_config(data, tmp_path))
    assert (ended[0].code, ended[1].code) == (2, -signal.SIGKILL)
    one_message(ended, "does not answer", "Timed out")


# --------------------------------------------------------------------------- what a user can get wrong


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("training.batch_size=5", "training.batch_size: 5 patches cannot be shared equally by 2 processes"),
        ("training.dataset_path=nowhere", "nowhere: no such folder"),
    ],
)
def test_one_clear_line(tmp_path, data, change: str, named: str) -> None:
    config = run_config(data, tmp_path)
    one_message(run_ranks(tmp_path, script, "pretrain_mae.py", "--config_yaml", config, "--set", change), named)


def test_other_machines_need_the_data_only_and_the_same(tmp_path, data, alone) -> None:
    """Machines are working folders here: the second one has neither config nor weights, and is left without any."""
    here, there = tmp_path / "machine0", tmp_path / "machine1"
    for machine in (here, there):
        write_data(machine / "d")
    run_config("d", here, weight_path="run", epochs=1)
    (here / "first.pth").write_bytes((alone / "run" / "pretrained_XXS_best.pth").read_bytes())
    arguments = ["pretrain_mae.py", "--config_yaml", "train.yaml", "--set", "model.checkpoint_path=first.pth"]
    ended = run_ranks(tmp_path, script, *arguments)
    assert [process.code for process in ended] == [0, 0], ended
    ended = run_ranks(tmp_path, script, *arguments, "--resume")
    assert "this run is finished" in ended[0].said
    assert [path.name for path in there.iterdir()] == ["d"]
    write_data(there / "d", seed=1)
    one_message(run_ranks(tmp_path, script, *arguments), "d: does not hold the same data on all machines")


def test_started_by_something_else_than_torchrun(monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="RANK is not set; start several processes with torchrun"):
        with joined_processes():
            pass


def test_a_signal_while_an_object_is_deleted_is_not_lost(capfd) -> None:
    """Python prints what is raised in `__del__`, and goes on as if nothing had happened."""

    class Bar:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.0)

    bar = Bar()
    with pytest.raises(UserError, match="SIGTERM"), _unwound_by_sigterm():
        del bar
        time.sleep(5.0)
    assert capfd.readouterr().err == ""


def test_each_process_has_its_own_gpu(monkeypatch) -> None:
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert process_device("auto", Processes(3, 4)) == torch.device("cuda:1")
    assert chosen == [torch.device("cuda:1")]
    assert process_device("cpu", Processes(3, 4)) == torch.device("cpu")
    assert process_device("auto", ALONE) == torch.device("cuda")
    with pytest.raises(ConfigError, match="cuda:0 is one device for 4 processes"):
        process_device("cuda:0", Processes(2, 4))
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match=r"more processes than GPUs on this machine: start 2"):
        process_device("cuda", Processes(2, 4))


def test_scripts_of_one_process_say_so(monkeypatch, capsys) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(sys, "argv", ["./eval_mae.py"])
    with pytest.raises(SystemExit) as ended:
        run_script(lambda: pytest.fail("ran"))
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: eval_mae.py is one process: start it with python instead of torchrun\n"


# --------------------------------------------------------------------------- embedding


def embed_config(data: Path, folder: Path, weights: Path, **data_section: object) -> Path:
    folder.mkdir()
    return write_config(
        folder / "embed.yaml",
        model={"checkpoint_path": str(weights), "device": "cpu"},
        data={"dataset_path": str(data), "batch_size": 3, **data_section},
        embed={"pool": "mean", "out_dir": str(folder / "out"), "name": "e"},
    )


def test_embeddings_have_the_same_bytes(tmp_path, data, alone) -> None:
    """A split of five batches, one of three, one of a single patch."""
    (data / "one.csv").write_text(NAMES[0])
    options = {"splits": {"train": "split.csv", "one": "one.csv", "val": "val.csv"}}
    checkpoint = alone / "run" / "pretrained_XXS_last.pth"
    assert embed(["--config_yaml", str(embed_config(data, tmp_path / "a", checkpoint, **options))]) == 0
    config = embed_config(data, tmp_path / "b", checkpoint, **options)
    main, other = run_ranks(tmp_path / "b", script, "embed/compute_embed.py", "--config_yaml", config)
    assert (main.code, other.code, main.complained, other.complained, other.said) == (0, 0, "", "", ""), (main, other)
    for split, patches in (("train", 11), ("one", 1), ("val", 6)):
        ours, theirs = (tmp_path / name / "out" / f"e_{split}.npz" for name in "ab")
        assert ours.read_bytes() == theirs.read_bytes()
        assert np.load(ours)[f"x_{split}"].shape == (patches, 24)
        assert main.said.count(f"e_{split}.npz: {patches} patches x 24 numbers") == 1
        first, second = (json.loads(path.with_suffix(".json").read_text()) for path in (ours, theirs))
        for key in ("x_shape", "y_shape", "skipped_fill", "skipped_without_labels", "dataset_fingerprint"):
            assert first[key] == second[key], key
    assert len(list((tmp_path / "b" / "out").iterdir())) == 6


@pytest.mark.parametrize("bad", [0, 12])
def test_a_bad_file_in_one_process_ends_both_and_leaves_nothing(tmp_path, alone, bad: int) -> None:
    """Met in the first or the last batch, when the other process has work left or waits for this one."""
    write_data(tmp_path / "d")
    path = tmp_path / "d" / "images" / f"{NAMES[bad]}.tif"
    path.write_bytes(path.read_bytes()[:999])
    options = {"splits": {"train": "split.csv"}, "num_workers": 1}
    config = embed_config(tmp_path / "d", tmp_path / "e", alone / "run" / "pretrained_XXS_last.pth", **options)
    ended = run_ranks(tmp_path / "e", script_reading_files, "embed/compute_embed.py", "--config_yaml", config)
    one_message(ended, NAMES[bad])
    assert not list((tmp_path / "e" / "out").iterdir())


# --------------------------------------------------------------------------- torchrun itself


def torchrun(*arguments: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, *map(str, arguments)], cwd=ROOT, env=environment, text=True, **pipes)


def once(process: subprocess.Popen, condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def workers_of(process: subprocess.Popen) -> list[int]:
    return list(map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds a worker in /proc")
def test_torchrun_stopped_and_bereft(tmp_path, data) -> None:
    """SIGTERM to torchrun saves and stops; then, resumed, a worker is killed."""
    config, run = run_config(data, tmp_path, epochs=500, save_every_n_epochs=1), tmp_path / "run"
    process = torchrun("pretrain_mae.py", "--config_yaml", config)
    once(process, lambda: (run / "checkpoint_XXS.pth").exists())
    process.send_signal(signal.SIGTERM)
    said, complained = process.communicate(timeout=30)
    assert said.count("stopped by a signal in epoch") == 1, complained
    assert said.count("pretraining size") == 1
    assert "error:" not in complained
    before = verify(run / "checkpoint_XXS.pth"), len(rows(tmp_path))
    assert before[0] is None

    process = torchrun("pretrain_mae.py", "--config_yaml", config, "--resume")
    once(process, lambda: len(rows(tmp_path)) > before[1] + 2)
    os.kill(workers_of(process)[1], signal.SIGKILL)
    killed = time.monotonic()
    said, complained = process.communicate(timeout=30)
    assert process.returncode
    assert time.monotonic() - killed < 25
    assert complained.count("error: process 0 of 2: another process of this run is gone") == 1, complained
    assert verify(run / "checkpoint_XXS.pth") is None


def test_torchrun_with_a_script_of_one_process(tmp_path) -> None:
    (tmp_path / "some_script.py").write_text(
        f"import sys; sys.path[:0] = [{str(ROOT)!r}]\nfrom utils.errors import run_script\nrun_script(lambda: None)"
    )
    process = torchrun(tmp_path / "some_script.py")
    _, complained = process.communicate(timeout=60)
    assert process.returncode
    assert complained.count("error: some_script.py is one process") == 1
