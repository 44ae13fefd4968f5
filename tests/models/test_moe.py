"""The gate, the experts and the balance loss, by hand values and by a plain loop."""

import pytest
import torch
import torch.nn.functional as F
from balance import balance_loss

from models.kernels.backend import Backend
from models.moe import (
    GATES,
    Gate,
    MoELayer,
    NoisyTopKGate,
    Routing,
    coefficient_of_variation,
    expert_load,
    moe_layer,
)
from models.noise import LayerNoise, LayerNoiseBuffers
from utils.randomness import generator


def make_layer(experts=4, k=2, dim=12, width=7, seed=0) -> MoELayer:
    torch.manual_seed(seed)
    return moe_layer(dim, width, experts, k)


def some_tokens(dim=12, count=20) -> torch.Tensor:
    return torch.randn(2, count // 2, dim, generator=generator(0, "tokens"))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_fast_layer_equals_a_plain_loop(k: int) -> None:
    layer, x = make_layer(k=k).eval(), some_tokens()
    out, routing = layer(x)
    W, V, W2 = layer.experts.W, layer.experts.V, layer.experts.W2
    for t, token in enumerate(x.reshape(-1, 12)):
        expected = torch.zeros(12)
        logits = layer.gate.Wg(token)
        chosen = logits.argsort(descending=True)[:k]
        weights = logits.softmax(0)[chosen] if k == 1 else logits[chosen].softmax(0)
        for e, weight in zip(chosen.tolist(), weights, strict=True):
            rows = slice(e * 7, (e + 1) * 7)
            hidden = F.silu(W.weight[rows] @ token + W.bias[rows]) * V(token)
            expected += weight * W2(hidden)
        torch.testing.assert_close(out.reshape(-1, 12)[t], expected, atol=1e-6, rtol=1e-5)
        assert routing.expert_idx[t].tolist() == chosen.tolist()


@pytest.mark.parametrize("noise", [False, True])
def test_gates_sum_to_one_with_k_nonzeros(noise: bool) -> None:
    noises = LayerNoise(torch.randn(20, 5, generator=generator(1, "noise")) if noise else None)
    _, routing = make_layer(experts=5, k=2)(some_tokens(), noises)
    assert ((routing.gates > 0).sum(dim=1) == 2).all()
    torch.testing.assert_close(routing.gates.sum(dim=1), torch.ones(20))
    best = routing.noisy_logits.gather(1, routing.expert_idx)
    assert (best[:, 0] >= best[:, 1]).all()
    assert torch.equal(routing.clean_logits, routing.noisy_logits) is not noise


def test_top_one_gate_lets_the_router_learn() -> None:
    layer = make_layer(k=1)
    out, routing = layer(some_tokens())
    torch.testing.assert_close(routing.gates.max(dim=1).values, routing.clean_logits.softmax(-1).max(dim=1).values)
    out.square().sum().backward()
    assert layer.gate.Wg.weight.grad.abs().max() > 1e-4


def test_one_expert_is_a_plain_swiglu() -> None:
    layer, x = make_layer(experts=1).eval(), some_tokens()
    out, routing = layer(x, LayerNoise(normal=torch.randn(len(x[0]) * 2, 3)))
    experts = layer.experts
    assert routing is None
    assert not any("gate" in name for name, _ in layer.named_parameters())
    torch.testing.assert_close(out, experts.W2(F.silu(experts.W(x)) * experts.V(x)))


def test_permuting_experts_changes_nothing() -> None:
    layer, x = make_layer().eval(), some_tokens()
    before, routing = layer(x)
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        for parameter in (layer.gate.Wg.weight, layer.gate.Wg.bias, layer.gate.Wnoise.weight, layer.gate.Wnoise.bias):
            parameter.copy_(parameter[order].clone())
        layer.experts.W.weight.copy_(layer.experts.W.weight.view(4, 7, 12)[order].reshape(28, 12).clone())
        layer.experts.W.bias.copy_(layer.experts.W.bias.view(4, 7)[order].reshape(28).clone())
    after, permuted = layer(x)
    torch.testing.assert_close(after, before)
    torch.testing.assert_close(permuted.gates, routing.gates[:, order])
    torch.testing.assert_close(balance_loss(permuted), balance_loss(routing))


def test_noise_has_the_learned_spread() -> None:
    gate = NoisyTopKGate(6, 3, 2)
    x = torch.randn(1, 6).expand(40_000, -1)
    routing = gate(x, torch.randn(len(x), 3, generator=generator(0, "noise")))
    spread = (routing.noisy_logits - routing.clean_logits).std(dim=0)
    torch.testing.assert_close(spread, F.softplus(gate.Wnoise(x[0])), rtol=0.02, atol=0)


def test_dropout_is_one_mask_with_the_right_mean() -> None:
    layer, x = make_layer(), some_tokens(count=4000)
    buffers = LayerNoiseBuffers([4], 12, batch=2, tokens=2000, device="cpu", noise=False, dropout=0.25)
    dropped, _ = layer(x, buffers.fill(generator(0, "dropout"))[0])
    whole, _ = layer(x)
    kept = dropped != 0
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.01)
    torch.testing.assert_close(dropped[kept], whole[kept] / 0.75)


