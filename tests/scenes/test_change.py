"""Change maps: p-values that are what they say where nothing changes, and changes that are found."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from scene_files import CLEAR, CLOUD, read, some_numbers, write_product
from scripts import left_behind
from series_files import SIDE, product_of, series, write_date

import scenes.series.change
from scenes.series.distances import cell_distances
from scenes.series.null import MOST_PAIRS, default_pairs, discoveries, levelled, p_values, scores, thinned
from utils.errors import ConfigError, DataError

WIDE = (170, 210)
DATES = ("20170620", "20170706", "20180622", "20190625", "20190711")
"""Before the change, and after it."""


def distances(random: np.random.Generator, level: float = 1.0, spread: float = 0.4, shape=(80, 80)) -> np.ndarray:
    return level * np.exp(spread * random.normal(size=shape))


@pytest.fixture(scope="module")
def two_dates() -> tuple[np.ndarray, np.ndarray]:
    """(60, 70, 6) components of two dates: the second follows from the first, but for noise."""
    random = np.random.default_rng(0)
    one = random.normal(size=(60, 70, 6)).astype(np.float32) * np.array([5, 4, 3, 2, 1, 1])
    other = one @ random.normal(size=(6, 6)) + 3 + 0.3 * random.normal(size=one.shape)
    return one.astype(np.float32), other.astype(np.float32)


def test_what_one_date_says_of_the_other_is_no_distance(two_dates) -> None:
    """A tenth of the cells has changed: they lie apart, and the others as they did before."""
    one, other = two_dates
    plain, changed = cell_distances(one, other), other.copy()
    changed[:6] = changed[:6][::-1, ::-1]
    found = cell_distances(one, changed)
    assert np.median(found[:6]) > 4 * np.median(found[6:])
    np.testing.assert_allclose(np.median(found[6:]), np.median(plain[6:]), rtol=0.1)
    np.testing.assert_allclose(cell_distances(changed, one), found, rtol=1e-4)


def test_distances_do_not_depend_on_units_nor_on_hidden_cells(two_dates) -> None:
    one, other = two_dates
    found = cell_distances(one, other)
    np.testing.assert_allclose(cell_distances(one, 7 * other - 2), found, rtol=1e-3)
    hidden = other.copy()
    hidden[3, 4], hidden[:, :2] = np.nan, np.nan
    less = cell_distances(one, hidden)
    np.testing.assert_array_equal(np.isnan(less), np.isnan(hidden[..., 0]))
    np.testing.assert_allclose(less[np.isfinite(less)], found[np.isfinite(less)], rtol=0.1)
    assert np.isnan(cell_distances(one, np.full_like(other, np.nan))).all()
    assert np.isfinite(cell_distances(one, one)).all()


@pytest.mark.parametrize("own", [0.0, 0.6])
def test_p_values_are_uniform_where_nothing_has_changed(own: float) -> None:
    """Whatever the level and spread of pairs, and whatever the cells' own levels, which all pairs share."""
    random = np.random.default_rng(0)
    levels = np.exp(own * random.normal(size=(80, 80)))
    pairs = ((1, 0.2), (3, 0.5), (0.2, 0.9), (1, 0.4), (2, 0.4), (5, 0.3), (7, 0.6))
    *null, tested = (scores(levels**spread * distances(random, level, spread)) for level, spread in pairs)
    found = levelled(tested, np.stack(null))
    p = p_values(found.tested, found.null)
    for share in (0.01, 0.05, 0.2, 0.5, 0.9):
        assert abs((p <= share).mean() - share) < 3.3 * np.sqrt(share * (1 - share) / p.size) + 0.004
    assert p.min() >= 1 / (1 + len(found.null)) and p.max() <= 1
    assert (found.share > 0.2) == (own > 0)


def test_what_is_always_so_of_a_cell_is_no_change() -> None:
    random = np.random.default_rng(0)
    levels = np.ones((80, 80))
    levels[:10] = 6
    *null, tested = (scores(levels * distances(random)) for _ in range(7))
    found = levelled(tested, np.stack(null))
    assert (p_values(found.tested, found.null)[:10] <= 0.05).mean() < 0.12
    assert (p_values(tested, np.sort(np.concatenate(null, axis=None)))[:10] <= 0.05).mean() > 0.3


