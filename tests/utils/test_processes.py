"""Starting several processes: what a user can get wrong, signals, devices, and torchrun itself."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import shared_runs
import torch
import warm_python
from conftest import ROOT
from ranks import reduction_that_ends_late, run_ranks, script
from shared_runs import one_message, rows, run_config, write_data

from training.run_folder import verify
from utils.devices import process_device
from utils.errors import ConfigError, UserError, run_script
from utils.processes import ALONE, Processes, _unwound_by_sigterm, joined_processes

pytestmark = pytest.mark.runs

data, alone = shared_runs.data, shared_runs.alone


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


def test_threads_that_sum_end_with_the_group(tmp_path) -> None:
    """Still at work when Python shuts down, one of them would abort the process ("terminate called …")."""
    ended = run_ranks(tmp_path, reduction_that_ends_late, "callback ended")
    assert [(process.code, process.said.strip()) for process in ended] == [(0, "callback ended")] * 2, ended


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


# --------------------------------------------------------------------------- torchrun itself


def torchrun(*arguments: object) -> warm_python.Process:
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return warm_python.start([*command, *arguments], cwd=ROOT, env=environment)


def once(process: warm_python.Process, condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def workers_of(process: warm_python.Process) -> list[int]:
    return list(map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()))


@pytest.mark.slow
@pytest.mark.faults
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
