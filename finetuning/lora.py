"""Low-rank adapters on the attention's projections (Hu et al. 2022, arXiv:2106.09685), which start as no change."""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from models.encoder import Encoder
from models.moe_mae import MOEMAE
from utils.randomness import generator

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")


class LowRank(nn.Module):
    """W to W + alpha / rank * up @ down; `up` starts at 0.

    Args:
        shape: (rows, columns) of W.
        rank: of what is added.
        alpha: see above.
        random: that `down` is drawn from.
    """

    def __init__(self, shape: tuple[int, int], rank: int, alpha: float, random: torch.Generator) -> None:
        super().__init__()
        rows, columns = shape
        self.down = nn.Parameter(torch.randn(rank, columns, generator=random) / math.sqrt(columns))
        self.up = nn.Parameter(torch.zeros(rows, rank))
        self.scale = alpha / rank

    def forward(self, weight: Tensor) -> Tensor:
        """The adapted weight, of the same shape."""
        return weight + self.scale * (self.up @ self.down)


class Adapters(nn.ModuleDict):
    """All adapters of an encoder, by the path of the projection with `/` for `.`."""


def with_adapters(model: MOEMAE, rank: int, alpha: float, seed: int) -> tuple[MOEMAE, Adapters]:
    """A copy of the model whose attention is adapted, and what is to be trained of it; the rest is frozen."""
    adapted = copy.deepcopy(model).requires_grad_(False)
    adapters = Adapters()
    for name, module in _projections(adapted.encoder).items():
        rows, columns = module.weight.shape
        adapter = LowRank((rows, columns), rank, alpha, generator(seed, "adapters", name)).to(module.weight.device)
        parametrize.register_parametrization(module, "weight", adapter)
        adapters[name.replace(".", "/")] = adapter
    return adapted, adapters


def merged(adapted: MOEMAE) -> MOEMAE:
    """A plain model with the adapters in its weights."""
    plain = MOEMAE(adapted.config, adapted.masking)
    projections = _projections(adapted.encoder)
    for module in projections.values():
        if not parametrize.is_parametrized(module):
            raise ValueError("has no adapters")
    state = {}
    for name, value in adapted.state_dict().items():
        if ".parametrizations.weight." not in name:
            state[name] = value
    for name, module in projections.items():
        state[f"encoder.{name}.weight"] = module.weight.detach()
    plain.load_state_dict(state, strict=True)
    return plain.to(next(adapted.parameters()).device).eval()


def _projections(encoder: Encoder) -> dict[str, nn.Linear]:
    found = {}
    for number, layer in enumerate(list(encoder.layers)[: encoder.blocks_read]):
        for name in PROJECTIONS:
            found[f"layers.{number}.attn.{name}"] = layer.get_submodule(f"attn.{name}")
    return found
