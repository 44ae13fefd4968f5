"""Simulated series: one place on several dates, with calendars of crops and woods, and with changes."""

import json
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import rasterio
from scene_files import read

from datasets.simulated import main
from datasets.simulator.overpasses import day_of_the_simulated_year
from datasets.simulator.parcels import Parcels
from datasets.simulator.phenology import CROPS, FORESTS, NO_TYPE, TYPES, season_cover
from datasets.simulator.scene import NO_CLASS, SimulatedScene
from datasets.simulator.series import Change, DatedScene, History, spread_dates
from scenes.input.product import find_scene
from utils.errors import ConfigError, DataError

SIZE = 128
DATES = ("2020-02-29", "2020-07-10", "2023-07-12")


def make(out: Path, *options: str) -> Path:
    assert main(["--kind", "scene", "--size", str(SIZE), "--seed", "5", "--out", str(out), *options]) == 0
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("simulated") / "series"
    return make(out, "--dates", *DATES[::-1], "--phenology", "--changed", "0.3")


def truth(folder: Path) -> np.ndarray:
    return read(folder / "truth.tif")[0]


def test_every_date_is_a_scene_of_its_own_on_one_grid(folder) -> None:
    found = [find_scene(folder / day) for day in DATES]
    assert len({(scene.grid.crs, scene.grid.transform, scene.grid.width) for scene in found}) == 1
    assert [scene.product.split("_")[3] for scene in found] == ["20200229", "20200710", "20230712"]
    assert len({scene.time.hour for scene in found}) == 1
    record = json.loads((folder / "series.json").read_text())
    assert record["dates"] == list(DATES) and record["changed_on"] == DATES[1]
    assert "--dates 2020-02-29 2020-07-10 2023-07-12 --phenology --changed 0.3" in (folder / "README.md").read_text()


def test_land_stays_but_where_the_record_says_that_it_changes(folder) -> None:
    before, after, changed = (read(folder / name)[0] for name in ("before.tif", "after.tif", "changed.tif"))
    assert np.array_equal(truth(folder / DATES[0]), before)
    assert np.array_equal(truth(folder / DATES[1]), after) and np.array_equal(truth(folder / DATES[2]), after)
    assert np.array_equal(changed, before != after)
    share = json.loads((folder / "series.json").read_text())["changed_pixels"]
    assert 0.1 < share < 0.5 and share == changed.sum() / (before != NO_CLASS).sum()
    plain = np.concatenate([stripe.truth for stripe in SimulatedScene(SIZE, 5).stripes()])
    assert np.array_equal(before, plain), "the land of the scene of that seed"


def test_pixels_differ_between_dates_and_are_the_same_again(folder, tmp_path) -> None:
    bands = [np.concatenate([read(band.path) for band in find_scene(folder / day).bands]) for day in DATES]
    assert (bands[0] != bands[1]).mean() > 0.5 and (bands[1] != bands[2]).mean() > 0.5
    alone = make(tmp_path / "one", "--dates", DATES[1], DATES[0], "--phenology")
    again = np.concatenate([read(band.path) for band in find_scene(alone / DATES[0]).bands])
    assert np.array_equal(again, bands[0]), "a date does not depend on the other dates"


def test_growth_types_are_of_arable_land_and_woods(folder) -> None:
    growth, cover = read(folder / "growth.tif")[0], truth(folder / DATES[0])
    with rasterio.open(folder / "growth.tif") as file:
        assert json.loads(file.tags()["types"]) == [kind.name for kind in TYPES]
    assert set(np.unique(cover[growth < len(CROPS)])) <= {2}
    woods = (growth >= len(CROPS)) & (growth != NO_TYPE)
    assert set(np.unique(cover[woods])) <= {8, 9, 10} and np.isin(cover, (2, 8, 9, 10)).sum() == (growth < 10).sum()


def test_calendars_cross_the_turn_of_the_year_and_differ() -> None:
    days = np.arange(1, 366)
    curves = {kind.name: season_cover(kind, days, 9.0) for kind in TYPES}
    for kind in TYPES:
        edge = season_cover(kind, np.array([-0.25, 365.0]), 9.0)
        assert abs(edge[0] - edge[1]) < 1e-3 and 0.4 < curves[kind.name].max() <= 1
    assert curves["winter cereal"][129] > 0.9 > 0.1 > curves["maize"][129]
    assert curves["maize"][219] > 0.9 > 0.1 > curves["winter cereal"][219]
    for group in (CROPS, FORESTS):
        for first in group:
            for second in group:
                assert first is second or abs(curves[first.name] - curves[second.name]).max() > 0.3


