"""The command that measures what turning ETM+ into OLI does."""

import csv

import pytest
from scene_files import tiny_checkpoint

from studies.recipe.adjustment import FIGURES, WAYS, main
from utils.errors import ConfigError


@pytest.mark.runs
def test_every_way_has_figures_with_intervals(tmp_path, capsys) -> None:
    weights = str(tiny_checkpoint(tmp_path / "tiny.pth", missing_bands="token"))
    arguments = ["--out", str(tmp_path / "out"), "--weights", weights, "--places", "3", "--size", "200"]
    assert main(arguments) == 0
    with (tmp_path / "out" / "adjustment.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(WAYS) * len(FIGURES)
    assert all(float(row["low"]) <= float(row["value"]) <= float(row["high"]) for row in rows)
    assert len({row["value"] for row in rows if row["figure"] == "cosine similarity"}) == len(WAYS)
    assert "turned by RMA: cosine similarity" in (tmp_path / "out" / "adjustment.md").read_text()
    with pytest.raises(ConfigError, match="--places: expected 3 or more"):
        main([*arguments, "--places", "1"])
