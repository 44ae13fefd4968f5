"""The time and place of patches that `model.embed` is given: in many forms, encoded as the datasets do."""

from datetime import UTC, date, datetime, timedelta, timezone

import embed_input
import numpy as np
import pytest
from metadata_pairs import pairs

from utils.errors import DataError
from utils.metadata import PUBLISHED_FIELDS, encode_metadata, select_fields
from utils.when_where import when_where_columns

model, patches = embed_input.model, embed_input.patches

MORNING = datetime(2017, 6, 13, 10, 10, 31)


@pytest.mark.parametrize(
    ("when", "week", "hour"),
    [
        (MORNING, 24, 10),
        (MORNING.replace(tzinfo=UTC), 24, 10),
        (datetime(2017, 6, 19, 1, tzinfo=timezone(timedelta(hours=2))), 24, 23),  # Sunday evening in UTC
        ("2017-06-13T10:10:31Z", 24, 10),
        (" 2017-06-13 10:10 ", 24, 10),
        (np.datetime64(MORNING), 24, 10),
        (np.datetime64("2017-06-13T10", "h"), 24, 10),
        (np.array("2017-06-13T10:10:31", "M8[ns]"), 24, 10),
        (datetime(2021, 1, 3, 0), 53, 0),  # an ISO week of the year before
        ("2017-06-13", 24, None),
        (date(2017, 6, 13), 24, None),
        (np.datetime64("2017-06-13"), 24, None),
        (None, None, None),
        (np.datetime64("NaT"), None, None),
    ],
)
def test_when(when, week, hour) -> None:
    columns = when_where_columns(2, when)
    expected = [np.nan if value is None else value for value in (week, hour, None, None)]
    np.testing.assert_array_equal(select_fields(columns, PUBLISHED_FIELDS), [expected] * 2)


def test_one_time_and_place_a_patch() -> None:
    pandas = pytest.importorskip("pandas")
    mixed = [MORNING, None, "2017-06-13"]
    for when in (mixed, pandas.Series([MORNING, pandas.NaT, MORNING.replace(hour=0)])):
        columns = when_where_columns(3, when, [1.0, None, np.nan], np.array([2.0, np.nan, np.nan]))
        np.testing.assert_array_equal(columns[0, :4], [24, 10, 1, 2])
        assert np.isnan(columns[1]).all() and columns[2, 0] == 24 and np.isnan(columns[2, 2:]).all()


@pytest.mark.parametrize("published", [False, True])
def test_metadata_are_encoded_as_the_datasets_do(published: bool) -> None:
    columns = when_where_columns(2, [MORNING, None], [48.2, np.nan], [16.4, np.nan])
    found = encode_metadata(columns, published_behaviour=published)
    np.testing.assert_array_equal(found[0], pairs([24], [1 if published else 10], [48.2], [16.4])[0])
    np.testing.assert_array_equal(found[1], np.zeros((4, 2)))
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("told", "named"),
    [
        ({"when": "yesterday"}, "'yesterday' is no time"),
        ({"when": 20170613}, "cannot be read as time"),
        ({"when": [20170613] * 3}, "cannot be read as time"),
        ({"when": [MORNING, 3, None]}, "3 is no time"),
        ({"when": [MORNING] * 2}, "2 values for 3 patches"),
        ({"when": "2017-06"}, "is no time"),
        ({"when": np.datetime64("2017-06")}, "does not say which day"),
        ({"when": np.array(["2017"] * 3, "M8[Y]")}, "does not say which day"),
        ({"lat": 48.2}, "give both or neither"),
        ({"lat": 48.2, "lon": None}, "give both or neither"),
        ({"lat": [1, 2, np.nan], "lon": 3.0}, "leave out the other too"),
        ({"lat": [1, 2], "lon": 3.0}, "lat: 2 values for 3 patches"),
        ({"lat": "north", "lon": 3.0}, "'north' is no number"),
        ({"lat": 5_340_000.0, "lon": 600_000.0}, "no degrees of EPSG:4326"),
        ({"lat": 148.2, "lon": 16.4}, "mind the order lat, lon"),
    ],
)
def test_wrong_times_and_places_are_refused(model, patches, told, named: str) -> None:
    with pytest.raises(DataError, match=named):
        model.embed(patches, **told)


def test_what_the_model_is_told_matters(model, patches) -> None:
    untold = model.embed(patches)
    for told in ({"when": "2017-06-13"}, {"when": MORNING}, {"lat": 48.2, "lon": 16.4}):
        assert not np.allclose(model.embed(patches, **told), untold)
    np.testing.assert_allclose(
        model.embed(patches, lat=48.2, lon=-10.0), model.embed(patches, lat=48.2, lon=350.0), atol=1e-5
    )
