"""What a processor does fast: measured once, kept where that is possible, and never a reason to fail."""

import json

import pytest
import torch

from training.recipe import _precision
from utils import calibration, devices
from utils.devices import mixed_precision

CPU = torch.device("cpu")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The cache file of a new user, and a way to make this process forget what it knows."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(calibration, "_has_bfloat16", lambda: True)
    calibration._kept.cache_clear()
    yield calibration.cache_file()
    calibration._kept.cache_clear()


def answer(monkeypatch, times: float) -> list[int]:
    """Have the measurement say `times`; returns a list that grows with every measurement."""
    made: list[int] = []

    def measured() -> float:
        made.append(1)
        return times

    monkeypatch.setattr(calibration, "_times_faster_in_bfloat16", measured)
    calibration._kept.cache_clear()
    return made


def test_a_real_measurement_is_short_and_positive(cache):
    assert 0 < calibration._times_faster_in_bfloat16() < 1000


def test_what_was_measured_is_taken_from_the_file(cache, monkeypatch):
    assert answer(monkeypatch, 0.1) == [] and not calibration.bfloat16_is_fast()
    made = answer(monkeypatch, 5.0)
    assert not calibration.bfloat16_is_fast() and not made
    cache.unlink()
    answer(monkeypatch, 5.0)
    assert calibration.bfloat16_is_fast() and set(json.loads(cache.read_text()).values()) == {5.0}


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"bfloat16 at 1 threads": "fast"}', "\x00"])
def test_a_damaged_file_is_measured_anew(cache, monkeypatch, content):
    cache.parent.mkdir()
    cache.write_text(content)
    made = answer(monkeypatch, 2.0)
    assert calibration.bfloat16_is_fast() and made


def test_a_folder_that_cannot_be_written_is_no_failure(cache, monkeypatch):
    cache.parent.write_text("a file where the folder should be")
    made = answer(monkeypatch, 2.0)
    assert calibration.bfloat16_is_fast() and made and cache.parent.is_file()


def test_a_processor_without_the_instructions_is_not_measured(cache, monkeypatch):
    made = answer(monkeypatch, 2.0)
    monkeypatch.setattr(calibration, "_has_bfloat16", lambda: False)
    assert not calibration.bfloat16_is_fast() and not made


def test_bfloat16_that_is_slow_is_said_in_a_line_and_not_used(monkeypatch, capsys):
    monkeypatch.setattr(devices, "bfloat16_is_fast", lambda: False)
    assert mixed_precision(CPU, "bf16") is None
    monkeypatch.setattr(devices, "bfloat16_is_fast", lambda: pytest.fail("nobody asked for it"))
    assert mixed_precision(CPU, "auto") is None and mixed_precision(CPU, False) is None


def test_a_resumed_run_keeps_the_precision_that_it_began_with(monkeypatch):
    for fast, saved, kept in ((False, "bf16", torch.bfloat16), (True, False, None)):
        monkeypatch.setattr(devices, "bfloat16_is_fast", lambda fast=fast: fast)
        assert _precision(CPU, "bf16", {"amp": saved}) is kept
        assert _precision(CPU, "bf16", None) is (torch.bfloat16 if fast else None)
