"""Class spectra of the simulator from real BigEarthNet-Landsat patches (`--calibrate`).

A real patch names its classes but not where they are. So pixels are assigned softly, by expectation maximisation
(Dempster, Laird & Rubin 1977) over Gaussian classes in which a pixel can only belong to one of its own patch's labels.
What is written, per class with at least `MIN_PATCHES` patches: the mean spectrum, the covariance of the patches' own
means around it, and the standard deviation within a patch. All other classes keep their stated, assumed values.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio

from datasets.simulator.constants import SPECTRA_FILE
from utils.data_config import REFLECTANCE_OFFSET, REFLECTANCE_SCALE, BigEarthNetInfo
from utils.errors import DataError
from utils.files import write_text
from utils.sensors import OLI

MIN_PATCHES = 10
CLEAR_BLUE = 0.08
"""Blue reflectance above which a pixel is taken for cloud, snow or ice and left out."""
SNOW_INDEX = 0.0
"""(green - SWIR 1) / (green + SWIR 1) above which a pixel that is bright in the NIR is taken for thin snow or ice."""
SNOW_NIR = 0.08
"""NIR reflectance below which such a pixel is water."""
MIN_CLEAR_PIXELS = 200
ITERATIONS = 20
START_SPREAD, START_FLOOR, START_CORRELATION = 0.15, 0.002, 0.8
"""Assumed standard deviations (a share of the mean, and a floor in reflectance) and band correlation."""
RIDGE = 1e-5
"""Added to every variance (reflectance squared), so that a class of few pixels keeps some width."""
MIN_MASS = 40.0
"""Pixels a class needs in a patch for that patch's mean to count."""


class _Patch(NamedTuple):
    pixels: np.ndarray  # (P, 7) clear reflectances
    labels: list[int]  # CORINE indices


def calibrate(folder: Path, target: Path = SPECTRA_FILE) -> dict[str, int]:
    """Rewrite the table of spectra from the patches in `folder`.

    Args:
        folder: holds `images/` and `labels/` in the published layout.
        target: the JSON to rewrite; its assumed spectra are kept.

    Returns:
        Patches used per calibrated class.

    Raises:
        DataError: there is no labelled patch in `folder`.
    """
    table = json.loads(target.read_text(encoding="utf-8"))
    patches = _read(folder)
    if not patches:
        raise DataError(f"{folder}: no labelled patch with clear pixels in images/ and labels/")
    count = np.zeros(43, dtype=int)
    for patch in patches:
        count[patch.labels] += 1
    weights = _assign(patches, *_start(table), free=count >= MIN_PATCHES)
    for index in np.flatnonzero(count >= MIN_PATCHES):
        table["classes"][BigEarthNetInfo.CORINE[index]] = _entry(patches, weights, int(index), table)
    write_text(target, _dump(table) + "\n")
    return {BigEarthNetInfo.CORINE[i]: int(count[i]) for i in np.flatnonzero(count >= MIN_PATCHES)}


def _read(folder: Path) -> list[_Patch]:
    """Clear pixels and labels of every labelled patch."""
    patches = []
    for path in sorted((folder / "labels").glob("*_labels_metadata.json")):
        names = json.loads(path.read_text(encoding="utf-8"))["labels"]
        image = folder / "images" / path.name.replace("_labels_metadata.json", ".tif")
        with rasterio.open(image) as file:
            numbers = file.read().reshape(len(OLI.bands), -1).T
        reflectance = numbers[(numbers > 0).all(1)] * REFLECTANCE_SCALE + REFLECTANCE_OFFSET
        clear = reflectance[_is_clear(reflectance)]
        if len(clear) >= MIN_CLEAR_PIXELS:
            patches.append(_Patch(clear, [BigEarthNetInfo.CORINE.index(name) for name in names]))
    return patches


