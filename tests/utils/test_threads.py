"""Threads stay within what a container may use."""

import joblib
import pytest
import torch

from utils import threads
from utils.devices import select_device


@pytest.fixture
def machine(monkeypatch):
    """A machine of eight cores to PyTorch, and a way to say how many of them a container may use."""
    before = torch.get_num_threads()
    for name in threads.ASKED_FOR:
        monkeypatch.delenv(name, raising=False)
    torch.set_num_threads(8)
    threads.keep_within_quota.cache_clear()
    yield lambda usable: monkeypatch.setattr(joblib, "cpu_count", lambda: usable)
    threads.keep_within_quota.cache_clear()
    torch.set_num_threads(before)


def test_a_quota_limits_the_threads_and_is_said_once(machine, capsys) -> None:
    machine(2)
    select_device("cpu")
    select_device("cpu")
    assert torch.get_num_threads() == 2
    assert capsys.readouterr().out.count("threads      2,") == 1


def test_without_a_quota_nothing_changes(machine, capsys) -> None:
    machine(8)
    select_device("cpu")
    assert torch.get_num_threads() == 8
    assert "threads" not in capsys.readouterr().out


def test_a_number_that_the_user_sets_stands(machine, monkeypatch) -> None:
    machine(2)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    select_device("cpu")
    assert torch.get_num_threads() == 8
