"""The preconditioner of L-BFGS: the Cholesky factor of a curvature that all labels share.

Features of an embedding are strongly correlated, so the Hessian of the logistic loss is ill-conditioned and plain
L-BFGS needs thousands of iterations. The Hessian of a label is Xᵀ diag(p (1 - p)) X / N + penalty. With p (1 - p)
replaced by its mean, one matrix serves all labels: it is factored once and removes the effect of the correlations.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from classification_models.feature_rows import FeatureRows
from classification_models.logistic_loss import LogisticLoss
from utils.devices import give_back_freed_memory
from utils.threads import torch_threads

GRAM_MAX_WIDTH = 20_000
"""Features beyond this many are cut into blocks of equal width, each with a factor of its own.

A block has width^2 float64 numbers (3 GiB here, twice while it is factored), and the products for it cost
N * width^2 / 2 multiply-adds. What blocks leave out costs iterations, not accuracy.
"""

GRAM_CHUNK_BYTES = 256 * 2**20
"""Features visited at a time: enough rows that adding their products to the float64 sum costs little beside them."""

GRAM_MAX_WORK = 2**43
"""N * width^2 up to which all rows enter the products on a CPU: about a minute of one core.

Beyond, evenly spaced rows stand for all of them, at least `GRAM_ROWS_A_FEATURE` times as many as features: enough that
they miss the curvature in no direction by more than a factor of about 4 (Marchenko and Pastur's law). That costs some
more iterations, a tenth where it was tried, not accuracy.
"""

GRAM_ROWS_A_FEATURE = 4

STRIP = 2048
"""Columns of the products computed at a time; what lies above the diagonal strip is left out."""

_SMALLEST_JITTER, _LARGEST_JITTER = 1e-8, 1e-1


def block_edges(width: int, limit: int = GRAM_MAX_WIDTH) -> list[tuple[int, int]]:
    """First and last + 1 column of every block: as few blocks as the limit allows, of equal width."""
    count = math.ceil(width / limit)
    return [(width * block // count, width * (block + 1) // count) for block in range(count)]


def row_spacing(count: int, widths: list[int]) -> int:
    """Of how many rows one enters the products on a CPU, for blocks of these widths."""
    wanted = math.ceil(count * sum(width**2 for width in widths) / GRAM_MAX_WORK)
    return max(1, min(wanted, count // (GRAM_ROWS_A_FEATURE * max(widths))))


class _Block(NamedTuple):
    columns: slice
    factor: Tensor  # (B, B) float64, lower triangular


class GramPreconditioner:
    """L with L L^T = c XᵀX / N + penalty, X centred: the Hessian where every probability has the variance c.

    With u the coefficients, minimising over v = Lᵀ u sees a curvature close to 1 in every direction. The intercept is
    independent of the rest, as features are centred, and has the curvature c.
    """

    def __init__(self, objective: LogisticLoss, limit: int = GRAM_MAX_WIDTH, progress: bool = False):
        """Visit the features at most once, in the precision they come in, and factor.

        Args:
            objective: its features and penalty; c is the mean of p (1 - p) over the labels that vary, where p is the
                label's share.
            limit: widest block.
            progress: show a bar.
        """
        features = objective.features
        share = objective.target.double().mean(dim=0)
        variance = share * (1 - share)
        self._intercept_curvature = float(variance[variance > 0].mean())
        edges = block_edges(features.width, limit)
        taken, grams = _products(features, edges, progress)
        self._blocks = []
        for start, stop in edges:
            # Taken off the list, so that a block's products are freed before the next block is factored.
            gram, columns = grams.pop(0), slice(start, stop)
            _rescale(gram, self._intercept_curvature / taken, features.std[columns])
            gram.diagonal().add_(objective.penalty[columns])
            with torch_threads(features.threads):
                self._blocks.append(_Block(columns, _cholesky(gram)))
            del gram
        give_back_freed_memory()

    def whiten(self, gradient: Tensor) -> Tensor:
        """L⁻¹ g of a gradient (P, R, D + 1): the gradient by v."""
        return self._solve(gradient, transposed=False)

    def unwhiten(self, direction: Tensor) -> Tensor:
        """L⁻ᵀ d of a direction of v (P, R, D + 1): the same direction for the coefficients."""
        return self._solve(direction, transposed=True)

    def _solve(self, vectors: Tensor, transposed: bool) -> Tensor:
        solved = torch.empty_like(vectors)
        for columns, factor in self._blocks:
            matrix = factor.T if transposed else factor
            right = vectors[..., columns].flatten(0, 1).T
            solution = torch.linalg.solve_triangular(matrix, right, upper=transposed)
            solved[..., columns] = solution.T.view(*vectors.shape[:2], -1)
        solved[..., -1] = vectors[..., -1] / math.sqrt(self._intercept_curvature)
        return solved


def _products(features: FeatureRows, edges: list[tuple[int, int]], progress: bool) -> tuple[int, list[Tensor]]:
    """How many rows X were taken, and the lower triangle of XᵀX (B, B) of every block."""
    widths = [stop - start for start, stop in edges]
    every = row_spacing(features.count, widths) if features.device.type == "cpu" else 1
    grams = [torch.zeros(width, width, dtype=torch.float64, device=features.device) for width in widths]
    bar = tqdm(total=features.count, desc="XᵀX", unit="row", disable=None if progress else True, leave=False)
    with bar, torch_threads(features.threads):
        for rows, chunk in features.chunks(features.stored, GRAM_CHUNK_BYTES, every):
            for (start, stop), gram in zip(edges, grams, strict=True):
                _add_lower_products(gram, chunk[:, start:stop])
            bar.update(rows.stop - rows.start)
    return math.ceil(features.count / every), grams


def _rescale(gram: Tensor, factor: float, std: Tensor) -> None:
    """gram (B, B) *= factor / (std stdᵀ), in strips: a matrix of all scales would be as large as this one."""
    scale = factor / std
    for rows, unit in zip(gram.split(STRIP), std.split(STRIP), strict=True):
        rows *= scale / unit[:, None]


def _add_lower_products(gram: Tensor, chunk: Tensor) -> None:
    """gram += chunkᵀ chunk (B, B), but for what lies above the strips of the diagonal."""
    for start in range(0, len(gram), STRIP):
        gram[start:, start : start + STRIP] += chunk[:, start:].T @ chunk[:, start : start + STRIP]


def _cholesky(gram: Tensor) -> Tensor:
    """Factor of a matrix given by its lower triangle; its diagonal is increased until the factorisation succeeds.

    Products in float32 can leave a matrix of dependent features slightly indefinite. A larger diagonal makes it a
    slightly worse preconditioner and changes nothing else.
    """
    jitter = 0.0  # first without: most matrices are positive definite as they are
    while True:
        factor, info = torch.linalg.cholesky_ex(gram)
        if int(info) == 0 or jitter >= _LARGEST_JITTER:
            return factor
        del factor
        grown = max(_SMALLEST_JITTER, 10 * jitter)
        gram.diagonal().mul_((1 + grown) / (1 + jitter))
        jitter = grown
