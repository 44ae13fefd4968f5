"""One colour per class: distinguishable on white and on black, and close to those of land-cover maps."""

import numpy as np
from scipy.optimize import linear_sum_assignment

from scenes.products.land_cover import class_colours

LIGHTNESS = (0.64, 0.54, 0.75)
"""In turns around the circle of hues, so that neighbours differ in it too."""
CHROMAS = (0.17, 0.15, 0.13, 0.11, 0.09, 0.07)
"""The first that a screen can show is taken."""

# Oklab to linear sRGB, by way of cone responses (B. Ottosson, "A perceptual color space for image processing", 2020).
_TO_CONES = np.array(
    [[1.0, 0.3963377774, 0.2158037573], [1.0, -0.1055613458, -0.0638541728], [1.0, -0.0894841775, -1.2914855480]]
)
_TO_LINEAR = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def colours(classes: tuple[str, ...]) -> list[str]:
    """`#rrggbb` of every class: a circle of hues, each class taking one near its colour on maps."""
    palette = np.array([_colour(index, len(classes)) for index in range(len(classes))])
    of_maps = class_colours(classes)
    usual = np.array([of_maps[index][:3] for index in range(len(classes))]) / 255
    cost = np.linalg.norm(usual[:, None] - palette[None], axis=-1)
    _, chosen = linear_sum_assignment(cost)
    return ["#" + "".join(f"{round(255 * float(value)):02x}" for value in palette[index]) for index in chosen]


def _colour(index: int, count: int) -> np.ndarray:
    """(3,) sRGB between 0 and 1 of one of `count` hues."""
    angle = 2 * np.pi * index / count
    lightness = LIGHTNESS[index % len(LIGHTNESS)]
    for chroma in CHROMAS:
        cones = _TO_CONES @ (lightness, chroma * np.cos(angle), chroma * np.sin(angle))
        linear = _TO_LINEAR @ cones**3
        if (linear >= 0).all() and (linear <= 1).all():
            break
    linear = linear.clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