def test_phenology_moves_greenness_as_the_calendar_says() -> None:
    """On an infrared band, cereal fields fall between May and August and maize fields rise."""
    may, august = (DatedScene(192, 3, date(2021, month, 8), History(phenology=True)) for month in (5, 8))
    land = [scene._land(0, 192) for scene in (may, august)]
    types = may.phenology.types(0, land[0][1])
    rise = land[1][0][4] - land[0][0][4]
    present = [kind for kind in range(len(CROPS)) if (types == kind).sum() > 100]
    rises = {CROPS[kind].name: rise[types == kind].mean() for kind in present}
    green = {kind.name: np.diff(season_cover(kind, np.array([128, 220]), 9.0))[0] for kind in CROPS}
    for name, value in rises.items():
        assert abs(green[name]) < 0.5 or np.sign(value) == np.sign(green[name]), name
    assert len(present) >= 3


def test_parcels_cover_a_scene_whatever_rows_are_read() -> None:
    parcels = Parcels(100, 30, 1, "test")
    whole = parcels.read(0, 100)
    assert np.array_equal(whole[40:], parcels.read(40, 60))
    size = np.bincount(whole.ravel())
    assert 300 < np.median(size[size > 0]) < 1500
    nearest = ((parcels.points.reshape(-1, 2) - np.array([17, 71])) ** 2).sum(1).argmin()
    assert whole[17, 71] == nearest


def test_dates() -> None:
    assert spread_dates(12)[0] == date(2021, 1, 16) and spread_dates(12)[-1] == date(2021, 12, 12)
    assert (spread_dates(30)[1] - spread_dates(30)[0]).days == 16
    assert day_of_the_simulated_year(date(1996, 2, 29)) == date(2018, 2, 28)
    assert day_of_the_simulated_year(date(1984, 6, 1)) == date(2017, 6, 1)
    before = DatedScene(64, 0, date(2021, 5, 1), History(change=Change(0.5, date(2021, 5, 2))))
    assert before.altered is None


def test_a_series_by_another_sensor(tmp_path) -> None:
    out = make(tmp_path / "tm", "--dates", "1996-05-01", "1996-08-01", "--sensor", "tm")
    assert len(list((out / "1996-08-01").glob("LT05_*_SR_B*.TIF"))) == 6


def test_what_cannot_be_made_is_refused_in_one_line(tmp_path, folder) -> None:
    out = ["--out", str(tmp_path / "a"), "--size", "64"]
    for options, named in (
        (["--dates", "0"], "--dates 0"),
        (["--dates", "2021-13-01"], "2021-13-01"),
        (["--dates", "2021-05-01", "2021-05-01"], "given twice"),
        (["--dates", "3", "--changed", "2"], "--changed 2"),
        (["--dates", "3", "--changed", "0.1", "--changed-on", "2021-01-01"], "--changed-on 2021-01-01"),
        (["--dates", "3", "--changed-on", "2021-05-01"], "give --changed SHARE"),
        (["--phenology"], "give --dates"),
        (["--dates", "3", "--year", "2020"], "that of its dates"),
        (["--dates", "1996-05-01"], "OLI flew from 2013 on"),
    ):
        with pytest.raises(ConfigError, match=named):
            main(["--kind", "scene", *out, *options])
    for options in (["--dates", "3"], ["--phenology"], ["--changed", "0.1"]):
        with pytest.raises(ConfigError, match="is for --kind scene"):
            main(["--kind", "bigearthnet", "--out", str(tmp_path / "a"), "--patches", "3", *options])
    (tmp_path / "photo.jpg").write_text("mine")
    with pytest.raises(DataError, match=r"photo\.jpg"):
        main(["--kind", "scene", "--size", "64", "--dates", "1", "--out", str(tmp_path)])
    assert not (tmp_path / "a").exists()
    other = make(tmp_path / "b", "--dates", "1")
    make(other, "--dates", DATES[0])
    assert sorted(entry.name for entry in other.iterdir()) == [DATES[0], "README.md", "series.json"]
