"""Whether a scene's numbers are Collection-2 Level-2 surface reflectance: what a wrong product shows in its pixels."""

import re

import numpy as np
from rasterio.windows import Window

from scenes.input.product import Scene
from scenes.input.reader import SceneReader
from scenes.input.virtual_files import shown
from transformation.band_order import LEAST_VEGETATION, VEGETATION_NIR, order_problem, vegetation
from transformation.landsat_numbers import COLLECTION2, NO_REFLECTANCE, implausible
from transformation.present_bands import PresentBands
from utils.errors import DataError
from utils.sensors import OLI

SAMPLES, SAMPLE_SIDE = 5, 256
"""A scene is looked at in SAMPLES x SAMPLES squares of SAMPLE_SIDE pixels, spread evenly."""
LARGEST_REFLECTANCE = 2.0
"""Floats whose middle 98 % lie between minus and plus this are reflectance."""
DARKEST_BLUE = -0.0075
"""Median reflectance of SR_B2 where the NIR is no water's, below which numbers are scaled otherwise: 0.002 or more in
each of 119 real patches; light at the sensor without its air reads -0.01 to -0.03."""
ORDER_FIX = "name them with --bands, in the order SR_B1..SR_B7"
RED_EDGE_FIX = "give Landsat's bands, or those of Sentinel-2 nearest to them (B01, B02, B03, B04, B8A, B11, B12)"
SCALE_FIX = "if you know how they are scaled, state it: --scale A,B for reflectance = value * A + B"


def check_numbers(reader: SceneReader) -> list[str]:
    """Refuse numbers that the model does not know.

    Signs beside the type: surface reflectance is not negative in most pixels of every band; over vegetation its green
    is brighter than its coastal blue (in all 87 of 119 real patches with vegetation), where at-sensor light has the
    blue of the air over it. A stated scale answers what is asked about the scale; what it makes of the numbers, and
    the order of the bands, are judged alike.

    Returns:
        Doubts under a stated scale, one line each.

    Raises:
        DataError: with the reason and the fix; or when nothing of the scene is visible.
    """
    scene = reader.scene
    kinds = sorted({band.dtype for band in scene.bands})
    if scene.scale is not None and (found := implausible(_sample(reader, declared=True), scene.scale)):
        raise DataError(
            f"{shown(scene.path)}: reflectance = value * {scene.scale[0]:g} + {scene.scale[1]:g} gives "
            f"{found[0]:.3g} to {found[1]:.3g}, where 0 to 1 are expected; correct --scale"
        )
    values = _sample(reader)
    if not values.size:
        raise DataError(f"{shown(scene.path)}: all of it is fill, cloud or shadow; give another scene")
    if scene.scale is None:
        _check_stored(scene, kinds, values)
    factor, offset = scene.scale or COLLECTION2
    reflectance = np.full((len(OLI.bands), values.shape[1]), np.nan, np.float32)  # of bands that the scene has not
    reflectance[list(PresentBands.of(scene.sensor).places)] = values * np.float32(factor) + np.float32(offset)
    if what := order_problem(reflectance):
        fix = RED_EDGE_FIX if "red edge" in what else ORDER_FIX
        raise DataError(f"{shown(scene.path)}: {_in_names_of(scene, what)}; {fix}")
    doubt = _in_names_of(scene, _light_at_the_sensor(reflectance) or "")
    if doubt and scene.scale is None:
        raise DataError(f"{shown(scene.path)}: {doubt}; give the Level-2 product; {SCALE_FIX}")
    return [f"{doubt}; what is said of its scale makes it surface reflectance"] if doubt else []


def _in_names_of(scene: Scene, text: str) -> str:
    """A sentence that names OLI's bands by number, which other sensors number otherwise."""
    if scene.sensor is OLI:
        return text
    return re.sub(r"SR_B(\d)", lambda found: OLI.common[int(found[1]) - 1], text)


def _check_stored(scene: Scene, kinds: list[str], values: np.ndarray) -> None:
    """Judge (bands, n) numbers of visible pixels by what Collection-2 Level-2 stores."""
    if values.dtype.kind == "f":
        low, high = np.percentile(values, (1, 99))
        if max(-low, high) <= LARGEST_REFLECTANCE:
            raise DataError(
                f"{shown(scene.path)}: holds reflectance ({low:.2f} to {high:.2f}), not Collection-2 digital numbers; "
                "give the product's own files, or --scale 1,0"
            )
    if kinds != ["uint16"]:
        raise DataError(
            f"{shown(scene.path)}: holds {', '.join(kinds)} values, Collection-2 Level-2 numbers are uint16; "
            f"{SCALE_FIX}"
        )
    if np.median(values, axis=1).max() < NO_REFLECTANCE:
        raise DataError(
            f"{shown(scene.path)}: most numbers of every band are below {NO_REFLECTANCE:,.0f}, reflectance 0 in "
            f"Collection-2 Level-2: Level-1 or older numbers, or reflectance * 10,000; give the Level-2 product; "
            f"{SCALE_FIX}"
        )


def _light_at_the_sensor(reflectance: np.ndarray) -> str | None:
    """What tells (7, n) reflectances, NaN in missing bands, from those of the surface; None where nothing does."""
    coastal, blue, green, _, near_infrared = reflectance[:5]
    land = blue[near_infrared > VEGETATION_NIR]
    if land.size >= LEAST_VEGETATION and np.median(land) < DARKEST_BLUE:
        return (
            f"SR_B2 is below reflectance 0 ({np.median(land):.3f}) on most of the land: Level-1 numbers (light at the "
            "sensor), or another scale"
        )
    plants = vegetation(reflectance)
    if plants.sum() >= LEAST_VEGETATION and np.median(coastal[plants] - green[plants]) > 0:
        return (
            "vegetation is brighter in SR_B1 than in SR_B3: Level-1 numbers (light at the sensor), or bands in another "
            "order"
        )
    return None


def _sample(reader: SceneReader, declared: bool = False) -> np.ndarray:
    """(bands, n) values of visible pixels, or of those that the files do not declare hidden, whatever their scale."""
    grid = reader.scene.grid
    parts = []
    for top in _starts(grid.height):
        for left in _starts(grid.width):
            window = Window.from_slices(
                (top, min(top + SAMPLE_SIDE, grid.height)), (left, min(left + SAMPLE_SIDE, grid.width))
            )
            values = reader.read_values(window)
            hidden = reader.declared_hidden(values, window) if declared else reader.hidden(values, window)
            parts.append(values[:, ~hidden])
    return np.concatenate(parts, axis=1)


def _starts(side: int) -> list[int]:
    return sorted({round(start) for start in np.linspace(0, max(0, side - SAMPLE_SIDE), SAMPLES)})
