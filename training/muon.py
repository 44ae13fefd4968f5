"""Muon for the matrices of the blocks, AdamW for everything else, as one optimizer.

The update of a matrix is its momentum with all singular values brought near 1 (Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon), scaled to the size of AdamW's (Liu et al. 2025, arXiv:2502.16982), so that
rate and weight decay of AdamW suit it. `torch.optim.Muon` computes the same, one matrix at a time and in bfloat16: ten
times the work on a CPU without bfloat16 units. It can neither take stacked experts one by one, nor leave out a step
that is not finite without waiting for the device.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.moe import Gate, SharedSwiGLUExperts
from models.moe_mae import MOEMAE
from training.unreached_experts import Stack

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration."""
ITERATIONS = 5
SMALLEST_NORM = 1e-7
ADAMW_SIZE = 0.2
"""Root mean square of AdamW's updates, in units of the rate."""


class Matrix(NamedTuple):
    """A parameter that is one matrix, or several of one shape on top of each other."""

    parameter: nn.Parameter
    pieces: int = 1


def block_matrices(model: MOEMAE) -> list[Matrix]:
    """The matrices of attention and experts; each expert's by itself. Gates, embeddings and heads are left out."""
    found = []
    for block in (*model.encoder.layers, *model.decoder_layers):
        gates = {id(p) for module in block.modules() if isinstance(module, Gate) for p in module.parameters()}
        stacked = {id(m.W.weight): m.experts for m in block.modules() if isinstance(m, SharedSwiGLUExperts)}
        found += [Matrix(p, stacked.get(id(p), 1)) for p in block.parameters() if p.ndim == 2 and id(p) not in gates]
    return found


class MuonWithAdamW(torch.optim.Optimizer):
    """One optimizer of two groups: matrices first, then what AdamW has.

    `found_inf`, as fused optimizers read it, holds for both: a step with 1 in it changes nothing. Nothing waits for the
    device.

    Args:
        matrices: for Muon.
        adamw: of all other parameters.
        lr: of Muon; a tensor where steps are captured.
        weight_decay: of Muon.
        lr_factor: of Muon's rate, relative to that of a step.
        stacks: experts that are left alone in a step that no token reached them in.
    """

    grad_scale: Tensor | None = None
    found_inf: Tensor | None = None

    def __init__(
        self,
        matrices: list[Matrix],
        adamw: torch.optim.AdamW,
        lr: float | Tensor,
        weight_decay: float,
        lr_factor: float = 1.0,
        stacks: Iterable[Stack] = (),
    ) -> None:
        parameters = [matrix.parameter for matrix in matrices]
        super().__init__([{"params": parameters, "lr": lr, "weight_decay": weight_decay, "lr_factor": lr_factor}], {})
        self._adamw = adamw
        self._stacks = {id(parameter): stack for stack in stacks for parameter in stack.parameters}
        self._alike: dict[tuple[int, ...], list[Matrix]] = {}
        for matrix in matrices:
            self._alike.setdefault(_pieces(matrix.parameter, matrix).shape[1:], []).append(matrix)
            self.state[matrix.parameter]["momentum"] = torch.zeros_like(matrix.parameter)
        self.param_groups.extend(adamw.param_groups)
        self._share()

    def _share(self) -> None:
        """One state and one set of groups, so that rates, saving and loading are those of one optimizer."""
        self._adamw.state, self._adamw.param_groups = self.state, self.param_groups[1:]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update all parameters that have a gradient; `closure` is not used."""
        self._adamw.grad_scale, self._adamw.found_inf = self.grad_scale, self.found_inf  # pyright: ignore
        self._adamw.step()
        for matrices in self._alike.values():
            self._step([matrix for matrix in matrices if matrix.parameter.grad is not None])

    def _step(self, matrices: list[Matrix]) -> None:
        """One step of matrices of one shape, all at once."""
        if not matrices:
            return
        lr, decay = self.param_groups[0]["lr"], self.param_groups[0]["weight_decay"]
        momenta = [self.state[matrix.parameter]["momentum"] for matrix in matrices]
        gradients = torch.cat([_pieces(matrix.parameter.grad, matrix) for matrix in matrices])
        before = torch.cat([_pieces(momentum, matrix) for momentum, matrix in zip(momenta, matrices, strict=True)])
        after = before.lerp(gradients, 1 - MOMENTUM)
        updates = orthogonalized(gradients.lerp(after, MOMENTUM)) * (ADAMW_SIZE * math.sqrt(max(after.shape[1:])))
        counts = [matrix.pieces for matrix in matrices]
        changed = zip(matrices, momenta, after.split(counts), updates.split(counts), strict=True)
        for matrix, momentum, new, update in changed:
            kept, parameter = self._kept(matrix), matrix.parameter
            _replace(momentum, new.flatten(0, 1), kept)
            _replace(parameter, parameter * (1 - lr * decay) - lr * update.flatten(0, 1), kept)

    def _kept(self, matrix: Matrix) -> Tensor | None:
        """True where values stay as they are, () or (rows, 1); None: nowhere."""
        kept = None if self.found_inf is None else self.found_inf > 0
        stack = self._stacks.get(id(matrix.parameter))
        if stack is None:
            return kept
        rows = len(matrix.parameter)
        alone = stack.unreached().bool().repeat_interleave(rows // stack.count, output_size=rows).unsqueeze(-1)
        return alone if kept is None else alone | kept


def _replace(old: Tensor, new: Tensor, kept: Tensor | None) -> None:
    old.copy_(new if kept is None else torch.where(kept, old, new))


def _pieces(values: Tensor | None, matrix: Matrix) -> Tensor:
    """(pieces, rows, columns) of a parameter, its gradient or its momentum."""
    assert values is not None
    return values.view(matrix.pieces, -1, values.shape[-1])


def orthogonalized(matrices: Tensor) -> Tensor:
    """(M, R, C) with singular values of about 1 (0.7 to 1.2) in place of their own, by Newton-Schulz iterations."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=SMALLEST_NORM)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
