"""Schedules of the learning rate; a run that is prolonged: test_prolonging.py."""

import pytest
from pretraining import train
from tiny import training_config

from scheduler.schedulers import SCHEDULES, Plan
from utils.errors import ConfigError

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


def test_other_schedules_are_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"training.schedule.*stable_linear"):
        train(training_config(tmp_path, schedule="linear"))
