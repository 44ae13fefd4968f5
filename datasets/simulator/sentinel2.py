"""What Sentinel-2's MSI would have seen of the simulator's land at OLI's place and moment: 12 bands at 30 m.

Seven of them see what OLI's seven see, taken for equal. The others are **assumed**, not calibrated:

- red edge (B05, B06, B07) and B08 lie between red and near infrared, at a share of the way that is mixed from two
  curves. Bare soil rises linearly with the wavelength; vegetation has risen at 740 nm already (`RISE`). How much of a
  cover is vegetation follows from its mean spectrum, (NDVI - 0.1) / 0.6 within 0 to 1, and differs from patch to patch
  with a standard deviation of `SPREAD`;
- B09, in the water vapour's absorption, is the near infrared times a factor of each patch.

Noise is OLI's of the simulator, less by the square root of how many pixels of a band make one of 30 m.
So the red edge tells about a cover what these rules say: scores of MSI beside OLI's are no measure of the real ones.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from datasets.simulator.constants import CONSTANTS
from datasets.simulator.landscape import class_spectra
from utils.sensors import LIKE_OLI, MSI, OLI

NOISELESS = replace(CONSTANTS, noise=(0.0,) * len(OLI.bands))
"""Of the patches that MSI sees: the same as OLI's but for their noise."""

RISE = {"B05": (0.20, 0.20), "B06": (0.38, 0.75), "B07": (0.59, 0.95), "B08": (0.84, 0.98)}
"""Share of the way from red (665 nm) to near infrared (865 nm): soil, by wavelength; and vegetation."""
SPREAD = 0.15
VAPOUR = 0.05
"""Standard deviation of B09's factor."""
NOISE = (0.0012, 0.0004, 0.0005, 0.0006, 0.0013, 0.0016, 0.0019, 0.0010, 0.0020, 0.0030, 0.0017, 0.0015)
"""Standard deviation, reflectance."""

_RED, _NIR = OLI.common.index("red"), OLI.common.index("nir08")


@cache
def vegetation() -> Tensor:
    """(43,) share of vegetation in every CORINE class."""
    mean, _ = class_spectra()
    red, nir = mean[:, _RED], mean[:, _NIR]
    return (((nir - red) / (nir + red) - 0.1) / 0.6).clamp(0.0, 1.0)


def seen_by_msi(numbers: np.ndarray, ground: Tensor, random: torch.Generator) -> np.ndarray:
    """OLI's seven bands, without noise, as MSI's twelve.

    Args:
        numbers: (n, 7, h, h) uint16 Collection-2 numbers, 0 on fill.
        ground: (n, h, h) uint8, the CORINE class of each pixel.
        random: of what a patch has by itself.

    Returns:
        (n, 12, h, h) uint16 Level-2A numbers, 0 on fill.
    """
    land = torch.from_numpy(numbers.astype(np.float32)) * OLI.scale + OLI.offset
    count, side = len(land), land.shape[-1]
    share = (vegetation() + SPREAD * torch.randn(count, 43, generator=random)).clamp(0.0, 1.0)
    green = share.gather(1, ground.flatten(1).long()).view(count, side, side)
    red, nir = land[:, _RED], land[:, _NIR]
    seen = land.new_empty(count, len(MSI.bands), side, side)
    seen[:, list(LIKE_OLI)] = land
    for band, (soil, leaf) in RISE.items():
        seen[:, MSI.bands.index(band)] = red + torch.lerp(torch.tensor(soil), torch.tensor(leaf), green) * (nir - red)
    factor = 1 + VAPOUR * torch.randn(count, 1, 1, generator=random)
    seen[:, MSI.bands.index("B09")] = nir * factor
    seen += torch.tensor(NOISE)[:, None, None] * torch.randn(seen.shape, generator=random)
    made = ((seen - MSI.offset) / MSI.scale).round().clamp(1, 65535) * torch.from_numpy((numbers != 0).all(axis=1))[
        :, None
    ]
    return made.numpy().astype(np.uint16)
