"""Colours of classes can be told apart, also with red-green colour blindness."""

import numpy as np
import pytest

from scenes.products.land_cover import class_colours
from utils.colour_vision import difference, oklab, palette
from utils.data_config import BigEarthNetInfo, EuroSATInfo

NOTICED = 0.02
"""Distance in Oklab that people notice side by side."""


def test_the_simulation() -> None:
    """Red and green of one lightness are far apart, but not for those with deuteranopia; black and white always are."""
    red, green = np.array([[0.78, 0.42, 0.30]]), np.array([[0.56, 0.55, 0.20]])
    assert np.linalg.norm(oklab(red) - oklab(green)) > 0.1
    assert difference(red, green)[0, 0] < 0.6 * np.linalg.norm(oklab(red) - oklab(green))
    assert difference(np.zeros((1, 3)), np.ones((1, 3)))[0, 0] == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("classes", "least"),
    [
        (BigEarthNetInfo.CLASSES, 3 * NOTICED),
        (EuroSATInfo.CLASSES, 5 * NOTICED),
        (BigEarthNetInfo.CORINE, 2 * NOTICED),
        (("Pastures", *"abcdefgh"), 4 * NOTICED),
        (tuple("abcdef"), 7 * NOTICED),
    ],
)
def test_classes_can_be_told_apart(classes, least) -> None:
    colours = class_colours(classes)
    shown = np.array([colours[index][:3] for index in range(len(classes))]) / 255
    assert (difference(shown, shown) + np.eye(len(classes))).min() > least


def test_a_palette_of_any_size() -> None:
    assert palette(0).shape == (0, 3) and palette(1).shape == (1, 3)
    assert len(np.unique(palette(60), axis=0)) == 60
