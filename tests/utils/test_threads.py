"""Threads stay within what a container may use."""

import threading
from concurrent.futures import ThreadPoolExecutor

import joblib
import pytest
import torch

from utils import threads
from utils.devices import select_device
from utils.threads import single_threads, torch_threads


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


def test_threads_of_a_pool_compute_alone_whatever_others_do() -> None:
    """Also one whose first operation comes after another thread has set its number; new threads get that one's."""

    def threads_used(_: int) -> int:
        both.wait(10)  # so that each of the two threads gets one of the two calls
        torch.ones(8).sum()
        return torch.get_num_threads()

    both = threading.Barrier(2)
    with torch_threads(3):
        pool = single_threads(2)
        list(pool.map(lambda _: both.wait(10), range(2)))
        with ThreadPoolExecutor(1) as new:
            assert new.submit(torch.get_num_threads).result() == 3
        torch.set_num_threads(4)
        assert list(pool.map(threads_used, range(2))) == [1, 1]
        assert torch.get_num_threads() == 4
        pool.shutdown()
