"""The probe's objective, its gradient, and how far from the optimum a point can be at most.

mean_i loss(y_i, w x_i + b) + |w|^2 / (2 C N), the intercept b not penalised: scikit-learn's, divided by C N.

Points are held in *standard coordinates*: u = w * std and the intercept at the features' mean. Whether features are
standardised for the model then only changes the penalty of each coordinate, and no standardised copy is needed.
Several binary labels are problems beside each other (P problems of R = 1 output); a softmax over K classes is a single
problem of R = K outputs. Points, gradients and directions are float64 (P, R, D + 1), the intercept last.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from classification_models.feature_rows import FeatureRows


class Evaluation(NamedTuple):
    """The objective at one point of each of P problems."""

    value: Tensor  # (P,)
    gradient: Tensor  # (P, R, D + 1)
    logits: Tensor  # (N, P * R) float64
    intercept_curvature: Tensor  # (P, R) second derivative by the intercept: mean of p (1 - p)

    def keep(self, kept: Tensor) -> "Evaluation":
        """Only the problems `kept`, (P,) booleans."""
        logits = self.logits[:, kept.repeat_interleave(self.gradient.shape[1])]
        return Evaluation(self.value[kept], self.gradient[kept], logits, self.intercept_curvature[kept])

    def replace(self, where: Tensor, other: "Evaluation") -> "Evaluation":
        """With the problems `where`, (P,) booleans, taken from `other`, which holds only them; changes this one."""
        self.logits[:, where.repeat_interleave(self.gradient.shape[1])] = other.logits
        self.value[where], self.gradient[where] = other.value, other.gradient
        self.intercept_curvature[where] = other.intercept_curvature
        return self


class LogisticLoss:
    """Binary or multinomial logistic loss with an L2 penalty: what the solvers minimise."""

    def __init__(self, features: FeatureRows, target: np.ndarray, C: float, multinomial: bool, scale: bool):
        """Settle the problem.

        Args:
            features: N rows.
            target: (N, K) booleans.
            C: inverse strength of the penalty.
            multinomial: the K columns are one softmax, not K independent labels.
            scale: the model works on standardised features.
        """
        self.features, self.multinomial = features, multinomial
        self.target = torch.from_numpy(np.ascontiguousarray(target, bool)).to(features.device)
        count = self.target.shape[1]
        self.problems, self.outputs = (1, count) if multinomial else (count, 1)
        self.strength = 1.0 / (C * features.count)
        # The model's coefficient is u / unit; on standardised features the two are the same.
        self.unit = torch.ones_like(features.std) if scale else features.std
        self._centre = torch.zeros_like(features.mean) if scale else features.mean
        self.penalty = self.strength / self.unit.square()

    def start(self) -> Tensor:
        """The best point without features, (P, R, D + 1): every intercept at the logit of its label's share."""
        share = self.target.double().mean(dim=0).clamp(1e-300, 1)
        point = torch.zeros(self.problems, self.outputs, self.features.width + 1, dtype=torch.float64)
        point = point.to(self.features.device)
        intercept = share.log() - share.log().mean() if self.multinomial else torch.logit(share, 1e-300)
        point[..., -1] = intercept.view(self.problems, self.outputs)
        return point

    def from_coefficients(self, coef: np.ndarray, intercept: np.ndarray) -> Tensor:
        """The model's coefficients (K, D) and intercepts (K,) as a point (P, R, D + 1)."""
        w, b = (torch.from_numpy(np.array(a, np.float64)).to(self.features.device) for a in (coef, intercept))
        point = torch.cat([w * self.unit, (b + w @ self._centre)[:, None]], dim=1)
        return point.view(-1, self.outputs, self.features.width + 1)

    def to_coefficients(self, point: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """A point (P, R, D + 1) as the model's coefficients (P * R, D) and intercepts (P * R,)."""
        flat = point.reshape(-1, self.features.width + 1)
        w = flat[:, :-1] / self.unit
        return w.cpu().numpy(), (flat[:, -1] - w @ self._centre).cpu().numpy()

    def evaluate(self, point: Tensor, problems: Tensor) -> Evaluation:
        """Value and gradient at a point of each of the problems named, in one visit of the features, all in float64.

        Args:
            point: (P', R, D + 1).
            problems: (P',) indices.
        """
        nowhere = torch.zeros_like(point)
        logits = nowhere.new_zeros(1, 1).expand(self.features.count, point.shape[0] * self.outputs)
        none = Evaluation(nowhere[:, 0, 0], nowhere, logits, nowhere[..., 0])
        return self._visit(none, point, point, problems, torch.float64, exact=True)

    def move(self, at: Evaluation, point: Tensor, change: Tensor, problems: Tensor) -> Evaluation:
        """The same at point + change, from the evaluation at the point, with products in the features' precision.

        Logits and gradient are updated by what changes, so that rounding is as small as the change: near the optimum
        float32 products serve as well as float64 ones, at half the cost.
        """
        return self._visit(at, point + change, change, problems, self.features.stored, exact=False)

    def _visit(
        self, at: Evaluation, point: Tensor, change: Tensor, problems: Tensor, dtype: torch.dtype, exact: bool
    ) -> Evaluation:
        """Evaluate at `point`, which is `change` away from where `at` was taken; `exact` starts from nothing."""
        count, columns = self.features.count, self._columns(problems)
        flat = change.flatten(0, 1)
        w, intercept = (flat[:, :-1] / self.features.std).to(dtype), flat[:, -1]
        logits = torch.empty(at.logits.shape, dtype=torch.float64, device=point.device)

        def contributions(rows: slice, chunk: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            target = self.target[rows][:, columns]
            torch.add((w @ chunk.T).T + intercept, at.logits[rows], out=logits[rows])
            loss, residual, probability = self._loss(logits[rows], target)
            if not exact:
                residual -= self._loss(at.logits[rows], target)[1]
            curvature = (probability - probability.square()).sum(dim=0)
            return loss, curvature, residual.T.to(dtype) @ chunk, residual.sum(dim=0)

        added = torch.zeros_like(flat)
        value, curvature = torch.zeros_like(at.value), torch.zeros_like(intercept)
        for parts in self.features.visit(contributions, dtype):
            for total, part in zip((value, curvature, added[:, :-1], added[:, -1]), parts, strict=True):
                total += part
        added /= count
        added[:, :-1] = added[:, :-1] / self.features.std + self.penalty * flat[:, :-1]
        value = value / count + 0.5 * (self.penalty * point[..., :-1].square()).sum(dim=(1, 2))
        gradient = at.gradient + added.view(point.shape)
        return Evaluation(value, gradient, logits, (curvature / count).view(point.shape[:2]))

    def _columns(self, problems: Tensor) -> Tensor:
        return torch.arange(self.outputs, device=problems.device) if self.multinomial else problems

    def _loss(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Summed loss (P,), its derivative by the logits (n, P * R), and the probabilities (n, P * R)."""
        if self.multinomial:
            probability = logits.softmax(dim=1)
            loss = (logits.logsumexp(dim=1) - logits[target]).sum()[None]
        else:
            probability = logits.sigmoid()
            loss = -logsigmoid(torch.where(target, logits, -logits)).sum(dim=0)
        return loss, probability - target.double(), probability

    def slopes_along(
        self, step: Tensor, start: Tensor, change: Tensor, point: Tensor, direction: Tensor, problems: Tensor
    ) -> tuple[Tensor, Tensor]:
        """First and second derivative (P',) by the step, at point + step * direction; the features are not visited.

        Args:
            step: (P',).
            start: (N, P' * R) logits at the point.
            change: (N, P' * R) how they change with a step of 1.
            point: (P', R, D + 1).
            direction: (P', R, D + 1).
            problems: (P',) indices.
        """
        target = self.target[:, self._columns(problems)]
        logits = start + change * step.repeat_interleave(self.outputs)
        _, residual, probability = self._loss(logits, target)
        first, second = (residual * change).sum(dim=0), (probability * change.square()).sum(dim=0)
        if self.multinomial:
            first = first.sum()[None]
            second = (second.sum() - (probability * change).sum(dim=1).square().sum())[None]
        else:
            second = second - (probability * change).square().sum(dim=0)
        u, du = point[..., :-1], direction[..., :-1]
        moved = u + du * step[:, None, None]
        first = first / self.features.count + (self.penalty * moved * du).sum(dim=(1, 2))
        return first, second / self.features.count + (self.penalty * du.square()).sum(dim=(1, 2))

    def largest_gradient(self, gradient: Tensor) -> Tensor:
        """Largest gradient component by the model's coefficients (P,): 0 at the optimum.

        A component is divided by its feature's root mean square where that exceeds 1, because no solver can push the
        gradient of a large feature as low.
        """
        root_mean_square = torch.hypot(self.unit, self._centre)
        weight = torch.cat([self.unit / root_mean_square.clamp(min=1), self.unit.new_ones(1)])
        return (gradient.abs() * weight).amax(dim=(1, 2))

    def relative_gap(self, at: Evaluation) -> Tensor:
        """Upper bound (P,) of the distance to the smallest value, relative to the value.

        The objective is at least as curved as its penalty, so value - minimum <= sum of gradient^2 / (2 penalty) over
        the coefficients where the intercept is at its best; for what the intercept can still gain, the first term of
        its series is added.
        """
        coefficients = (at.gradient[..., :-1].square() / (2 * self.penalty)).sum(dim=(1, 2))
        smallest = torch.finfo(torch.float64).tiny
        curvature = at.intercept_curvature.clamp(min=smallest)
        intercept = (at.gradient[..., -1].square() / (2 * curvature)).sum(dim=1)
        return (coefficients + intercept) / at.value.clamp(min=smallest)
