"""How far simulated patches are from real ones: `python -m studies.recipe.realism --real NAME=DIR … --out DIR`.

DIR holds GeoTIFFs with the seven bands of Landsat as Collection-2 Level-2 numbers, 40 x 40 pixels or more, as
BigEarthNet-Landsat has them. Every variant of the simulator is compared with every folder, and so is every other
folder: real places differ among themselves.

Figures are those of a patch, in six bands, since the coastal one is missing in many real windows: `FIGURES`. The
distance is the root mean square, over bands and five quantiles, of the difference between quantiles, in standard
deviations of the real figure, at most 3 each. Accuracy (the mean of both recalls) is that of a cross-validated
logistic regression that tells real from simulated: 50 would be like each other. 95 % intervals over squares of 4.8 km.
"""

import csv
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils.arguments import ArgumentParser, user_path
from utils.errors import DataError, run_script
from utils.reporting import reporter

SIDE = 40
SQUARE = 4800.0
"""Side of the squares that the bootstrap draws, metres."""
LAGS = (1, 2, 4, 8)
"""Pixels."""
QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
MOST = 3.0
"""Standard deviations that one difference counts at most."""
LEAST_PATCHES = 20
LEVELS = ("mean", "spread")
"""Figures of how bright patches are; all others are those of texture."""
PROBES = {"statistics": ("mean", "spread", "least", "greatest"), "texture": None}
"""What logistic regressions see; None: all figures of texture."""
TABLE, TEXT = "realism.csv", "realism.md"


class Patches(NamedTuple):
    """n patches without fill."""

    reflectance: np.ndarray
    """(n, 6, 40, 40)."""
    blocks: np.ndarray
    """(n,) the square that each lies in; simulated patches by themselves."""


