"""The command that measures how far simulated patches are from real ones."""

import csv

import numpy as np
import pytest

from datasets.simulated import main as simulate
from studies.recipe import realism
from utils.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def figures() -> dict[str, realism.Figures]:
    return {name: realism.figures(realism.simulated_patches(120, 3, name)) for name in ("standard", "realistic")}


def test_a_set_is_near_itself_and_variants_are_told_apart(figures) -> None:
    standard, realistic = figures["standard"], figures["realistic"]
    even, odd = (
        realism.Figures({name: values[at::2] for name, values in standard.values.items()}, standard.blocks[at::2])
        for at in (0, 1)
    )

    def found(measure, first: realism.Figures, second: realism.Figures) -> float:
        return measure(first, second, realism.TEXTURE)(np.ones(len(first.blocks) + len(second.blocks)))

    assert found(realism.distance, standard, standard) == 0
    assert found(realism.distance, even, odd) < found(realism.distance, standard, realistic)
    assert found(realism.told_apart, even, odd) < 0.7 < 0.8 < found(realism.told_apart, standard, realistic)


def test_weights_are_how_often_a_patch_counts(figures) -> None:
    values = np.random.default_rng(0).normal(size=(50, 3))
    times = np.random.default_rng(1).integers(0, 4, 50)
    weighted = realism._quantiles(values, values.argsort(0), times.astype(float))
    repeated = np.quantile(np.repeat(values, times, axis=0), realism.QUANTILES, axis=0, method="inverted_cdf")
    np.testing.assert_allclose(weighted, repeated)


@pytest.mark.runs
def test_the_command_writes_a_row_for_every_pair(tmp_path) -> None:
    real = tmp_path / "real"
    simulate(["--kind", "bigearthnet", "--patches", "40", "--seed", "8", "--out", str(real)])
    arguments = ["--out", str(tmp_path / "out"), "--patches", "40"]
    assert realism.main(["--real", f"here={real}", f"there={real}", *arguments]) == 0
    with (tmp_path / "out" / realism.TABLE).open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["real"], row["beside it"]) for row in rows] == [
        ("here", "standard"), ("here", "realistic"), ("here", "there"),
        ("there", "standard"), ("there", "realistic"), ("there", "here"),
    ]  # fmt: skip
    assert rows[2]["distance of texture"].startswith("0.00")
    with pytest.raises(ConfigError, match="--real: expected NAME=DIR, got nothing"):
        realism.main(["--real", "nothing", *arguments])
    with pytest.raises(ConfigError, match="--patches: expected 20 or more"):
        realism.main(["--real", f"here={real}", "--out", str(tmp_path), "--patches", "2"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds 0 patches without fill"):
        realism.main(["--real", f"here={tmp_path / 'empty'}", *arguments])
