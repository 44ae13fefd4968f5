"""What simple predictors score on simulated patches: the prior, image statistics, metadata, and an oracle."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from datasets.simulator.constants import CENTRE
from datasets.simulator.patches import SimulatedPatches
from transformation.image_statistics import image_statistics
from utils.data_config import BigEarthNetInfo
from utils.metadata import Acquisitions, encode_metadata, metadata_columns


class BaselineInputs(NamedTuple):
    """Features of n simulated BigEarthNet patches."""

    prior: np.ndarray  # (n, 0)
    statistics: np.ndarray  # (n, 28) mean, std, min, max of each band over the valid central pixels
    metadata: np.ndarray  # (n, 8) sin and cos of week, full hour, lat, lon
    surfaces: np.ndarray  # (n, 43) share of each CORINE class as it is on the ground
    mapped: np.ndarray  # (n, 43) the same as mapped, which the labels follow
    labels: np.ndarray  # (n, 19) bool

    def split(self, n: int) -> tuple["BaselineInputs", "BaselineInputs"]:
        """The first n patches and the others."""
        return BaselineInputs(*(part[:n] for part in self)), BaselineInputs(*(part[n:] for part in self))


def class_labels(labels: Tensor) -> Tensor:
    """43 CORINE labels to the 19 scored classes; (n, 43) bool -> (n, 19) bool."""
    members = torch.zeros(43, len(BigEarthNetInfo.CLASSES), device=labels.device)
    for member, index in BigEarthNetInfo.CORINE_TO_CLASS.items():
        members[member, index] = 1
    return labels.float() @ members > 0


def baseline_inputs(chunks: Iterable[SimulatedPatches]) -> BaselineInputs:
    """Features and labels of simulated patches, in constant memory but for the features."""
    return BaselineInputs(*(np.concatenate(parts) for parts in zip(*map(_inputs, chunks), strict=True)))


def _inputs(chunk: SimulatedPatches) -> BaselineInputs:
    """Features and labels of one chunk."""
    hour = chunk.hour.floor()
    pixels = chunk.images[..., CENTRE, CENTRE].to(torch.int32)
    known = (value.double().cpu().numpy() for value in (chunk.week, hour, chunk.places.lat, chunk.places.lon))
    week, hour, lat, lon = known
    unknown = np.full(len(week), np.nan)  # the simulator draws an hour, no moment: the sun's height is not known
    metadata = encode_metadata(metadata_columns(Acquisitions(week, hour, unknown, lat, lon)))
    return BaselineInputs(
        prior=np.zeros((len(chunk.images), 0)),
        statistics=image_statistics(pixels, (pixels > 0).any(1)).double().cpu().numpy(),
        metadata=metadata.reshape(-1, 8).astype(np.float64),
        surfaces=chunk.surfaces.double().cpu().numpy(),
        mapped=chunk.shares.double().cpu().numpy(),
        labels=class_labels(chunk.labels).cpu().numpy(),
    )


def probabilities(fit_x: np.ndarray, fit_y: np.ndarray, test_x: np.ndarray) -> np.ndarray:
    """(n, L) of one-vs-rest logistic regression (C = 1, standardised; no features: the prior).

    A label that all of the fitted patches have, or none, has its share of them everywhere. A number that is not known
    of a patch, as of one of fill alone, is taken for the mean.
    """
    found = np.tile(fit_y.mean(0), (len(test_x), 1))
    if fit_x.shape[1]:
        test_x = np.where(np.isfinite(test_x), test_x, fit_x.mean(0))
        scaler = StandardScaler().fit(fit_x)
        fit_x, test_x = (np.asarray(scaler.transform(x)) for x in (fit_x, test_x))
        for label in range(fit_y.shape[1]):
            if 0 < fit_y[:, label].mean() < 1:
                model = LogisticRegression(C=1.0, solver="newton-cholesky").fit(fit_x, fit_y[:, label])
                found[:, label] = model.predict_proba(test_x)[:, 1]
    return found


def micro_map(fit_x: np.ndarray, fit_y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray) -> float:
    """Micro mAP in percent of `probabilities`.

    The ranking is pooled over all labels, `average_precision_score(average="micro")`. A label without a positive among
    the fitted patches scores 0 everywhere.
    """
    return 100 * float(average_precision_score(test_y, probabilities(fit_x, fit_y, test_x), average="micro"))


def baseline_table(fit: BaselineInputs, test: BaselineInputs) -> dict[str, float]:
    """Micro mAP in percent of every row of the table."""

    def score(*names: str) -> float:
        fit_x, test_x = (np.hstack([getattr(part, name) for name in names]) for part in (fit, test))
        return micro_map(fit_x, fit.labels, test_x, test.labels)

    return {
        "prior": score("prior"),
        "28 image statistics": score("statistics"),
        "metadata": score("metadata"),
        "statistics + metadata": score("statistics", "metadata"),
        "oracle: true surfaces + metadata": score("surfaces", "metadata"),
        "oracle: mapped cover": score("mapped"),
    }