def main(argv: list[str] | None = None) -> int:
    """Read, simulate, compare, write and print; returns the exit code."""
    parser = ArgumentParser(prog="python -m studies.recipe.realism", description="How far simulated is from real.")
    add = parser.add_argument
    add("--real", nargs="+", required=True, metavar="NAME=DIR", help="folders of real patches")
    add("--out", type=user_path, required=True, metavar="DIR", help="for the results")
    add("--patches", type=int, default=1000, metavar="N", help="of each variant (default: %(default)s)")
    add("--seed", type=int, default=100, metavar="S", help="of the simulator (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if arguments.patches < LEAST_PATCHES:
        parser.error(f"argument --patches: expected {LEAST_PATCHES} or more, got {arguments.patches}")
    from datasets.simulator.constants import VARIANTS
    from utils.files import check_writable, write_text
    from utils.markdown import markdown_table

    given = [text.partition("=") for text in arguments.real]
    if wrong := [text for text, (name, _, place) in zip(arguments.real, given, strict=True) if not (name and place)]:
        parser.error(f"argument --real: expected NAME=DIR, got {wrong[0]}")
    real = {name: figures(read_folder(user_path(place))) for name, _, place in given}
    folder = check_writable(arguments.out)
    simulated = {name: figures(simulated_patches(arguments.patches, arguments.seed, name)) for name in VARIANTS}
    rows = [
        [name, other, len(found.blocks), len(beside.blocks), *compared(found, beside)]
        for name, found in real.items()
        for other, beside in {**simulated, **{key: one for key, one in real.items() if key != name}}.items()
    ]
    header = ["real", "beside it", "real patches", "others", *COLUMNS]
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows([header, *rows])
    write_text(folder / TABLE, lines.getvalue())
    write_text(folder / TEXT, text := markdown_table(header, rows) + "\n")
    reporter.info(text)
    return 0


def read_folder(folder: Path) -> Patches:
    """The centres of all GeoTIFFs of a folder that hold no fill there.

    Raises:
        DataError: for files that are not such patches, or fewer than `LEAST_PATCHES` without fill.
    """
    import rasterio

    from datasets.geotiff import GDAL_OPTIONS, read_patch
    from utils.sensors import OLI

    pixels, blocks = [], []
    count = len(OLI.bands)
    with rasterio.Env(**GDAL_OPTIONS):
        for path in sorted(folder.glob("**/*.tif")):
            patch = read_patch(path, count, count, SIDE)
            top, left = ((length - SIDE) // 2 for length in patch.pixels.shape[1:])
            centre = patch.pixels[:, top : top + SIDE, left : left + SIDE]
            if (centre != 0).all():
                pixels.append(centre)
                blocks.append((patch.crs, *(int(value // SQUARE) for value in patch.center)))
    if len(pixels) < LEAST_PATCHES:
        raise DataError(
            f"{folder}: holds {len(pixels)} patches without fill, needs {LEAST_PATCHES}; give another folder"
        )
    number = {block: index for index, block in enumerate(dict.fromkeys(blocks))}
    return Patches(_reflectance(np.stack(pixels)), np.array([number[block] for block in blocks]))


def simulated_patches(count: int, seed: int, variant: str) -> Patches:
    """Simulated patches without fill."""
    from datasets.simulator.constants import CENTRE
    from datasets.simulator.patches import simulate

    images = simulate(count, seed, variant=variant).images.numpy()[..., CENTRE, CENTRE]
    images = images[(images != 0).all(axis=(1, 2, 3))]
    return Patches(_reflectance(images), np.arange(len(images)))


def _reflectance(numbers: np.ndarray) -> np.ndarray:
    from utils.data_config import REFLECTANCE_OFFSET, REFLECTANCE_SCALE

    return numbers[:, 1:].astype(np.float64) * REFLECTANCE_SCALE + REFLECTANCE_OFFSET


class Figures(NamedTuple):
    """What is compared."""

    values: Mapping[str, np.ndarray]
    """Name to (n, k)."""
    blocks: np.ndarray

    def columns(self, names: Sequence[str]) -> np.ndarray:
        """(n, all columns of these figures)."""
        return np.concatenate([self.values[name] for name in names], axis=1)


def figures(patches: Patches) -> Figures:
    """All figures of the patches; `mean`, `spread`, `least` and `greatest` are the 24 statistics of six bands."""
    image = patches.reflectance
    mean, spread = image.mean((2, 3)), image.std((2, 3))
    z = (image - mean[..., None, None]) / np.maximum(spread, 1e-4)[..., None, None]
    around = (z[:, :, :-2, 1:-1] + z[:, :, 2:, 1:-1] + z[:, :, 1:-1, :-2] + z[:, :, 1:-1, 2:]) / 4
    detail = z[:, :, 1:-1, 1:-1] - around
    strength = detail.std((2, 3))
    values = {"mean": mean, "spread": spread, "least": image.min((2, 3)), "greatest": image.max((2, 3))}
    for lag in LAGS:
        down, right = z[..., lag:, :] * z[..., :-lag, :], z[..., lag:] * z[..., :-lag]
        values[f"autocorrelation at {lag}"] = (down.mean((2, 3)) + right.mean((2, 3))) / 2
    values["detail"] = strength
    values["correlation of bands"] = _correlation(z)
    values["correlation of detail"] = _correlation(detail / np.maximum(strength, 1e-6)[..., None, None])
    values["skewness"] = (z**3).mean((2, 3))
    values["kurtosis"] = (z**4).mean((2, 3)).clip(max=50)
    values["variance by dimension"] = _dimensions(image)
    return Figures(values, patches.blocks)


def _correlation(fields: np.ndarray) -> np.ndarray:
    """(n, 15) products of fields of unit variance, (n, 6, h, w), pair by pair."""
    flat = fields.reshape(*fields.shape[:2], -1)
    first, second = np.triu_indices(fields.shape[1], 1)
    return (flat @ flat.swapaxes(1, 2))[:, first, second] / flat.shape[2]


def _dimensions(image: np.ndarray) -> np.ndarray:
    """(n, 6) shares of a patch's variance along its principal directions, as decimal logarithms."""
    flat = image.reshape(*image.shape[:2], -1)
    flat = flat - flat.mean(2, keepdims=True)
    variance = np.linalg.eigvalsh(flat @ flat.swapaxes(1, 2))[:, ::-1]
    return np.log10(np.maximum(variance / variance.sum(1, keepdims=True), 1e-6))


TEXTURE = (
    *(f"autocorrelation at {lag}" for lag in LAGS), "detail", "correlation of bands", "correlation of detail",
    "skewness", "kurtosis", "variance by dimension",
)  # fmt: skip
COLUMNS = (
    *(f"accuracy by {name}, %" for name in PROBES), "distance of texture", "distance of levels",
    *(f"distance of {name}" for name in TEXTURE),
)  # fmt: skip


def compared(real: Figures, other: Figures) -> list[str]:
    """The columns of one row: accuracies and overall distances with intervals, distances of single figures."""
    from eval.statistics.bootstrap import POSITIVE, SHARE, resample
    from studies.recipe.sensors import shown

    blocks = np.concatenate([real.blocks, other.blocks + real.blocks.max() + 1])

    def cell(statistic: Callable[[np.ndarray], float], scale: float, digits: int, limits: Any) -> str:
        return shown(resample(statistic, blocks, 0, limits=limits).interval(), digits, scale)

    probes = (told_apart(real, other, TEXTURE if names is None else names) for names in PROBES.values())
    cells = [cell(probe, 100.0, 1, SHARE) for probe in probes]
    cells += [cell(distance(real, other, names), 1.0, 2, POSITIVE) for names in (TEXTURE, LEVELS)]
    everyone = np.ones(len(blocks))
    return [*cells, *(f"{distance(real, other, [name])(everyone):.2f}" for name in TEXTURE)]


def told_apart(real: Figures, other: Figures, names: Sequence[str]) -> Callable[[np.ndarray], float]:
    """Mean of both recalls of a logistic regression in five folds, under weights of the patches."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    truth = np.arange(len(real.blocks) + len(other.blocks)) < len(real.blocks)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced"))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    features = np.concatenate([real.columns(names), other.columns(names)])
    right = np.asarray(cross_val_predict(model, features, truth, cv=folds)) == truth

    def recall(weights: np.ndarray, side: np.ndarray) -> float:
        return float(weights[side] @ right[side] / max(weights[side].sum(), 1e-9))

    return lambda weights: (recall(weights, truth) + recall(weights, ~truth)) / 2


def distance(real: Figures, other: Figures, names: Sequence[str]) -> Callable[[np.ndarray], float]:
    """Of quantiles, under weights of the patches."""
    here, there = real.columns(names), other.columns(names)
    scale = np.maximum(here.std(0), 1e-3)
    sides = [(values, values.argsort(0)) for values in (here, there)]

    def measured(weights: np.ndarray) -> float:
        parts = (weights[: len(here)], weights[len(here) :])
        first, second = (_quantiles(*side, part) for side, part in zip(sides, parts, strict=True))
        return float(np.sqrt(np.minimum(((second - first) / scale) ** 2, MOST**2).mean()))

    return measured


def _quantiles(values: np.ndarray, order: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(quantiles, k) of (n, k) under weights (n,)."""
    upto = weights[order].cumsum(0)
    wanted = np.array(QUANTILES)[:, None] * upto[-1]
    rows = (upto[None] < wanted[:, None]).sum(1).clip(max=len(values) - 1)
    return np.take_along_axis(values, np.take_along_axis(order, rows, 0), 0)


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
