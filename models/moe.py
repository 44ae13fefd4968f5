"""The mixture-of-experts layer: noisy top-k gate, SwiGLU experts that share V and W2, balance loss.

Dimensions: T tokens of a batch (B * S), D width, E experts, k chosen experts, d expert width.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.kernels.backend import Backend, backend_for
from models.kernels.padding import pad_columns, pad_rows
from models.noise import LayerNoise

NO_NOISE = LayerNoise()
"""Neither routing noise nor dropout."""

IMPORTANCE_WEIGHT = 0.01
LOAD_WEIGHT = 0.01
"""Weights of the two balance terms (arXiv:2509.10919)."""


class Routing(NamedTuple):
    """What one gate decided for T tokens."""

    gates: Tensor
    """(T, E), k non-zeros a row. Rows sum to 1 for k >= 2; for k = 1 the non-zero is the softmax over all experts."""
    expert_idx: Tensor
    """(T, k) chosen experts, best first."""
    clean_logits: Tensor
    """(T, E) before noise."""
    noisy_logits: Tensor
    """(T, E) H(x) of Shazeer et al. 2017, eq. 4; equal to `clean_logits` where the noise is off."""
    noise_std: Tensor
    """(T, E) softplus(Wnoise x)."""


class Gate(nn.Module):
    """What a MoE layer expects of its gate.

    Attributes:
        sums_to_one: whether the gates of a token sum to 1 by construction, so that nobody has to add them up.
        Wg: from tokens (T, D) to the scores of the experts (T, E).
    """

    sums_to_one: bool
    Wg: nn.Linear

    def forward(self, x: Tensor, normal: Tensor | None = None, backend: Backend | None = None) -> Routing:
        """Route (T, D) tokens.

        Args:
            x: (T, D).
            normal: (T, E) standard normal numbers for routing noise; None routes without noise.
            backend: the kernels; None takes the fastest, here and below.
        """
        raise NotImplementedError


class NoisyTopKGate(Gate):
    """Noisy top-k gating (Shazeer et al. 2017, arXiv:1701.06538, eq. 3-5), computed in float32."""

    def __init__(self, dim: int, experts: int, k: int) -> None:
        super().__init__()
        if not 1 <= k < experts:
            raise ValueError(f"k = {k} must be at least 1 and below the number of experts, {experts}")
        self.k = k
        self.sums_to_one = k > 1  # for k = 1 the gate is a softmax over all experts, of which one is kept
        self.Wg = nn.Linear(dim, experts)
        self.Wnoise = nn.Linear(dim, experts)

    def forward(self, x: Tensor, normal: Tensor | None = None, backend: Backend | None = None) -> Routing:
        """Route (T, D) tokens; (T, E) `normal`, times softplus(Wnoise x), is added to the logits."""
        backend = backend or backend_for(x.device)
        with torch.autocast(x.device.type, enabled=False):
            weight = torch.cat([self.Wg.weight, self.Wnoise.weight])
            both = backend.linear(x.float(), weight, torch.cat([self.Wg.bias, self.Wnoise.bias]))
            clean, spread = both.chunk(2, dim=-1)
            std = F.softplus(spread)
            noisy = clean if normal is None else clean + std * normal
            ranks = expert_ranks(noisy)
            chosen = ranks < self.k
            if self.k == 1:  # a softmax over the one chosen logit would be constant and never train the router
                gates = noisy.softmax(dim=-1) * chosen
            else:
                gates = noisy.masked_fill(~chosen, float("-inf")).softmax(dim=-1)
            return Routing(gates, ranks.argsort(dim=-1)[:, : self.k], clean, noisy, std)


GATES: dict[str, Callable[[int, int, int], Gate]] = {"noisy_top_k": NoisyTopKGate}
"""Kind of gate to what builds it from width D, number of experts E and k. Another kind is one more row."""

GATE = "noisy_top_k"
"""The kind that models are built with (arXiv:2509.10919)."""


def expert_ranks(logits: Tensor) -> Tensor:
    """Place of every expert in its row of (T, E) logits, 0 the largest; of equal ones the first comes first.

    Comparing all pairs needs no sorting kernel, and for 3 to 5 experts is less work.
    """
    experts = logits.shape[-1]
    ahead = logits.unsqueeze(-2) > logits.unsqueeze(-1)  # (T, e, f): f is larger than e
    tied = logits.unsqueeze(-2) == logits.unsqueeze(-1)
    earlier = torch.ones(experts, experts, dtype=torch.bool, device=logits.device).tril(-1)  # f before e
    return (ahead | (tied & earlier)).sum(dim=-1)


def routing_margins(routing: Iterable[Routing | None], patches: int) -> Tensor:
    """How far the closest choice between two experts is from a tie, in every patch: (B,).

    Args:
        routing: of every block, over the tokens of all patches.
        patches: B.
    """
    margins = torch.full((patches,), torch.inf)
    for layer in filter(None, routing):
        k = layer.expert_idx.shape[1]
        best = layer.clean_logits.sort(dim=-1, descending=True).values
        margins = torch.minimum(margins, (best[:, k - 1] - best[:, k]).view(patches, -1).amin(dim=1))
    return margins


class SharedSwiGLUExperts(nn.Module):
    """E SwiGLU experts f_e(x) = W2(SiLU(W_e x) * V x) with one V and one W2 for all of them.

    Since V and W2 are shared, the gated sum needs neither gather nor scatter, and every shape is static:

        sum_e g_e f_e(x) = W2_weight (sum_e g_e SiLU(W_e x) * V x) + (sum_e g_e) W2_bias

    SwiGLU: Shazeer 2020, arXiv:2002.05202; shared weights: arXiv:2407.17783.
    """

    def __init__(self, dim: int, width: int, experts: int) -> None:
        super().__init__()
        self.experts, self.width = experts, width
        self.W = nn.Linear(dim, experts * width)  # rows [e * d, (e + 1) * d) belong to expert e
        self.V = nn.Linear(dim, width)
        self.W2 = nn.Linear(width, dim)

    def forward(
        self,
        x: Tensor,
        gates: Tensor | None = None,
        gates_sum: Tensor | None = None,
        backend: Backend | None = None,
    ) -> Tensor:
        """(T, D) tokens to (T, D).

        Args:
            x: (T, D).
            gates: (T, E); None where the only expert counts fully.
            gates_sum: (T, 1) sums of their rows; None where they are 1.
            backend: as for the gate.
        """
        backend = backend or backend_for(x.device)
        d = backend.expert_width(self.width)  # zeros beyond the true width: SiLU(0) * 0 adds nothing
        weight = torch.cat([pad_rows(self.W.weight, self.experts, d), pad_rows(self.V.weight, 1, d)])
        bias = torch.cat([pad_rows(self.W.bias, self.experts, d), pad_rows(self.V.bias, 1, d)])
        hidden, value = backend.linear(x, weight, bias).split([self.experts * d, d], dim=-1)
        hidden = F.silu(hidden)
        if gates is not None:
            hidden = hidden.unflatten(-1, (self.experts, d))
            hidden = (hidden * gates.to(hidden.dtype).unsqueeze(-1)).sum(dim=1)
        W2 = pad_columns(self.W2.weight, 1, d)
        if gates_sum is None:
            return backend.linear(hidden * value, W2, self.W2.bias)
        return backend.linear(hidden * value, W2, None) + gates_sum * self.W2.bias


class MoELayer(nn.Module):
    """Experts and the gate that chooses among them.

    Dropout follows the gated sum with one mask. (The published code draws one mask per chosen expert before
    summing; both have the same mean.)

    Args:
        gate: None where there is one expert: a plain SwiGLU without balance loss.
        experts: as many as the gate chooses among.
    """

    def __init__(self, gate: Gate | None, experts: SharedSwiGLUExperts) -> None:
        super().__init__()
        self.gate, self.experts = gate, experts

    def forward(
        self, x: Tensor, noise: LayerNoise = NO_NOISE, backend: Backend | None = None
    ) -> tuple[Tensor, Routing | None]:
        """(B, S, D) to (B, S, D) and the routing of its B * S tokens (None with one expert)."""
        backend = backend or backend_for(x.device)
        tokens = x.reshape(-1, x.shape[-1])
        routing = None
        if self.gate is None:
            out = self.experts(tokens, backend=backend)
        else:
            routing = self.gate(tokens, noise.normal, backend)
            gates_sum = None if self.gate.sums_to_one else routing.gates.sum(dim=-1, keepdim=True)
            out = self.experts(tokens, routing.gates, gates_sum, backend)
        if noise.keep is not None:
            out = out * noise.keep
        return out.view(x.shape), routing


def moe_layer(dim: int, width: int, experts: int, k: int, gate: str = GATE) -> MoELayer:
    """The MoE layer of a block.

    Args:
        dim: width D of the tokens.
        width: d of each expert.
        experts: how many; one needs no gate.
        k: experts chosen per token.
        gate: kind of gate, in `GATES`.
    """
    # The gate is built first: seeded weights depend on the order.
    chosen = GATES[gate](dim, experts, k) if experts > 1 else None
    return MoELayer(chosen, SharedSwiGLUExperts(dim, width, experts))


def coefficient_of_variation(x: Tensor) -> Tensor:
    """Population standard deviation over mean, of a vector; 0 when all entries are equal."""
    return x.std(correction=0) / (x.mean() + 1e-6)


def expert_load(routing: Routing, published_behaviour: bool = False, counted: Tensor | None = None) -> Tensor:
    """Smooth estimate of how many tokens each expert gets, (E,) (Shazeer et al. 2017, eq. 8-10).

    P(token chooses e) = Phi((clean_e - psi_e) / std_e), where psi_e is the k-th largest noisy logit *excluding e
    itself*: the (k + 1)-th of all for a chosen expert, the k-th for the others. `published_behaviour` swaps the two,
    as the code behind the released weights does. With (T,) `counted`, tokens count by that weight.
    """
    k = routing.expert_idx.shape[1]
    ranks = expert_ranks(routing.noisy_logits)
    logits = routing.noisy_logits
    kth, next_one = (torch.where(ranks == place, logits, 0.0).sum(dim=-1, keepdim=True) for place in (k - 1, k))
    chosen = ranks < k
    psi = torch.where(chosen, kth, next_one) if published_behaviour else torch.where(chosen, next_one, kth)
    probability = torch.special.ndtr((routing.clean_logits - psi) / routing.noise_std)
    return _weighted_sum(probability, counted)


def expert_importance(routing: Routing, counted: Tensor | None = None) -> Tensor:
    """Column sums of the gates, (E,) (Shazeer et al. 2017, eq. 6), over the tokens that (T,) `counted` says."""
    return _weighted_sum(routing.gates, counted)


def _weighted_sum(values: Tensor, counted: Tensor | None) -> Tensor:
    return values.sum(dim=0) if counted is None else (values * counted.unsqueeze(-1)).sum(dim=0)


def balance_of(importance: Tensor, load: Tensor) -> Tensor:
    """0.01 CV(importance) + 0.01 CV(load) of one layer, from its column sums (scalar).

    The source squares CV; the paper and the published code do not.
    """
    return IMPORTANCE_WEIGHT * coefficient_of_variation(importance) + LOAD_WEIGHT * coefficient_of_variation(load)
