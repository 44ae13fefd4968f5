"""Preconditioned L-BFGS for the probe: one pass over the features per iteration serves all labels.

Two-loop recursion of Nocedal and Wright, *Numerical Optimization*, algorithm 7.4, in the coordinates of
`GramPreconditioner`. Labels are independent problems, each with its own history and step; a converged one drops out.
Reading the features is the cost, so an iteration reads them once and evaluates value and gradient at the full step. A
label whose full step fails the curvature condition searches the line with the logits at both ends, which needs no
features, and then pays a second pass.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from classification_models.logistic_loss import Evaluation, LogisticLoss
from classification_models.preconditioner import GramPreconditioner
from utils.errors import DataError

HISTORY = 20
"""Pairs of steps and gradient changes kept."""

CURVATURE = 0.9
"""A step is accepted where the slope along it has fallen to this share of the slope at its beginning."""

LINE_SEARCH_STEPS, LINE_SEARCH_SLOPE = 20, 0.05
"""Most Newton steps along a line, and the share of the first slope at which they end."""

LARGEST_GROWTH = 10.0
"""A Newton step along a line multiplies the step by this at most."""

VALUE_NOISE = 1e-10
"""Relative rounding of a value: rises smaller than this are none."""

INNER = 0.5
"""Share of the tolerance to reach with float32 products, so that the exact evaluation agrees."""


class Solution(NamedTuple):
    """Where P problems ended."""

    point: Tensor  # (P, R, D + 1) float64
    iterations: Tensor  # (P,) int64


class _History:
    """The last pairs (s, y) of P problems and the L-BFGS direction they give."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Tensor, Tensor, Tensor]] = []

    def direction(self, gradient: Tensor) -> Tensor:
        """Minus the approximate inverse Hessian times the gradient, (P, R, D + 1)."""
        q, shares = gradient.clone(), []
        for s, y, inverse in reversed(self._pairs):
            shares.append(inverse * _dot(s, q))
            q -= shares[-1] * y
        if self._pairs:
            s, y, inverse = self._pairs[-1]
            q *= torch.where(inverse > 0, _dot(s, y) / _dot(y, y), 1.0)
        for (s, y, inverse), share in zip(self._pairs, reversed(shares), strict=True):
            q += (share - inverse * _dot(y, q)) * s
        return -q

    def add(self, s: Tensor, y: Tensor) -> None:
        """Take a pair; for a problem whose curvature along it is lost in rounding, a pair without effect."""
        # All problems share the list, so that the recursion stays a few batched operations: a bad pair is neutralised
        # instead of left out.
        product, length = _dot(s, y), _dot(y, y)
        good = product > 1e-12 * length
        self._pairs.append((s, torch.where(good, y, s), torch.where(good, 1 / product, 0.0)))
        del self._pairs[:-HISTORY]

    def keep(self, kept: Tensor) -> None:
        """Forget all but the problems `kept` (P,)."""
        self._pairs = [(s[kept], y[kept], inverse[kept]) for s, y, inverse in self._pairs]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of every problem's vectors, (P, 1, 1)."""
    return (a * b).sum(dim=(1, 2), keepdim=True)


class _State(NamedTuple):
    """The problems still iterated, P' of P."""

    place: Tensor  # (P',) where each stands among all
    point: Tensor  # (P', R, D + 1)
    at: Evaluation
    whitened: Tensor  # (P', R, D + 1) gradient in the coordinates of the preconditioner

    def keep(self, kept: Tensor) -> "_State":
        """Only the problems `kept`, (P',) booleans."""
        return _State(self.place[kept], self.point[kept], self.at.keep(kept), self.whitened[kept])


