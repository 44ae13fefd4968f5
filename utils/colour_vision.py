"""Colours that can be told apart, also by people with red-green colour blindness."""

import numpy as np

# Linear sRGB to cone responses to Oklab (B. Ottosson, "A perceptual color space for image processing", 2020).
_TO_CONES = np.array(
    [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
     [0.0883024619, 0.2817188376, 0.6299787005]]
)  # fmt: skip
_TO_LAB = np.array(
    [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
     [0.0259040371, 0.7827717662, -0.8086757660]]
)  # fmt: skip
VISIONS = {
    "usual": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                            [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                              [-0.011820, 0.042940, 0.968881]]),
}  # fmt: skip
"""On linear sRGB: Machado, Oliveira and Fernandes, "A physiologically-based model for simulation of color vision
deficiency", 2009, severity 1."""
LEVELS = 9
"""Steps of red, green and blue of the colours that a palette is chosen from."""
LIGHTNESS = (0.45, 0.85)
"""Of a palette's colours in Oklab: they show on white and on black."""


FIRST = np.array([[0.0, 0.45, 0.75]])
"""What a palette begins near: blue."""


def oklab(colours: np.ndarray, vision: str = "usual") -> np.ndarray:
    """(N, 3) sRGB between 0 and 1 to Oklab, in which distances are about those that people see."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    seen = (linear @ VISIONS[vision].T).clip(0, 1)
    return np.cbrt(seen @ _TO_CONES.T) @ _TO_LAB.T


def difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N, M) distance in Oklab between (N, 3) and (M, 3) sRGB colours, for those who tell them apart least."""
    return np.min(
        [np.linalg.norm(oklab(first, vision)[:, None] - oklab(second, vision)[None], axis=-1) for vision in VISIONS],
        axis=0,
    )


def palette(count: int, taken: np.ndarray | None = None) -> np.ndarray:
    """(count, 3) sRGB colours, each as far as there is one from those before it and from those taken, (N, 3)."""
    steps = np.linspace(0, 1, LEVELS)
    known = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    light = oklab(known)[:, 0]
    known = known[(light >= LIGHTNESS[0]) & (light <= LIGHTNESS[1])]
    around = FIRST if taken is None or not len(taken) else taken
    nearest = difference(known, around).min(axis=1)
    chosen = [] if around is not FIRST else [int(nearest.argmin())]
    if chosen:
        nearest = difference(known, known[chosen])[:, 0]
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, difference(known, known[chosen[-1:]])[:, 0])
    return known[chosen[:count]]
