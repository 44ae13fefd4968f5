"""Whether seven bands can be SR_B1..SR_B7 in their order: what reversed, shuffled or other sensors' bands show."""

import warnings

import numpy as np

VEGETATION_INDEX, VEGETATION_NIR = 0.5, 0.1
"""(NIR - red) / (NIR + red) and NIR reflectance above which a pixel is taken for vegetation."""
LEAST_VEGETATION = 500
"""Pixels needed to judge by."""
BLUES_APART = 0.05
"""Median difference of coastal blue and blue, in reflectance, that is another band's: 0.03 at most in real patches."""
BRIGHT_RED, RED_OVER_NIR, ODD_SHARE = 0.15, 1.3, 0.2
"""No more than this share of an image is so bright in the red and so much darker in the NIR."""
BRIGHT_GREEN, GREEN_OVER_OTHERS = 0.12, 1.5
"""Nor is more than that share so bright in the green and so much darker in both the red and the NIR."""
SNOW_GREEN = 0.3
"""Green reflectance from which on it may be snow or cloud, which can be."""
NEARER_GREEN, NEARER_RED = 0.005, 0.01
"""Median reflectance by which coastal blue is nearer to green, or to red, than to blue only where these are exchanged:
0.0001 and 0.0064 at most in 352 real patches and windows."""
RED_OVER_GREEN = 0.018
"""Median by which red is above green over vegetation only where they are exchanged: 0.0134 at most in the same."""
SWIR_EXCHANGED = 0.01
"""Median by which SR_B7 is above SR_B6 over vegetation only where they are exchanged: 0.0024 at most in the same."""
SWIR_OVER_NIR = 1.5
"""Median ratio of SR_B6 and SR_B5 over vegetation, with SR_B7 below SR_B5, only where these are exchanged."""
RELATED = 0.2
"""Greatest correlation of two bands, in amount, that no ground has."""
RED_EDGE = 0.02
"""Median by which SR_B7 is above SR_B6, and SR_B6 above SR_B5, over land only where they are Sentinel-2's red edge."""

LEAST_JUDGED = 400
"""Pixels needed to judge by at all: of fewer, medians and correlations can be anything."""


def vegetation(reflectance: np.ndarray) -> np.ndarray:
    """(n,) bool of (7, n) reflectances."""
    red, near_infrared = reflectance[3], reflectance[4]
    index = (near_infrared - red) / np.maximum(near_infrared + red, 1e-5)
    return (index > VEGETATION_INDEX) & (near_infrared > VEGETATION_NIR)


def order_problem(reflectance: np.ndarray) -> str | None:
    """What no ground shows, as a sentence; None where the bands can be in their order.

    Args:
        reflectance: (7, n) of pixels that show ground; NaN in a band that is missing, of which nothing is asked.
    """
    if reflectance.shape[1] < LEAST_JUDGED or _unrelated(reflectance):
        return None
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="invalid value", category=RuntimeWarning)  # older NumPy's medians
        return _of_all(reflectance) or _of_vegetation(reflectance[:, vegetation(reflectance)])


def _unrelated(reflectance: np.ndarray) -> bool:
    """Whether no band has anything in common with another, as noise and no ground: then nothing tells an order."""
    there = reflectance[~np.isnan(reflectance).all(axis=1)]
    if len(there) < 2:
        return True
    with np.errstate(invalid="ignore", divide="ignore"):  # a band that is the same everywhere
        related = np.abs(np.corrcoef(there)) - np.eye(len(there))
    return bool(related.max() < RELATED)


def _of_all(reflectance: np.ndarray) -> str | None:
    coastal, blue, green, red, near_infrared, swir1, swir2 = reflectance
    no_ground = "which no ground is: bands in another order"
    apart = {name: np.median(np.abs(coastal - band)) for name, band in (("2", blue), ("3", green), ("4", red))}
    if apart["2"] > BLUES_APART:
        return f"SR_B1 and SR_B2 are far apart, {no_ground}"
    reddish = (green < SNOW_GREEN) & (red > BRIGHT_RED) & (red > RED_OVER_NIR * near_infrared)
    if reddish.mean() > ODD_SHARE:
        return f"SR_B4 is far brighter than SR_B5, {no_ground}"
    greenish = (green > BRIGHT_GREEN) & (green > GREEN_OVER_OTHERS * np.maximum(red, near_infrared))
    if greenish.mean() > ODD_SHARE:
        return f"SR_B3 is far brighter than SR_B4 and SR_B5, {no_ground}"
    if apart["2"] > apart["3"] + NEARER_GREEN or apart["2"] > apart["4"] + NEARER_RED:
        other = min("34", key=lambda name: float(apart[name]))
        return f"SR_B1 is more like SR_B{other} than like SR_B2, {no_ground}"
    land = near_infrared > VEGETATION_NIR
    if land.sum() >= LEAST_VEGETATION:
        steps = np.median((swir2 - swir1)[land]), np.median((swir1 - near_infrared)[land])
        if min(steps) > RED_EDGE:
            return (
                "SR_B7 is brighter than SR_B6 and that than SR_B5, as Sentinel-2's red edge and no ground in Landsat's"
            )
    return None


def _of_vegetation(plants: np.ndarray) -> str | None:
    """The same of (7, n) reflectances of vegetation."""
    if plants.shape[1] < LEAST_VEGETATION:
        return None
    _, _, green, red, near_infrared, swir1, swir2 = plants
    no_plant = "which no vegetation is: bands in another order"
    if np.median(red - green) > RED_OVER_GREEN:
        return f"SR_B4 is brighter than SR_B3, {no_plant}"
    if np.median(swir2 - swir1) > SWIR_EXCHANGED:
        return f"SR_B7 is brighter than SR_B6, {no_plant}"
    if np.median(swir1 / near_infrared) > SWIR_OVER_NIR and np.median(swir2) < np.median(near_infrared):
        return f"SR_B6 is far brighter than SR_B5, {no_plant}"
    return None