@pytest.mark.parametrize(("published", "psi"), [(False, (1.0, 1.0, 2.0, 2.0)), (True, (2.0, 2.0, 1.0, 1.0))])
def test_load_thresholds_by_hand(published: bool, psi: tuple[float, ...]) -> None:
    """H = 3, 2, 1, 0 and k = 2: Shazeer's thresholds exclude the expert itself; the published ones are swapped."""
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    gates = torch.cat([logits[:, :2].softmax(1), torch.zeros(1, 2)], dim=1)
    routing = Routing(gates, torch.tensor([[0, 1]]), logits, logits, torch.full((1, 4), 0.5))
    normal = torch.distributions.Normal(0.0, 1.0)
    expected = normal.cdf((logits[0] - torch.tensor(psi)) / 0.5)
    torch.testing.assert_close(expert_load(routing, published), expected)


def test_variation_and_balance_by_hand() -> None:
    assert coefficient_of_variation(torch.tensor([1.0, 3.0])).item() == pytest.approx(0.5, rel=1e-5)
    assert coefficient_of_variation(torch.full((4,), 2.5)).item() == 0.0


@pytest.mark.parametrize(("experts", "k"), [(2, 2), (3, 5), (4, 0)])
def test_impossible_k_is_refused(experts: int, k: int) -> None:
    with pytest.raises(ValueError, match="number of experts"):
        NoisyTopKGate(8, experts, k)


class RoundRobinGate(Gate):
    """Token t goes to expert t mod E, with half the weight."""

    sums_to_one = False

    def __init__(self, dim: int, experts: int, k: int) -> None:
        super().__init__()
        self.experts = experts

    def forward(self, x: torch.Tensor, normal: torch.Tensor | None = None, backend: Backend | None = None) -> Routing:
        turns = torch.arange(len(x)) % self.experts
        gates = 0.5 * F.one_hot(turns, self.experts)
        return Routing(gates, turns[:, None], gates, gates, torch.ones_like(gates))


def test_another_kind_of_gate_is_one_row_of_the_table(monkeypatch) -> None:
    monkeypatch.setitem(GATES, "round_robin", RoundRobinGate)
    layer, x = moe_layer(12, 7, 3, 1, gate="round_robin"), some_tokens()
    out, routing = layer(x)
    assert routing.expert_idx.flatten().tolist() == [t % 3 for t in range(20)]
    alone = [layer.experts(x.flatten(0, 1), torch.eye(3)[[e] * 20]) for e in range(3)]
    expected = torch.stack([0.5 * alone[t % 3][t] for t in range(20)])
    torch.testing.assert_close(out.flatten(0, 1), expected)
