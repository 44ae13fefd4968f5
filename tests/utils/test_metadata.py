"""The table of metadata fields, the sun's elevation, and models with four and with five fields side by side."""

from datetime import date, datetime, time

import numpy as np
import pytest
import torch
from metadata_pairs import pairs
from tiny import tiny_model

from models.config import ModelConfig
from utils.metadata import (
    FIELDS,
    PUBLISHED_FIELDS,
    Acquisitions,
    AcquisitionTime,
    column_of,
    encode_metadata,
    encode_values,
    metadata_columns,
    select_fields,
    unknown_columns,
)
from utils.solar_position import sun_coordinates, sun_elevation

FIVE = (*PUBLISHED_FIELDS, "sun_elevation")
MORNING = AcquisitionTime.at(datetime(2017, 6, 13, 10, 10, 31))


def elevation(moment: datetime, lat: float, lon: float) -> float:
    known = Acquisitions.of([AcquisitionTime.at(moment)], lat, lon)
    return sun_elevation(known.julian_day, known.lat, known.lon)[0]


@pytest.mark.parametrize(
    ("moment", "lat", "lon", "published", "within"),
    [
        # Reda and Andreas 2004 (NREL/TP-560-34302), table A5.1: without refraction.
        (datetime(2003, 10, 17, 19, 30, 30), 39.742476, -105.1786, 39.872046, 0.005),
        # Meeus, Astronomical Algorithms, example 25.a: seen from the pole the sun stands as high as its declination.
        (datetime(1992, 10, 13), 90.0, 0.0, -7.78507, 0.001),
        # MTL of LE07_L1TP_038035_20190618_20190618_01_RT, at the mean of its corners, which is not quite its centre.
        (datetime(2019, 6, 18, 17, 58, 52), 36.0495, -113.3352, 65.79784674, 0.1),
    ],
)
def test_sun_elevation_is_as_published(moment, lat, lon, published, within) -> None:
    assert elevation(moment, lat, lon) == pytest.approx(published, abs=within)


def test_sun_coordinates_are_as_published() -> None:
    """Meeus, example 25.a."""
    right_ascension, declination = np.degrees(sun_coordinates(np.array([2448908.5])))
    assert right_ascension[0] % 360 == pytest.approx(198.38083, abs=1e-3)
    assert declination[0] == pytest.approx(-7.78507, abs=1e-4)


@pytest.mark.parametrize(
    ("when", "lat", "lon", "known"),
    [
        (MORNING, 48.2, 16.4, True),
        (AcquisitionTime(date(2017, 6, 13)), 48.2, 16.4, False),
        (AcquisitionTime(None, time(10, 10)), 48.2, 16.4, False),
        (MORNING, np.nan, np.nan, False),
    ],
)
def test_sun_elevation_needs_time_and_place(when, lat, lon, known) -> None:
    columns = metadata_columns(Acquisitions.of([when], lat, lon))
    assert np.isfinite(column_of(columns, "sun_elevation")[0]) == known


def test_what_is_stated_counts_before_what_is_derived() -> None:
    known = Acquisitions.of([MORNING] * 2, [48.2] * 2, [16.4] * 2)
    derived = column_of(metadata_columns(known), "sun_elevation")
    stated = column_of(metadata_columns(known, {"sun_elevation": [12.5, np.nan]}), "sun_elevation")
    assert stated[0] == 12.5 and stated[1] == derived[1]


def test_published_fields_are_encoded_as_defined() -> None:
    columns = metadata_columns(Acquisitions.of([MORNING], 48.2, -16.4))
    np.testing.assert_array_equal(encode_metadata(columns), pairs([24], [10], [48.2], [-16.4]))
    published = encode_metadata(columns, published_behaviour=True)
    np.testing.assert_array_equal(published, pairs([24], [1], [48.2], [-16.4]))
    assert not encode_metadata(unknown_columns(2), FIVE).any()


def test_a_model_s_own_order_decides() -> None:
    columns = metadata_columns(Acquisitions.of([MORNING], 48.2, 16.4))
    whole, chosen = encode_metadata(columns, FIVE)[0], encode_metadata(columns, ("sun_elevation", "week"))[0]
    np.testing.assert_array_equal(chosen, whole[[4, 0]])
    own = torch.from_numpy(select_fields(columns, FIVE))
    np.testing.assert_array_equal(encode_values(own, FIVE, False).float().numpy()[0], whole)
    assert encode_metadata(columns, ()).shape == (1, 0, 2)


def test_models_with_four_and_five_fields_live_side_by_side() -> None:
    four, five, none = tiny_model(), tiny_model(meta_fields=FIVE), tiny_model(meta_fields=())
    images = torch.randn(2, 7, 40, 40, generator=torch.Generator().manual_seed(0))
    columns = metadata_columns(Acquisitions.of([MORNING], [48.2, 60.0], [16.4, 20.0]))
    for model in (four, five, none, four):
        fields = model.config.meta_fields
        encoded = model.eval().encode(images, torch.from_numpy(encode_metadata(columns, fields)))
        assert encoded.meta.shape[1] == len(fields)
        assert encoded.tokens.shape[1] == len(fields) + 1 + 100
        assert torch.equal(encoded.cls, encoded.tokens[:, len(fields)])
        with pytest.raises(ValueError, match="metadata have shape"):
            model.encode(images, torch.zeros(2, len(fields) + 1, 2))
    assert "encoder.sun_elevation_proj.weight" in five.state_dict()


def test_a_new_field_leaves_the_records_of_the_others_as_they_were() -> None:
    assert "meta_fields" not in ModelConfig.of_size("S").to_dict()
    config = ModelConfig.of_size("S", meta_fields=FIVE)
    assert config.to_dict()["meta_fields"] == list(FIVE)
    assert ModelConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(("fields", "problem"), [(("week", "moon"), "'moon'"), (("week", "week"), "named twice")])
def test_unknown_and_repeated_fields_are_refused(fields, problem) -> None:
    with pytest.raises(ValueError, match=problem):
        ModelConfig.of_size("S", meta_fields=fields)


def test_every_field_has_sensible_limits() -> None:
    for name, field in FIELDS.items():
        assert field.name == name and field.limits[0] < field.limits[1] and field.unit