class PreconditionedLbfgs:
    """Minimise a `LogisticLoss` until every problem is proven to be within `tol` of its optimum."""

    def __init__(self, objective: LogisticLoss, max_iter: int, tol: float, progress: bool = False):
        """Factor the preconditioner.

        Args:
            objective: what to minimise.
            max_iter: most iterations of a problem.
            tol: `LogisticLoss.relative_gap` to end with.
            progress: show bars where stderr is a terminal.
        """
        self.objective, self.max_iter, self.tol = objective, max_iter, tol
        self._progress = progress
        self._preconditioner = GramPreconditioner(objective, progress=progress)

    def minimise(self, problems: Tensor) -> Solution:
        """Fit the problems named (P,).

        Rounding of float32 products is settled by beginning again from an exact evaluation, until that finds every
        problem within `tol`.

        Raises:
            DataError: when the features hold NaN or infinity.
        """
        objective = self.objective
        self._problems, self._point = problems, objective.start()[problems]
        self._iterations = torch.zeros_like(problems)
        place, moved = torch.arange(len(problems), device=problems.device), torch.ones_like(problems, dtype=torch.bool)
        with tqdm(desc="probe", unit="iteration", disable=None if self._progress else True) as self._bar:
            while len(place):
                at = objective.evaluate(self._point[place], problems[place])
                if not torch.isfinite(at.value).all():
                    raise DataError("the features hold NaN or infinity, or values too large to multiply")
                going = (objective.relative_gap(at) > self.tol) & (self._iterations[place] < self.max_iter)
                going &= moved[place]
                place, at = place[going], at.keep(going)
                if len(place):
                    before = self._iterations.clone()
                    self._descend(place, at)
                    moved = self._iterations - before > 1
        return Solution(self._point, self._iterations)

    def _descend(self, place: Tensor, at: Evaluation) -> None:
        """Iterate the problems at `place`, from an exact evaluation, as long as they gain from it."""
        whitened = self._preconditioner.whiten(at.gradient)
        state = _State(place, self._point[place], at, whitened)
        history, moved = _History(), torch.ones_like(place, dtype=torch.bool)
        while True:
            gap = self.objective.relative_gap(state.at)
            self._point[state.place] = state.point
            going = moved & (gap > INNER * self.tol) & (self._iterations[state.place] < self.max_iter)
            if not going.all():
                state = state.keep(going)
                history.keep(going)
            if not going.any():
                return
            state, moved = self._iterate(state, history)
            self._bar.set_postfix(left=len(state.place), gap=f"{float(gap.max()):.0e}", refresh=False)
            self._bar.update()

    def _iterate(self, state: _State, history: _History) -> tuple[_State, Tensor]:
        """One step of every problem in `state`, and which of them found one, (P',) booleans."""
        v_direction = history.direction(state.whitened)
        direction = self._preconditioner.unwhiten(v_direction)
        slope = _dot(state.at.gradient, direction).flatten()
        step, at = self._search(state, direction, slope)
        moved = (slope < 0) & (at.value <= _allowed(state.at.value))
        at = at if moved.all() else at.replace(~moved, state.at.keep(~moved))
        step = torch.where(moved, step, 0.0)[:, None, None]
        whitened = self._preconditioner.whiten(at.gradient)
        history.add(step * v_direction, whitened - state.whitened)
        self._iterations[state.place] += 1
        return state._replace(point=state.point + step * direction, at=at, whitened=whitened), moved

    def _search(self, state: _State, direction: Tensor, slope: Tensor) -> tuple[Tensor, Evaluation]:
        """Step (P',) along the direction of every problem, and the evaluation there."""
        problems, step = self._problems[state.place], torch.ones_like(slope)
        at = self.objective.move(state.at, state.point, direction, problems)
        end_slope = _dot(at.gradient, direction).flatten()
        poor = ~((end_slope.abs() <= CURVATURE * slope.abs()) & (at.value <= _allowed(state.at.value)))
        if poor.any():
            start, point, toward = state.at.keep(poor), state.point[poor], direction[poor]
            line = (start.logits, at.keep(poor).logits - start.logits, point, toward, problems[poor])
            step[poor] = _best_step(lambda t: self.objective.slopes_along(t, *line), slope[poor])
            change = step[poor, None, None] * toward
            at = at.replace(poor, self.objective.move(start, point, change, problems[poor]))
        return step, at


def _allowed(value: Tensor) -> Tensor:
    """The largest value that does not count as a rise: equal but for rounding."""
    return value + VALUE_NOISE * value.abs()


def _best_step(slopes: Callable[[Tensor], tuple[Tensor, Tensor]], first: Tensor) -> Tensor:
    """Where the slope along each line vanishes: Newton's method from 1, kept between where it falls and rises.

    Args:
        slopes: gives first and second derivative (P,) at steps (P,).
        first: (P,) slope at 0.
    """
    step, low, high = torch.ones_like(first), torch.zeros_like(first), torch.full_like(first, torch.inf)
    for _ in range(LINE_SEARCH_STEPS):
        slope, curvature = slopes(step)
        falls = slope < 0
        low, high = torch.where(falls, step, low), torch.where(falls, high, step)
        if (slope.abs() <= LINE_SEARCH_SLOPE * first.abs()).all():
            break
        newton, far = step - slope / curvature, LARGEST_GROWTH * step
        middle = torch.where(high.isinf(), far, (low + high) / 2)
        # A Newton step that leaves the bracket comes from a nearly flat curve; bisection cannot fail there.
        inside = (newton > low) & (newton < high) & (newton <= far)
        step = torch.where(inside, newton, middle)
    return step
