"""YAML 1.2's core schema, values as written on the command line, and the home folder."""

import math

import pytest

from configs.schema import read_config
from utils.config import ConfigError
from utils.yaml_values import load_value, load_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10), ("-08", -8), ("0o17", 15), ("0x1F", 31), ("1:30", "1:30"), ("1:30.5", "1:30.5"), ("1_0", "1_0"),
        ("0b1", "0b1"), ("3e-4", 3e-4), ("1.", 1.0), (".5", 0.5), ("-.inf", -math.inf), ("yes", "yes"), ("off", "off"),
        ("true", True), ("FALSE", False), ("~", None), ("", None), ("2017-01-01", "2017-01-01"), ("'010'", "010"),
        ("1e3", 1000.0), ("+12", 12), ("12e", "12e"), ("0o8", "0o8"), ("=", "="),
    ],
)  # fmt: skip
def test_scalars(text, value) -> None:
    for found in (load_yaml(f"key: {text}\n")["key"], load_value(text)):
        assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("#1", "#1"),
        ("a #b", "a #b"),
        ("a: b", "a: b"),
        ("[1, 010]", [1, 10]),
        ("{a: no}", {"a": "no"}),
        ("'a #b'", "a #b"),
    ],
)
def test_a_value_counts_as_written(text, value) -> None:
    assert load_value(text) == value


def config(tmp_path, text: str, *overrides: str):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return read_config(str(path), list(overrides), (), True)


def test_words_are_truth_values_where_a_key_takes_one(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    text = "published_behaviour: No\ntraining: {amp: off, compile: on, weight_path: ~/run}\ndata: {splits: {no1: on}}\n"
    found = config(tmp_path, text, "eval.save_reconstructions_full=no", "data.dataset_path=~/a #1", "embed.amp=yes")
    assert (found.published_behaviour, found.training.amp, found.training.compile) == (False, False, "on")
    assert (found.eval.save_reconstructions_full, found.embed.amp, found.data.splits) == (False, True, {"no1": "on"})
    assert (found.training.weight_path, found.data.dataset_path) == (f"{tmp_path}/run", f"{tmp_path}/a #1")
    for wrong in ("training.epochs=1:30", "training.epochs=1_0", "training.learning_rate=yes", "training.epochs=on"):
        with pytest.raises(ConfigError, match="should be a valid"):
            config(tmp_path, text, wrong)
    assert config(tmp_path, text, "training.epochs=010").training.epochs == 10
