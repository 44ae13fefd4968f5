"""Whether a scene's numbers are Collection-2 Level-2 surface reflectance: what a wrong product shows in its pixels."""

import numpy as np
from rasterio.windows import Window

from scenes.input.product import Scene
from scenes.input.reader import SceneReader
from utils.data_config import REFLECTANCE_OFFSET, REFLECTANCE_SCALE
from utils.errors import DataError

SAMPLES, SAMPLE_SIDE = 5, 256
"""A scene is looked at in SAMPLES x SAMPLES squares of SAMPLE_SIDE pixels, spread evenly."""
NO_REFLECTANCE = -REFLECTANCE_OFFSET / REFLECTANCE_SCALE
"""The number of reflectance 0, about 7,273."""
LARGEST_REFLECTANCE = 2.0
"""Floats whose middle 98 % lie between minus and plus this are reflectance."""
VEGETATION_INDEX, VEGETATION_NIR = 0.5, 0.1
"""(NIR - red) / (NIR + red) and NIR reflectance above which a pixel is taken for vegetation."""
LEAST_VEGETATION = 500
"""Pixels needed to judge by."""
BLUES_APART = 0.05
"""Median difference of coastal blue and blue, in reflectance, that is another band's: 0.03 at most in real patches."""
BRIGHT_RED, RED_OVER_NIR, ODD_SHARE = 0.15, 1.3, 0.2
"""No more than this share of a scene is so bright in the red and so much darker in the NIR."""
DARKEST_BLUE = -0.0075
"""Median reflectance of SR_B2 where the NIR is no water's, below which numbers are scaled otherwise: 0.002 or more in
each of 119 real patches; light at the sensor without its air reads -0.01 to -0.03."""
SNOW_GREEN = 0.3
"""Green reflectance from which on it may be snow or cloud, which can be."""
STORED_SCALE = "--scale 0.0000275,-0.2"
SCALE_FIX = "if you know how they are scaled, state it: --scale A,B for reflectance = value * A + B"


def check_numbers(reader: SceneReader) -> None:
    """Refuse numbers that the model does not know, unless the user has stated their scale.

    Signs beside the type: surface reflectance is not negative in most pixels of every band; over vegetation its green
    is brighter than its coastal blue (in all 87 of 119 real patches with vegetation), where at-sensor light has the
    blue of the air over it; the two blues are alike, and bright red ground is about as bright in the NIR.

    Raises:
        DataError: with the reason and the fix; or when nothing of the scene is visible.
    """
    scene = reader.scene
    kinds = sorted({band.dtype for band in scene.bands})
    values = _sample(reader)
    if not values.size:
        raise DataError(f"{scene.path}: all of it is fill, cloud or shadow; give another scene")
    if scene.scale is not None:
        return
    if values.dtype.kind == "f":
        low, high = np.percentile(values, (1, 99))
        if max(-low, high) <= LARGEST_REFLECTANCE:
            raise DataError(
                f"{scene.path}: holds reflectance ({low:.2f} to {high:.2f}), not Collection-2 digital numbers; "
                "give the product's own files, or --scale 1,0"
            )
    if kinds != ["uint16"]:
        raise DataError(
            f"{scene.path}: holds {', '.join(kinds)} values, Collection-2 Level-2 numbers are uint16; {SCALE_FIX}"
        )
    _check_range(scene, values)


def _check_range(scene: Scene, values: np.ndarray) -> None:
    """Judge (7, n) uint16 numbers of visible pixels."""
    if np.median(values, axis=1).max() < NO_REFLECTANCE:
        raise DataError(
            f"{scene.path}: most numbers of every band are below {NO_REFLECTANCE:,.0f}, reflectance 0 in Collection-2 "
            f"Level-2: Level-1 or older numbers, or reflectance * 10,000; give the Level-2 product; {SCALE_FIX}"
        )
    reflectance = values * np.float32(REFLECTANCE_SCALE) + np.float32(REFLECTANCE_OFFSET)
    coastal, blue, green, red, near_infrared = reflectance[:5]
    odd = np.median(np.abs(coastal - blue)) > BLUES_APART
    reddish = (green < SNOW_GREEN) & (red > BRIGHT_RED) & (red > RED_OVER_NIR * near_infrared)
    if odd or reddish.mean() > ODD_SHARE:
        raise DataError(
            f"{scene.path}: {'SR_B1 and SR_B2 are far apart' if odd else 'SR_B4 is far brighter than SR_B5'}, which no "
            f"ground is: bands in another order; name them with --bands; if it is right, state {STORED_SCALE}"
        )
    index = (near_infrared - red) / np.maximum(near_infrared + red, REFLECTANCE_SCALE)
    land = blue[near_infrared > VEGETATION_NIR]
    if land.size >= LEAST_VEGETATION and np.median(land) < DARKEST_BLUE:
        raise DataError(
            f"{scene.path}: SR_B2 is below reflectance 0 ({np.median(land):.3f}) on most of the land: Level-1 numbers "
            f"(light at the sensor), or another scale; give the Level-2 product; if it is right, state {STORED_SCALE}"
        )
    plants = values[:, (index > VEGETATION_INDEX) & (near_infrared > VEGETATION_NIR)].astype(np.int32)
    if plants.shape[1] >= LEAST_VEGETATION and np.median(plants[0] - plants[2]) > 0:
        raise DataError(
            f"{scene.path}: vegetation is brighter in SR_B1 than in SR_B3: Level-1 numbers (light at the sensor), or "
            f"bands in another order; give the Level-2 product or --bands; if it is right, state {STORED_SCALE}"
        )


def _sample(reader: SceneReader) -> np.ndarray:
    """(7, n) values of visible pixels."""
    grid = reader.scene.grid
    parts = []
    for top in _starts(grid.height):
        for left in _starts(grid.width):
            window = Window.from_slices(
                (top, min(top + SAMPLE_SIDE, grid.height)), (left, min(left + SAMPLE_SIDE, grid.width))
            )
            values = reader.read_values(window)
            parts.append(values[:, ~reader.hidden(values, window)])
    return np.concatenate(parts, axis=1)


def _starts(side: int) -> list[int]:
    return sorted({round(start) for start in np.linspace(0, max(0, side - SAMPLE_SIDE), SAMPLES)})
