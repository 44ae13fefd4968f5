"""The space that the rows of few patches span, in which a probe of many features is as small as those patches.

The penalty is on the length of the weights alone, so at the optimum they lie in the span of the centred rows: whatever
points out of it costs and changes no training logit (the representer theorem). Centred rows are L Qᵀ, by a QR
decomposition of their transpose, with L (N, N) and orthonormal columns Q (D, N). Fitted on the rows of L, the optimum v
gives the weights Q v of the features themselves, for every label and every C. Unlike the eigenvectors of the inner
products, Householder reflections lose nothing to rounding where features are dependent or their scales far apart.
"""

from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from classification_models.feature_rows import FeatureRows
from utils.errors import DataError
from utils.threads import torch_threads

FEWEST_FEATURES_A_ROW = 2
"""Features per row from which the decomposition costs less than a preconditioner of all features, at every size."""


def worth_it(rows: int, features: int) -> bool:
    """Whether `auto` fits in the space of rows."""
    return features >= FEWEST_FEATURES_A_ROW * rows


class RowSpace:
    """The decomposition of one set of patches.

    Attributes:
        rows: (N, N) float64, the training patches in this space.
    """

    def __init__(self, features: FeatureRows, scale: bool):
        """Visit the features once and decompose them, on their device.

        Args:
            features: (N, D), with N <= D.
            scale: the probe works on standardised features.

        Raises:
            DataError: when the features hold NaN or infinity.
        """
        self._centre, self._unit = features.mean, features.std if scale else torch.ones_like(features.std)
        self._scale = scale
        columns = torch.empty(features.count, features.width, dtype=torch.float64, device=features.device).T
        for rows, chunk in features.chunks(torch.float64):
            columns[:, rows] = (chunk / self._unit).T
        if not torch.isfinite(columns).all():
            raise DataError("the features hold NaN or infinity, or values too large to multiply")
        with torch_threads(features.threads):
            self._reflections, self._factors = torch.geqrf(columns)
        self.rows = np.ascontiguousarray(self._reflections[: features.count].triu().T.cpu().numpy())

    def project(self, x: np.ndarray) -> np.ndarray:
        """Other patches (M, D) in this space, (M, N): what a probe fitted in it can tell of them."""
        other = (torch.from_numpy(np.array(x, np.float64)).to(self._centre) - self._centre) / self._unit
        turned = torch.ormqr(self._reflections, self._factors, other.T, transpose=True)
        return np.ascontiguousarray(turned[: len(self.rows)].T.cpu().numpy())

    def weights(self, coef: np.ndarray) -> np.ndarray:
        """Weights (K, N) of a probe in this space as those of the features, (K, D)."""
        padded = torch.zeros(len(self._centre), len(coef), dtype=torch.float64, device=self._centre.device)
        padded[: coef.shape[1]] = torch.from_numpy(np.array(coef.T, np.float64)).to(padded)
        return np.ascontiguousarray(torch.ormqr(self._reflections, self._factors, padded).T.cpu().numpy())

    def to_features(self, model: LogisticRegression | OneVsRestClassifier) -> None:
        """Turn regressions that were fitted on `rows` into regressions on the features, in place."""
        members: list[Any] = getattr(model, "estimators_", [model])
        coef = self.weights(np.concatenate([member.coef_ for member in members]))
        # Rows were centred. Standardised features are centred again before prediction, others are not.
        shift = np.zeros(len(coef)) if self._scale else coef @ self._centre.cpu().numpy()
        ends = np.cumsum([len(member.coef_) for member in members])
        for member, stop in zip(members, ends, strict=True):
            own = slice(stop - len(member.coef_), stop)
            numbers = {"coef_": coef[own], "intercept_": member.intercept_ - shift[own]}
            vars(member).update(numbers, n_features_in_=coef.shape[1])
        vars(model)["n_features_in_"] = coef.shape[1]
