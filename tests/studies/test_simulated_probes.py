"""The command that fits probes on simulated patches and scores them on others."""

import numpy as np
import pytest

from datasets.simulated import main as simulate
from datasets.simulator.baselines import probabilities
from studies.recipe.simulated_probes import INPUTS, TEXT, main
from utils.errors import ConfigError


def test_a_probe_finds_what_it_was_fitted_on_and_takes_the_unknown_for_average() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(200, 3))
    labels = np.stack([features[:, 0] > 0, np.ones(200, bool), np.zeros(200, bool)], axis=1)
    seen = np.array([[2.0, 0.0, 0.0], [-2.0, 0.0, 0.0], [np.inf, np.inf, np.inf]])
    found = probabilities(features, labels, seen)
    assert found[0, 0] > 0.9 > 0.1 > found[1, 0]
    assert 0.3 < found[2, 0] < 0.7, "nothing is known of it"
    assert found[:, 1].tolist() == [1.0] * 3 and found[:, 2].tolist() == [0.0] * 3


@pytest.mark.runs
def test_the_command_compares_the_variants(tmp_path) -> None:
    """On patches that are standard ones themselves."""
    held_out = tmp_path / "held_out"
    simulate(["--kind", "bigearthnet", "--patches", "60", "--seed", "8", "--out", str(held_out)])
    arguments = ["--real", str(held_out), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--patches", "256", "--seeds", "1", "2"]) == 0
    header, _, *rows = (tmp_path / "out" / TEXT).read_text().strip().split("\n")
    assert header == "| probe on | standard | realistic | realistic minus standard |"
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == list(INPUTS)
    assert rows[1].endswith("| 0.0 (0.0 to 0.0) |"), "metadata are the same"
    with pytest.raises(ConfigError, match="--patches: expected 100 or more"):
        main([*arguments, "--patches", "9"])
