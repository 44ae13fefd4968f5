"""The mixture-of-experts layer: noisy top-k gate, SwiGLU experts that share V and W2, balance loss.

Dimensions: T tokens of a batch (B * S), D width, E experts, k chosen experts, d expert width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


class NoisyTopKGate(nn.Module):
    """Noisy top-k gating (Shazeer et al. 2017, arXiv:1701.06538, eq. 3-5), computed in float32."""

    def __init__(self, dim: int, experts: int, k: int) -> None:
        super().__init__()
        if not 1 <= k < experts:
            raise ValueError(f"k = {k} must be at least 1 and below the number of experts, {experts}")
        self.k = k
        self.Wg = nn.Linear(dim, experts)
        self.Wnoise = nn.Linear(dim, experts)

    def forward(self, x: Tensor, noise: bool, generator: torch.Generator | None = None) -> Routing:
        """Route (T, D) tokens.

        Args:
            x: (T, D).
            noise: whether to add N(0, 1) * softplus(Wnoise x) to the logits.
            generator: where the normal numbers come from; None means torch's default one.
        """
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            clean = self.Wg(x)
            std = F.softplus(self.Wnoise(x))
            noisy = clean
            if noise:
                noisy = clean + std * torch.randn(clean.shape, generator=generator, device=x.device)
            best, expert_idx = noisy.topk(self.k, dim=-1)
            # With k = 1 a softmax over the one chosen logit would be constant and never train the router.
            values = noisy.softmax(dim=-1).gather(-1, expert_idx) if self.k == 1 else best.softmax(dim=-1)
            gates = torch.zeros_like(noisy).scatter(-1, expert_idx, values)
        return Routing(gates, expert_idx, clean, noisy, std)


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

    def forward(self, x: Tensor, gates: Tensor | None = None) -> Tensor:
        """(T, D) tokens and (T, E) gates to (T, D); without gates the only expert counts fully."""
        hidden = F.silu(self.W(x))
        if gates is not None:
            hidden = hidden.view(-1, self.experts, self.width)
            hidden = (hidden * gates.to(hidden.dtype).unsqueeze(-1)).sum(dim=1)
        out = F.linear(hidden * self.V(x), self.W2.weight)
        if gates is None:
            return out + self.W2.bias
        return out + gates.sum(dim=-1, keepdim=True).to(out.dtype) * self.W2.bias


class MoELayer(nn.Module):
    """Gate and experts; with one expert a plain SwiGLU without gate or balance loss.

    Dropout follows the gated sum with one mask. (The published code draws one mask per chosen expert before
    summing; both have the same mean.)
    """

    def __init__(self, dim: int, width: int, experts: int, k: int, dropout: float) -> None:
        super().__init__()
        self.gate = NoisyTopKGate(dim, experts, k) if experts > 1 else None
        self.experts = SharedSwiGLUExperts(dim, width, experts)
        self.dropout = dropout

    def forward(
        self, x: Tensor, noise: bool, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Routing | None]:
        """(B, S, D) to (B, S, D) and the routing of its B * S tokens (None with one expert)."""
        tokens = x.reshape(-1, x.shape[-1])
        routing = None if self.gate is None else self.gate(tokens, noise, generator)
        out = self.experts(tokens, None if routing is None else routing.gates)
        if self.training and self.dropout > 0.0:
            keep = torch.empty_like(out).bernoulli_(1.0 - self.dropout, generator=generator)
            out = out * keep / (1.0 - self.dropout)
        return out.view(x.shape), routing


def coefficient_of_variation(x: Tensor) -> Tensor:
    """Population standard deviation over mean, of a vector; 0 when all entries are equal."""
    return x.std(correction=0) / (x.mean() + 1e-6)


def expert_load(routing: Routing, published_behaviour: bool = False) -> Tensor:
    """Smooth estimate of how many tokens each expert gets, (E,) (Shazeer et al. 2017, eq. 8-10).

    P(token chooses e) = Phi((clean_e - psi_e) / std_e), where psi_e is the k-th largest noisy logit *excluding e
    itself*: the (k + 1)-th of all for a chosen expert, the k-th for the others. `published_behaviour` swaps the two,
    as the code behind the released weights does.
    """
    k = routing.expert_idx.shape[1]
    top = routing.noisy_logits.topk(k + 1, dim=-1).values
    kth, next_one = top[:, k - 1 : k], top[:, k : k + 1]
    chosen = torch.zeros_like(routing.gates, dtype=torch.bool).scatter(-1, routing.expert_idx, True)
    psi = torch.where(chosen, kth, next_one) if published_behaviour else torch.where(chosen, next_one, kth)
    return torch.special.ndtr((routing.clean_logits - psi) / routing.noise_std).sum(dim=0)


def balance_loss(routing: Routing, published_behaviour: bool = False) -> Tensor:
    """0.01 CV(importance) + 0.01 CV(load) of one layer (scalar).

    Importance is the column sum of the gates (Shazeer et al. 2017, eq. 6). The source squares CV; the paper and the
    published code do not.
    """
    importance = routing.gates.sum(dim=0)
    load = expert_load(routing, published_behaviour)
    return IMPORTANCE_WEIGHT * coefficient_of_variation(importance) + LOAD_WEIGHT * coefficient_of_variation(load)
