"""QA_PIXEL of Landsat Collection 2: which pixels show the ground (USGS Science Product Guide, table "QA_PIXEL")."""

import numpy as np

FILL, DILATED_CLOUD, CIRRUS, CLOUD, CLOUD_SHADOW = range(5)
"""Bits; those above (snow, clear, water, confidences) hide nothing."""
HIDING_BITS = sum(1 << bit for bit in (FILL, DILATED_CLOUD, CIRRUS, CLOUD, CLOUD_SHADOW))


def hidden_pixels(qa: np.ndarray) -> np.ndarray:
    """Where fill, dilated cloud, cirrus, cloud or cloud shadow hide the ground: uint16 of any shape to bool."""
    return (qa & HIDING_BITS) != 0
