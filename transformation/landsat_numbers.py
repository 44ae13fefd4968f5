"""Numbers of any scale as Collection-2 Level-2 digital numbers, and where there are none: one rule for every way in.

Scenes, patches, labelled folders and arrays ask this module what is hidden. The digital numbers that come out of it
are 0 in every band on hidden pixels, and nowhere else: what packs hold, and what the normaliser takes for fill.
"""

from collections.abc import Sequence

import numpy as np

from utils.sensors import OLI

Scale = tuple[float, float]
"""(A, B) of reflectance = number * A + B."""
COLLECTION2: Scale = (OLI.scale, OLI.offset)
LARGEST = 65535
PLAUSIBLE = (-0.25, 2.0)
"""Reflectances that ground, snow and cloud can have."""
LARGEST_BELIEVABLE = 100.0
"""Size of a reflectance beyond which a float is none: a fill value that nothing declares, or damage. Up to there bright
ground is taken for saturated."""
MOSTLY = 0.5
"""Share of reflectances that have to be plausible, or the scale is wrong."""


def hidden_values(
    values: np.ndarray,
    scale: Scale | None,
    *,
    nodata: Sequence[float | None] = (),
    masks: np.ndarray | None = None,
) -> np.ndarray:
    """Where nothing is known of the ground: in any band masked, declared as nodata, no number, or fill.

    Args:
        values: (C, H, W) as stored; a mask of numpy's counts.
        scale: of the values; None where they have no reflectance, as in pictures, so that 0 is black.
        nodata: of every band, or one for all; None and NaN declare nothing beyond what counts anyway.
        masks: (C, H, W) or (H, W) bool, True where the source hides a pixel.

    Returns:
        (H, W) bool.
    """
    hidden = np.asarray(np.ma.getmaskarray(values).any(axis=0))
    values = np.ma.getdata(values)
    if masks is not None:
        hidden |= masks.reshape(-1, *hidden.shape).any(axis=0)
    fills = list(nodata) * (len(values) if len(nodata) == 1 else 1)
    for band, fill in zip(values, fills, strict=False):
        if fill is not None and not np.isnan(fill):
            hidden |= band == _as_stored(fill, values.dtype)
    hidden |= _no_number(values, scale).any(axis=0)
    if scale == COLLECTION2 and values.dtype.kind in "ub":
        hidden |= (values == 0).any(axis=0)
    elif scale is not None:
        # No ground is equally dark in all bands: 0 or -9999 that nothing declares.
        hidden |= (values[0] <= 0) & (values == values[0]).all(axis=0) & (len(values) > 1)
        with np.errstate(invalid="ignore"):
            hidden |= (_exact(values, scale) < 0.5).any(axis=0)  # what the fill 0 stands for, and what lies below it
    return hidden


def without_number(values: np.ndarray, nodata: Sequence[float | None] = (), scale: Scale | None = None) -> np.ndarray:
    """Where a float is no number of any ground although nothing says so: hidden, but nothing that a source means to.

    Args:
        values: (C, H, W) as stored; what a mask of numpy's hides does not count.
        nodata: of every band; NaN declares NaN.
        scale: of the values; None where they have no reflectance: only NaN and infinity are no numbers there.

    Returns:
        (C, H, W) bool.
    """
    numbers = np.ma.getdata(values)
    lost = _no_number(numbers, scale)
    for band, of_band, fill in zip(lost, numbers, nodata, strict=False):
        if fill is not None:
            band &= ~np.isnan(of_band) if np.isnan(fill) else of_band != _as_stored(fill, numbers.dtype)
    return lost & ~np.ma.getmaskarray(values)


def _no_number(values: np.ndarray, scale: Scale | None) -> np.ndarray:
    """(C, H, W) bool: NaN, infinity, or a reflectance that is not to be believed, among floats."""
    if values.dtype.kind != "f":
        return np.zeros(values.shape, bool)
    if scale is None:
        return ~np.isfinite(values)
    low, high = ((limit - scale[1]) / scale[0] for limit in (-LARGEST_BELIEVABLE, LARGEST_BELIEVABLE))
    return ~((values >= low) & (values <= high))  # NaN is neither


def _as_stored(fill: float, dtype: np.dtype) -> float:
    """A fill value as an array of this type holds it: -3.4e38 is another number in float32 than in a text."""
    return float(np.float32(fill)) if dtype == np.float32 and abs(fill) <= np.finfo(np.float32).max else fill


def landsat_numbers(values: np.ndarray, hidden: np.ndarray, scale: Scale) -> np.ndarray:
    """Values of a scale as uint16 digital numbers, from 1 to 65,535; 0 in every band of hidden pixels.

    Args:
        values: (C, H, W) as stored.
        hidden: (H, W), as `hidden_values` says.
        scale: of the values.
    """
    values = np.where(hidden, 0, np.ma.getdata(values))
    if scale != COLLECTION2:
        values = np.rint(_exact(values, scale))
    numbers = np.rint(values).clip(1, LARGEST).astype(np.uint16)
    numbers[:, hidden] = 0
    return numbers


def implausible(values: np.ndarray, scale: Scale) -> tuple[float, float] | None:
    """The range of most reflectances where they are none of any ground, so that the scale is wrong; else None.

    Args:
        values: (C, n) as stored, of pixels that are not known to be hidden.
        scale: of the values.
    """
    if not values.size:
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        reflectance = values.astype(np.float64) * scale[0] + scale[1]
    low, high = PLAUSIBLE
    if ((reflectance >= low) & (reflectance <= high)).mean() >= MOSTLY:
        return None
    found = np.quantile(reflectance, [0.05, 0.95])
    return float(found[0]), float(found[1])


def reflectance_as_numbers(reflectance: np.ndarray) -> np.ndarray:
    """Reflectance as Collection-2 digital numbers that are not rounded."""
    return (reflectance - OLI.offset) / OLI.scale


NO_REFLECTANCE = float(reflectance_as_numbers(np.zeros(())))
"""The number of reflectance 0, about 7,273. Some band is brighter in the middle of any ground (7,492 or more in each of
119 real patches)."""


def _exact(values: np.ndarray, scale: Scale) -> np.ndarray:
    return reflectance_as_numbers(values.astype(np.float64) * scale[0] + scale[1])