def test_a_p_value_counts_the_null_distances_that_are_as_large() -> None:
    p = p_values(np.array([0.5, 3.0, 5.0, np.nan]), np.array([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(p, [1.0, 0.5, 0.25, np.nan])


def test_false_discoveries_keep_to_their_rate() -> None:
    """200 maps of which a tenth has changed: the mean share of false discoveries is at most 10 %, and most is found."""
    random = np.random.default_rng(0)
    false, found = [], []
    for _ in range(200):
        p = random.uniform(size=2000)
        p[:200] = random.uniform(size=200) ** 8
        called = discoveries(p, 0.1)
        false.append(called[200:].sum() / max(called.sum(), 1))
        found.append(called[:200].mean())
    assert 0.07 < np.mean(false) <= 0.1 and np.mean(found) > 0.5


def test_nothing_is_discovered_where_all_is_alike() -> None:
    random = np.random.default_rng(0)
    shares = [discoveries(random.uniform(size=1000), 0.1).any() for _ in range(200)]
    assert np.mean(shares) < 0.16
    assert not discoveries(np.full(5, np.nan), 0.1).any() and not discoveries(np.full(5, 0.5), 0.1).any()


def test_scores_move_little_with_a_minority_that_has_changed() -> None:
    random = np.random.default_rng(0)
    plain = distances(random)
    changed = plain.copy()
    changed[:8] *= 5
    np.testing.assert_allclose(scores(changed)[8:], scores(plain)[8:], atol=0.6)
    hidden = plain.copy()
    hidden[0] = np.nan
    assert np.isnan(scores(hidden)[0]).all() and np.isfinite(scores(hidden)[1:]).all()
    assert np.isnan(scores(np.full((2, 2), np.nan))).all() and np.isfinite(scores(np.zeros((2, 2)))).all()


def moments(*days: str) -> list[datetime]:
    return [datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC) for day in days]


def test_pairs_of_one_season_that_do_not_span_the_change() -> None:
    of = moments("20170115", "20170620", "20170706", "20171231", "20180622", "20190101", "20190711")
    assert default_pairs(of, 2, 4) == [(1, 2), (4, 6)]
    assert default_pairs(moments("20170620", "20180622", "20190625"), 0, 2) == [(0, 1), (1, 2)], "spanning, if need be"
    many = [(number, number + 1) for number in range(100)]
    assert len(thinned(many)) == MOST_PAIRS and thinned(many)[0] == many[0] and thinned(many)[-1] == many[-1]
    assert thinned(many[:3]) == many[:3] and thinned([]) == []


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Five dates; from the third on, 20 x 20 pixels are another land. A cloud on the third."""
    folder = tmp_path_factory.mktemp("place")
    for number, day in enumerate(DATES):
        random = np.random.default_rng(int(day))
        numbers = some_numbers(WIDE) + random.normal(0, 100, (7, *WIDE)).round()
        qa = np.full(WIDE, CLEAR)
        if number >= 2:
            numbers[:, 60:80, 80:100] = some_numbers(WIDE, 9)[::-1][:, 60:80, 80:100]
        if number == 2:
            qa[:40, 90:] = CLOUD
        write_product(folder / day, numbers.astype(np.uint16), qa, product_of(day))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory, place, checkpoint) -> Path:
    out = tmp_path_factory.mktemp("made") / "out"
    return series(place, checkpoint, out, "--stride", 20, "--change", "2017-07-06", "2018-06-22")


def test_what_has_changed_is_found_and_hidden_cells_are_nodata(made) -> None:
    with rasterio.open(made / "change.tif") as file:
        assert file.descriptions == ("distance", "p", "significant") and np.isnan(file.nodata)
        distance, p, significant = file.read()
    hidden = np.isnan(read(made / "embeddings_20180622T095231.tif")[0])
    for band in (distance, p, significant):
        np.testing.assert_array_equal(np.isnan(band), hidden)
    inside = np.zeros(distance.shape, bool)
    inside[16:19, 22:25] = True
    assert np.median(p[inside & ~hidden]) < 0.02 < 0.2 < np.median(p[~inside & ~hidden])
    assert significant[inside & ~hidden].mean() > 0.6
    record = json.loads((made / "series.json").read_text())["change"]
    assert (
        record["null"]
        == [
            ["2017-06-20T09:52:31", "2017-07-06T09:52:31"],
        ]
        or len(record["null"]) >= 2
    )
    assert record["significant_cells"] == np.nansum(significant) and record["cells"] == (~hidden).sum()


def test_too_few_pairs_give_no_p(tmp_path, place, checkpoint, made, capsys) -> None:
    out = shutil.copytree(made, tmp_path / "out")
    null = ("--null", "2017-06-20", "2017-07-06")
    series(place, checkpoint, out, "--stride", 20, "--change", "2017-07-06", "2018-06-22", *null)
    assert "1 pairs of dates" in capsys.readouterr().out
    with rasterio.open(out / "change.tif") as file:
        assert file.descriptions == ("distance",)
    assert "fdr" not in json.loads((out / "series.json").read_text())["change"]


def test_the_least_number_of_cells(tmp_path, place, checkpoint, made, monkeypatch, capsys) -> None:
    monkeypatch.setattr(scenes.series.change, "LEAST_CELLS", 10**6)
    out = shutil.copytree(made, tmp_path / "out")
    series(place, checkpoint, out, "--stride", 20, "--change", "2017-07-06", "2019-07-11")
    assert "too few for p-values" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--change", "2017-07-06", "2020-01-01"), "--change 2020-01-01: names none of the series; choose one of 2017"),
        (("--change", "2019-07-11", "2017-07-06"), "give an earlier date, then a later one"),
        (("--null", "2017-07-06"), "--null names dates for --change; give both"),
        (("--change", "2017-07-06", "2019-07-11", "--null", "2001-01-01"), "--null 2001-01-01: names none"),
        (("--change", "2017-07-06", "2019-07-11", "--fdr", "2"), "expected a number above 0 and up to 1"),
    ],
)
def test_mistakes_are_one_line(tmp_path, place, checkpoint, options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        series(place, checkpoint, tmp_path / "out", *options)
    assert not left_behind(tmp_path / "out")


def test_dates_without_a_common_cell(tmp_path, checkpoint) -> None:
    for day, left in zip(DATES[:2], (True, False), strict=True):
        qa = np.full(SIDE, CLEAR)
        qa[:, slice(0, 70) if left else slice(60, None)] = CLOUD
        write_date(tmp_path / "place", day, qa=qa)
    with pytest.raises(DataError, match="no cell is visible on both dates"):
        series(tmp_path / "place", checkpoint, tmp_path / "out", "--change", "2017-06-20", "2017-07-06")
