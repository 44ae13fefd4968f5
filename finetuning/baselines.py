"""What single pixels tell without an encoder, learned from the same training pixels: the rows beside a fine-tuned map.

Logistic regression and random forest on the bands of a pixel, and random convolutional features at pixel level
(responses of `transformation.random_features` in the 3 x 3 pixels around it, beside the bands) with a logistic
regression. Each may count rare classes more: probabilities are divided by a power of the class's training share, and
the power that is best on the validation part is taken.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from configs.finetuning import PARTS, TEST, TRAIN, VAL
from finetuning.ground import Area, Ground
from finetuning.scores import confusion_by_block, mean_iou
from scenes.products.labelled import UNKNOWN
from transformation.random_features import SIDE, RandomFeatures
from transformation.transformer import ZScoreNormalize
from utils.randomness import derive_seed
from utils.sensors import OLI

MOST_PIXELS = 40_000
"""Training pixels that a baseline is fitted on, at random; a few thousand a class are enough for any of them."""
FILTERS = 128
TREES = 150
POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)
ROWS = 120
"""Of an area, handled at a time."""
WINDOW = 40
"""Side of the images that filters are drawn from."""
FIRST_WINDOWS = 200


class Classifier(Protocol):
    """As scikit-learn's."""

    classes_: np.ndarray

    def fit(self, x: np.ndarray, y: np.ndarray) -> object: ...

    def predict_proba(self, x: np.ndarray) -> np.ndarray: ...


class Pixels(NamedTuple):
    """Labelled pixels of a part."""

    x: np.ndarray
    """(N, F)"""
    y: np.ndarray
    """(N,) class index."""
    block: np.ndarray
    """(N,) square."""


class Baseline(NamedTuple):
    """A row of the table."""

    name: str
    confusions: np.ndarray
    """(squares, K, K) of the test part."""
    power: float
    """Of the class share, that was best on the validation part."""


class PixelData:
    """Features of labelled pixels.

    Args:
        ground: divided.
        normalize: as for the decoder.
        seed: of filters, pixels and trees.
    """

    def __init__(self, ground: Ground, normalize: ZScoreNormalize, seed: int) -> None:
        self.ground, self.normalize, self.seed = ground, normalize, seed
        missing = {band for area in ground.areas for band in area.source.missing}
        self.bands = [at for at, band in enumerate(OLI.bands) if band not in missing]
        self.filters = RandomFeatures(len(self.bands), FILTERS)
        images, valid = self._windows()
        self.filters.fit(images, valid, seed)

    def part(self, name: str, convolved: bool) -> Iterator[Pixels]:
        """The pixels of a part, stripe by stripe."""
        for area in self.ground.areas:
            for top in range(0, area.labels.shape[0], ROWS):
                rows = slice(top, top + ROWS)
                known = (area.part[rows] == PARTS.index(name)) & (area.labels[rows] != UNKNOWN)
                if known.any():
                    x = self._features(area, top, convolved)[:, torch.from_numpy(known)].T.numpy()
                    yield Pixels(x, area.labels[rows][known], area.block[rows][known])

    def training(self, convolved: bool) -> Pixels:
        """At most `MOST_PIXELS` of the training part."""
        counts = int(self.ground.counts(TRAIN).sum())
        share = min(1.0, MOST_PIXELS / counts)
        random = np.random.default_rng(derive_seed(self.seed, "baseline pixels"))
        found = []
        for pixels in self.part(TRAIN, convolved):
            chosen = random.random(len(pixels.y)) < share
            found.append(Pixels(*(values[chosen] for values in pixels)))
        return Pixels(*(np.concatenate(values) for values in zip(*found, strict=True)))

    def _features(self, area: Area, top: int, convolved: bool) -> torch.Tensor:
        """(F, h, w) of some rows."""
        patch = area.frame.patch
        above = patch if convolved and top else 0
        numbers = np.ascontiguousarray(area.numbers[:, top - above : top + ROWS + patch])
        images = self.normalize(torch.from_numpy(numbers[None])).images[:, self.bands]
        height = min(ROWS, area.labels.shape[0] - top)
        bands = images[0, :, above : above + height]
        if not convolved:
            return bands
        with torch.no_grad():
            responses = self.filters(images)[0, :, above : above + height]
        return torch.cat([bands, responses])

    def _windows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Windows that lie in the training part for the most part, as images."""
        places = []
        for number, area in enumerate(self.ground.areas):
            height, width = area.labels.shape
            for top in range(0, height - WINDOW + 1, WINDOW):
                for left in range(0, width - WINDOW + 1, WINDOW):
                    part = (slice(top, top + WINDOW), slice(left, left + WINDOW))
                    seen = (area.numbers[0][part] != 0).mean()
                    if (area.part[part] == 0).mean() > 0.5 and seen > 1 / SIDE:
                        places.append((number, part))
        random = np.random.default_rng(derive_seed(self.seed, "baseline windows"))
        chosen = random.permutation(len(places))[:FIRST_WINDOWS]
        numbers = [self.ground.areas[places[at][0]].numbers[(slice(None), *places[at][1])] for at in chosen]
        images, valid = self.normalize(torch.from_numpy(np.stack(numbers)))
        return images[:, self.bands], valid


def fitted_baselines(ground: Ground, normalize: ZScoreNormalize, seed: int) -> Iterator[Baseline]:
    """Fit and score every row."""
    data = PixelData(ground, normalize, seed)
    forest = RandomForestClassifier(TREES, min_samples_leaf=2, random_state=seed, n_jobs=1)
    rows = {
        "logistic regression": (_logistic(), False),
        "random forest": (forest, False),
        "RCF": (_logistic(), True),
    }
    for name, (model, convolved) in rows.items():
        training = data.training(convolved)
        model.fit(training.x, training.y)
        share = np.bincount(training.y, minlength=len(ground.classes)) / len(training.y)
        yield _scored(name, model, data, convolved, np.maximum(share, 1e-9))


def _logistic() -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=300))


def _scored(name: str, model: Classifier, data: PixelData, convolved: bool, share: np.ndarray) -> Baseline:
    of_val = _confusions(model, data, VAL, convolved, [share**power for power in POWERS])
    best = int(np.argmax([mean_iou(confusions.sum(axis=0)) for confusions in of_val]))
    [of_test] = _confusions(model, data, TEST, convolved, [share ** POWERS[best]])
    return Baseline(name, of_test, POWERS[best])


def _confusions(
    model: Classifier, data: PixelData, part: str, convolved: bool, weights: list[np.ndarray]
) -> list[np.ndarray]:
    """(squares, K, K) of a part, one for each of the weights (K,) that probabilities are divided by."""
    known = np.asarray(model.classes_)
    truth, blocks = [], []
    found: list[list[np.ndarray]] = [[] for _ in weights]
    for pixels in data.part(part, convolved):
        scores = model.predict_proba(pixels.x)
        for into, divisor in zip(found, weights, strict=True):
            into.append(known[(scores / divisor[known]).argmax(axis=1)])
        truth.append(pixels.y)
        blocks.append(pixels.block)
    of_pixels = np.concatenate(truth), np.concatenate(blocks)
    return [confusion_by_block(of_pixels[0], np.concatenate(one), of_pixels[1], len(weights[0])) for one in found]