def _is_clear(reflectance: np.ndarray) -> np.ndarray:
    """(P,) True where a pixel (P, 7) is neither cloud nor snow nor ice."""
    blue, green, nir, swir = reflectance[:, [1, 2, 4, 5]].T
    snow = (green - swir > SNOW_INDEX * (green + swir)) & (nir > SNOW_NIR)
    return (blue < CLEAR_BLUE) & ~snow


def _start(table: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The assumed means (43, 7) and covariances (43, 7, 7), from which the fitted classes start too."""
    entries = [table["classes"][name] for name in BigEarthNetInfo.CORINE]
    mean = np.array([entry["assumed"] for entry in entries])
    std = START_SPREAD * mean + START_FLOOR
    correlation = np.full((len(OLI.bands), len(OLI.bands)), START_CORRELATION)
    np.fill_diagonal(correlation, 1.0)
    return mean, std[:, :, None] * correlation * std[:, None, :]


def _assign(patches: list[_Patch], mean: np.ndarray, covariance: np.ndarray, free: np.ndarray) -> list[np.ndarray]:
    """Each pixel's chances to belong to its patch's labels, (P, labels), after the EM iterations.

    Args:
        patches: the data.
        mean: (43, 7) starting means, changed in place where `free`.
        covariance: (43, 7, 7) starting covariances, likewise.
        free: (43,) classes that are fitted; the others stay as they are and take their pixels.
    """
    weights: list[np.ndarray] = []
    for _ in range(ITERATIONS):
        weights = [_chances(patch, mean, covariance) for patch in patches]
        for index in np.flatnonzero(free).tolist():
            holders = [(p, w[:, p.labels.index(index)]) for p, w in zip(patches, weights, strict=True)
                       if index in p.labels]  # fmt: skip
            pixels = np.concatenate([patch.pixels for patch, _ in holders])
            weight = np.concatenate([chance for _, chance in holders])
            mean[index] = np.average(pixels, axis=0, weights=weight)
            covariance[index] = np.cov(pixels.T, aweights=weight) + RIDGE * np.eye(len(OLI.bands))
    return weights


def _chances(patch: _Patch, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Posterior of the patch's labels at each pixel under equal priors; (P, labels)."""
    score = np.empty((len(patch.pixels), len(patch.labels)))
    for column, index in enumerate(patch.labels):
        factor = np.linalg.cholesky(covariance[index])
        white = np.linalg.solve(factor, (patch.pixels - mean[index]).T)
        score[:, column] = -0.5 * (white**2).sum(0) - np.log(np.diag(factor)).sum()
    score = np.exp(score - score.max(1, keepdims=True))
    return score / score.sum(1, keepdims=True)


def _entry(patches: list[_Patch], weights: list[np.ndarray], index: int, table: dict[str, Any]) -> dict[str, Any]:
    """One class of the table, from the patches in which it has enough pixels."""
    means, within = [], []
    for patch, weight in zip(patches, weights, strict=True):
        if index not in patch.labels:
            continue
        chance = weight[:, patch.labels.index(index)]
        if chance.sum() >= MIN_MASS:
            means.append(np.average(patch.pixels, axis=0, weights=chance))
            within.append(np.average((patch.pixels - means[-1]) ** 2, axis=0, weights=chance))
    covariance = np.cov(np.array(means).T)
    return {
        "source": "real patches",
        "patches": sum(index in patch.labels for patch in patches),
        "assumed": table["classes"][BigEarthNetInfo.CORINE[index]]["assumed"],
        "mean": np.mean(means, axis=0).round(5).tolist(),
        "covariance": covariance.round(8).tolist(),
        "within": np.sqrt(np.mean(within, axis=0)).round(5).tolist(),
    }


def _dump(value: Any, indent: int = 0) -> str:
    """JSON with one object key a line and lists on one line: readable as a table."""
    if not isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    pad = " " * (indent + 2)
    rows = [f"{pad}{json.dumps(key, ensure_ascii=False)}: {_dump(item, indent + 2)}" for key, item in value.items()]
    return "{\n" + ",\n".join(rows) + "\n" + " " * indent + "}"
