"""Pretraining of the temporal module: the same bits after a stop, other data refused, places made once."""

import json
import os
import signal
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import write_config
from tiny_weights import write_tiny_checkpoint

from configs.temporal import PlacesSection, TemporalConfigFile, read_temporal_config
from datasets.simulator.phenology import NO_TYPE
from models.temporal_weights import read_temporal
from temporal.data import place_requests
from temporal.places import most_frequent
from temporal.pretrain import main
from temporal.series import PRETRAINING, STUDY, Series, even_days, place_seeds, random_days
from temporal.training import TemporalPretraining, some_dates
from training.stopping import StopSignals
from utils.errors import CheckpointError, ConfigError, DataError

SECTIONS = {
    "model": {"dim": 12, "heads": 2, "groups": 1, "expert_width": 6, "slots": 2},
    "training": {"epochs": 2, "batch_size": 8, "learning_rate": 0.01},
}


def some_series(count: int, seed: int = 0) -> Series:
    """Vectors that follow the season, each in its own way."""
    random = np.random.default_rng(seed)
    times = 2015 + random.random((count, 4))
    own = random.normal(size=(count, 1, 5))
    vectors = np.cos(2 * np.pi * times[..., None] + 2 * own) + 0.1 * random.normal(size=(count, 4, 5))
    ones = np.ones(count)
    return Series(vectors.astype(np.float32), times, ones.astype(np.uint8), ones.astype(np.float32), ones)


def trained(folder: Path, *, resume: bool = False, train: Series | None = None, **training: object) -> int:
    sections = {**SECTIONS, "training": {**SECTIONS["training"], "weight_path": str(folder), **training}}
    with StopSignals() as signals:
        series = some_series(40) if train is None else train
        run = TemporalPretraining(TemporalConfigFile(**sections), series, some_series(9, 1), "abc", resume, signals)
        return run.run()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("temporal") / "run"
    assert trained(folder) == 0
    return folder


@pytest.mark.parametrize("last", [2, 4, 6])
def test_a_stopped_run_goes_on_to_the_same_bits(unbroken, tmp_path, monkeypatch, capsys, last) -> None:
    real = TemporalPretraining._one_step

    def interrupting(self):
        if self.step == last:
            os.kill(os.getpid(), signal.SIGTERM)
        real(self)

    monkeypatch.setattr(TemporalPretraining, "_one_step", interrupting)
    assert trained(tmp_path / "run") == 0
    assert f"stopped by a signal after step {last + 1}; saved" in capsys.readouterr().out
    assert not (tmp_path / "run/pretrained_temporal_last.npz").exists()
    monkeypatch.setattr(TemporalPretraining, "_one_step", real)
    assert trained(tmp_path / "run", resume=True) == 0
    for name in ("pretrained_temporal_last.npz", "pretrained_temporal_best.npz", "training_metrics_temporal.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (unbroken / name).read_bytes(), name
    assert trained(tmp_path / "run", resume=True) == 0
    assert "this run is finished (10 steps); nothing to do" in capsys.readouterr().out


def test_it_learns_to_foretell(unbroken, tmp_path) -> None:
    rows = [json.loads(line) for line in (unbroken / "training_log_temporal.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2] and all(row["simulated"] for row in rows)
    trained(tmp_path / "longer", epochs=12)
    longer = [json.loads(line) for line in (tmp_path / "longer/training_log_temporal.jsonl").read_text().splitlines()]
    assert longer[-1]["val_loss"] < 0.9 * rows[0]["val_loss"]
    assert read_temporal(tmp_path / "longer/pretrained_temporal_last.npz").config.encoder == "abc"


def test_another_recipe_or_other_places_are_refused(unbroken, tmp_path) -> None:
    folder = tmp_path / "run"
    trained(folder)
    with pytest.raises(CheckpointError, match=r"training\.learning_rate was 0\.01 in the saved run and is 0\.02 now"):
        trained(folder, resume=True, learning_rate=0.02)
    with pytest.raises(CheckpointError, match="was trained on other places"):
        trained(folder, resume=True, train=some_series(40, 5))
    checkpoint = folder / "checkpoint_temporal.pth"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-50])
    assert trained(folder, resume=True) == 0, "the one before it verifies"
    assert trained(folder) == 0 and list(folder.glob("replaced_*")), "an earlier run is moved aside"


def test_dates_are_left_out_from_one_to_all_but_one() -> None:
    seen = some_dates(3000, 5, torch.Generator().manual_seed(0))
    counts = torch.bincount(seen.sum(dim=1), minlength=6)
    assert counts[0] == counts[5] == 0 and counts[1:5].min() > 650
    assert (seen.float().mean(dim=0) - 0.5).abs().max() < 0.05


def test_places_of_pretraining_and_studies_are_apart() -> None:
    requests = place_requests(PlacesSection(train=6, val=2, crops_and_woods=0.75))
    assert [request.crops_and_woods for request in requests] == [True, True, True, False] * 2
    assert requests[:4] == place_requests(PlacesSection(train=3, val=1, crops_and_woods=0.75))
    assert not set(place_seeds(20, 0, PRETRAINING)) & set(place_seeds(20, 0, STUDY))
    spans = set()
    for seed in range(60):
        days = random_days(12, 2014, 2020, 3, seed)
        assert len(set(days)) == 12 and list(days) == sorted(days)
        assert date(2014, 1, 1) <= days[0] and days[-1] <= date(2020, 12, 31)
        spans.add(days[-1].year - days[0].year + 1)
    assert spans >= {1, 2, 3} and max(spans) <= 3
    assert even_days(12, 2022)[0] == date(2022, 1, 16)


def test_the_type_of_a_cell_is_that_of_most_pixels() -> None:
    types = np.full((4, 4), NO_TYPE, np.uint8)
    types[:2, :2], types[0, 2], types[1, 2:] = 3, 1, 2
    growth, share = most_frequent(types, 2)
    assert growth.tolist() == [3, 2, NO_TYPE, NO_TYPE] and share.tolist() == [1.0, 0.5, 0.0, 0.0]


def test_the_command_makes_places_once_and_trains(tmp_path, capsys) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "tiny.pth")
    places = {"folder": str(tmp_path / "places"), "train": 2, "val": 1, "dates": 2, "windows": 1}
    training = {**SECTIONS["training"], "epochs": 1, "weight_path": str(tmp_path / "run")}
    sections = {**SECTIONS, "training": training, "places": places, "encoder": {"checkpoint": str(checkpoint)}}
    config = str(write_config(tmp_path / "c.yaml", **sections))
    assert main(["--config_yaml", config]) == 0
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "places").glob("place_*.npz")}
    assert len(made) == 3
    first = (tmp_path / "run/pretrained_temporal_last.npz").read_bytes()
    assert main(["--config_yaml", config]) == 0
    assert made == {path: path.stat().st_mtime_ns for path in made}
    assert (tmp_path / "run/pretrained_temporal_last.npz").read_bytes() == first
    path = next(iter(made))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"place_.*damaged; remove it"):
        main(["--config_yaml", config])
    capsys.readouterr()


def test_impossible_configs(tmp_path) -> None:
    config = str(write_config(tmp_path / "c.yaml"))
    for override, named in (
        ("encoder.pool=cls_and_more", r"encoder\.pool"),
        ("encoder.pool=all", "is not for cells of a map"),
        ("model.heads=5", r"model\.heads: 5 must divide"),
        ("model.k=3", r"model\.k: 3 must be below"),
        ("places.most_years=9", "is more than there are"),
    ):
        with pytest.raises(ConfigError, match=named):
            read_temporal_config(config, [override])
