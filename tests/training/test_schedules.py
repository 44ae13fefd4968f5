"""Schedules of the learning rate, and runs that are prolonged and cooled down."""

import json
from pathlib import Path

import pytest
import yaml
from pretraining import rows, same_weights, train
from tiny import training_config

from scheduler.schedulers import SCHEDULES, Plan
from training.run_log import RunLog
from utils.errors import CheckpointError, ConfigError

PLAN = Plan(2.0, epochs=20, steps_per_epoch=5, warmup_fraction=0.1, decay_fraction=0.4)


@pytest.mark.parametrize(("name", "middle", "late"), [("stable_linear", 1.0, 0.5), ("stable_sqrt", 0.5858, 0.26795)])
def test_stable_rates_by_hand(name: str, middle: float, late: float) -> None:
    schedule = SCHEDULES[name](PLAN)
    assert [schedule(step) for step in (0, 5, 10, 35, 60)] == [0.0, 1.0, 2.0, 2.0, 2.0]
    assert [schedule(step) for step in (80, 90, 100)] == pytest.approx([middle, late, 0.0], abs=1e-4)
    rates = [schedule(step) for step in range(60, 101)]
    assert rates == sorted(rates, reverse=True) and len(set(rates)) == 41


def test_a_decay_does_not_reach_into_the_warm_up_and_none_is_constant() -> None:
    everything = SCHEDULES["stable_linear"](PLAN._replace(decay_fraction=1.0))
    assert everything(5) == 1.0 and everything(10) == 2.0 and everything(55) == pytest.approx(1.0)
    constant = SCHEDULES["stable_sqrt"](PLAN._replace(decay_fraction=0.0, warmup_fraction=0.0))
    assert {constant(step) for step in range(100)} == {2.0}


def test_the_default_is_the_published_cosine() -> None:
    assert SCHEDULES["cosine"](PLAN)(55) == pytest.approx(1.0)
    assert SCHEDULES["cosine"](PLAN._replace(decay_fraction=0.9)) == SCHEDULES["cosine"](PLAN)


def change(*changes: str) -> list[str]:
    return [text for one in changes for text in ("--set", f"training.{one}")]


def test_a_run_is_prolonged_and_cooled_down_to_the_bits_of_one_that_was_so_from_the_start(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(RunLog, "draw_curve", lambda log: None)  # most of the time of such a run
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    last = Path("run") / "pretrained_XXS_last.pth"
    asked = change("epochs=4", "decay_fraction=0.5")
    assert train(training_config(whole, 4, batch_size=2, schedule="stable_sqrt"), *asked) == 0
    config = training_config(parts, 4, batch_size=2, epochs=2, schedule="stable_sqrt", decay_fraction=0)
    assert train(config) == 0
    assert not same_weights(whole / last, parts / last)
    assert train(config, *asked, "--resume") == 0
    assert same_weights(whole / last, parts / last)
    assert rows(whole / "run" / "training_metrics_XXS.csv") == rows(parts / "run" / "training_metrics_XXS.csv")
    record = yaml.safe_load((parts / "run" / "config_XXS.yaml").read_text())
    manifest = json.loads((parts / "run" / "manifest_XXS.json").read_text())
    assert record["training"]["epochs"] == manifest["recipe"]["training"]["epochs"] == 4
    with pytest.raises(CheckpointError, match=r"training\.epochs was 4 in the saved run and is 6 now"):
        train(config, *change("epochs=6", "decay_fraction=0.5"), "--resume")  # steps of the decay are done


def test_other_schedules_are_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"training.schedule.*stable_linear"):
        train(training_config(tmp_path, schedule="linear"))
