"""Colours of classes can be told apart, also with red-green colour blindness."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from scenes.products.land_cover import class_colours
from studies.ablations.figures import COLOURS as SERIES_COLOURS
from studies.experts.figures import EXPERT_COLOURS, plot_information, plot_planes
from utils.analysis_utils import logarithmic, plot_projection
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


@pytest.mark.parametrize("names", [EuroSATInfo.CLASSES, BigEarthNetInfo.CLASSES])
def test_classes_in_a_plane_can_be_told_apart(names) -> None:
    """By their colours, or where these come close by their markers as well."""
    points, classes = np.random.default_rng(0).normal(size=(len(names), 2)), np.arange(len(names))
    for figure in (plot_projection(points, classes, names, "plane"), plot_planes({"p": (points, classes, names)}, "p")):
        drawn = figure.axes[0].collections
        colours = np.array([one.get_facecolor()[0, :3] for one in drawn])
        shapes = [one.get_paths()[0].vertices.tobytes() for one in drawn]
        apart = difference(colours, colours)
        for first in range(len(names)):
            for second in range(first):
                assert apart[first, second] > (3 if shapes[first] != shapes[second] else 5) * NOTICED


def test_series_can_be_told_apart() -> None:
    for colours in (EXPERT_COLOURS, SERIES_COLOURS, ("C0", "C1")):
        shown = np.array([to_rgb(colour) for colour in colours])
        assert (difference(shown, shown) + np.eye(len(shown))).min() > 3 * NOTICED
    lines = plot_information(
        {name: np.ones(3) for name in "abc"}, {name: np.ones((2, 3)) for name in "de"}, [0, 1, 2], ""
    )
    shown = np.array([to_rgb(line.get_color()) for line in lines.axes[0].lines])
    assert len(shown) == 5 and (difference(shown, shown) + np.eye(5)).min() > 5 * NOTICED


@pytest.mark.parametrize("ends", [(33.0, 40.0), (21.0, 130.0), (0.02, 90.0), (9_000, 10_000)])
def test_ticks_of_a_logarithmic_axis_are_plain_numbers(ends) -> None:
    figure = Figure()
    axes = figure.subplots()
    axes.plot([0, 1], ends)
    logarithmic(axes)
    figure.draw_without_rendering()
    low, high = axes.get_ylim()
    shown = [
        text.get_text() for text, at in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True) if low <= at <= high
    ]
    assert 3 <= len(shown) <= 12 and len(set(shown)) == len(shown)
    assert all(low <= float(text.replace(",", "")) <= high for text in shown)
    assert not any(text.get_text() for text in axes.get_yticklabels(minor=True))


def test_a_palette_of_any_size() -> None:
    assert palette(0).shape == (0, 3) and palette(1).shape == (1, 3)
    assert len(np.unique(palette(60), axis=0)) == 60
